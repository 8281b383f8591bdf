"""The command line: ``jddb COMMAND ...``, or ``python -m jddb_plugin COMMAND ...``."""
from __future__ import annotations

import argparse
import importlib
import os
import select
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Optional

import jddb_plugin
from jddb_plugin.checks import JDDBError, one_line
from jddb_plugin.cli.arguments import message_of
from jddb_plugin.registration import broken_environment

#: Sub-commands in the order of the help, what they do, and their modules.
COMMANDS = {
    'restore': ('restore bursts of raw files', 'restore'),
    'train': ('train by an option file', 'train'),
    'test': ('test by an option file', 'test'),
    'doctor': ('check the environment', 'doctor'),
    'lmdb': ('build or verify burst LMDBs', 'lmdb'),
    'plot': ('draw the curves of trainings', 'plot'),
    'show-matching': ('draw what the block matching sees in a burst', 'show_matching'),
    'export': ('export the refined stage to ONNX or torch.export', 'export'),
    'convert': ("convert the paper's released weights", 'convert'),
    'bench': ('measure speed and memory on this machine', 'bench'),
}


def _module(name: str) -> ModuleType:
    return importlib.import_module(f'jddb_plugin.cli.{COMMANDS[name][1]}')


def build_parser(commands: Optional[Sequence[str]] = None) -> argparse.ArgumentParser:
    """The parser with the arguments of some sub-commands, or of all; each sub-command is known in any case.

    A module of :mod:`jddb_plugin.cli` has ``add_arguments(parser)``, ``run(args) -> int`` and a docstring, which is its help.
    """
    parser = argparse.ArgumentParser(prog='jddb', description='Joint denoising and demosaicking of raw bursts.')
    parser.add_argument('--version', action='version', version=f'jddb_plugin {jddb_plugin.__version__}')
    _add_completion(parser)
    subparsers = parser.add_subparsers(title='commands', dest='command', metavar='COMMAND', required=True)
    for name, (summary, _) in COMMANDS.items():
        wanted = commands is None or name in commands
        module = _module(name) if wanted else None
        subparser = subparsers.add_parser(name, help=summary, description=module.__doc__ if module else None,
                                          formatter_class=argparse.RawDescriptionHelpFormatter)
        if module is not None:
            module.add_arguments(subparser)
    return parser


def _add_completion(parser: argparse.ArgumentParser) -> None:
    try:
        import shtab
    except ImportError:
        return
    shtab.add_argument_to(parser, '--print-completion', help='print a completion script for a shell')


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run a sub-command; returns its exit status, 2 after an error of the user's, reported in one line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    named = [argument for argument in arguments[:1] if argument in COMMANDS]
    complete = any(argument.startswith('--print-completion') for argument in arguments)
    args = build_parser(None if complete else named).parse_args(arguments)
    args.arguments = arguments[1:]
    try:
        return _module(args.command).run(args)
    except KeyboardInterrupt:
        sys.stderr.write('interrupted\n')
        return 130
    except ImportError as error:
        message = str(broken_environment(error))
    except JDDBError as error:
        message = message_of(error, args)
    sys.stderr.write(one_line(f'error: {message}') + '\n')
    return 2


def _share_processor() -> None:
    """Let threads of OpenMP that wait for each other sleep after microseconds, not milliseconds, where nobody has chosen.

    GNU's runtime spins 300,000 times, and takes the time of the thread it waits for if another process runs: a UHD burst on two
    cores, one of them taken, took 96 s in place of 16 to 22; on free cores it makes no difference. Read when torch is imported.
    """
    if 'OMP_WAIT_POLICY' not in os.environ:
        os.environ.setdefault('GOMP_SPINCOUNT', '10000')


def console() -> None:
    """Run as a process of its own; without a word where the reader of its output is gone, as after ``| head``."""
    _share_processor()
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        status = 128 + 13  # what a shell reports of a process that SIGPIPE ended
    preemption = sys.modules.get('jddb_plugin.runtime.preemption')
    if preemption is not None:  # a training has ended: a late signal must not change its status
        preemption.ignore()
    sys.exit(status)


def _reader_is_gone() -> bool:
    """Whether standard output is a pipe that nobody reads; then what is still to be written goes nowhere."""
    if not hasattr(select, 'poll'):  # Windows
        return False
    output = select.poll()
    output.register(sys.stdout.fileno(), select.POLLOUT)
    gone = any(events & (select.POLLERR | select.POLLHUP) for _, events in output.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone
