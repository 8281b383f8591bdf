"""What ``jddb train`` and ``jddb test`` share: read options, check them, hand them to the toolbox's pipeline."""
from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jddb_plugin.checks import CheckpointError, DataError, JDDBError, OptionError
from jddb_plugin.files import temporary_folder
from jddb_plugin.runtime import preemption
from jddb_plugin.runtime.preflight import check_folders


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of both commands."""
    parser.add_argument('-opt', required=True, metavar='FILE',
                        help='option file (YAML), or the name of a shipped one, e.g. jddb_reds')
    parser.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE',
                        help='override options, e.g. train.total_iter=10')
    parser.add_argument('--force_yml', nargs='+', action='extend', default=[], metavar='KEY=VALUE',
                        help="the toolbox's spelling of --set, e.g. train:total_iter=10")
    parser.add_argument('--auto_resume', action='store_true', help='continue from the newest readable training state')
    parser.add_argument('--debug', action='store_true', help="the toolbox's debug mode: validate and save every 8 iterations")
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm'), default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def run(args: argparse.Namespace, *, is_train: bool) -> int:
    """Run one of the toolbox's pipelines on checked options.

    Experiments and results go below the current directory.

    Returns:
        Exit status: 0; 2 after an error of the user's, reported in one line; 75 after a signal that asked the run to stop,
        once its state is saved.
    """
    saved = sys.argv
    try:
        if is_train:
            with preemption.watch():  # from here on, so that a signal while torch is being imported is not lost
                _run_and_stop(args, is_train=True)
        else:  # a test has no state to save
            _run_and_stop(args, is_train=False)
    except preemption.Preempted as stopped:
        sys.stderr.write(f'{stopped}\n')
        return preemption.EXIT_STATUS
    except JDDBError as error:
        sys.stderr.write(f'{_prefix()}: {_message(error)}\n')
        return 2
    finally:
        sys.argv = saved
    return 0


def _run_and_stop(args: argparse.Namespace, *, is_train: bool) -> None:
    try:
        _run(args, is_train=is_train)
    except preemption.Preempted:
        _stop_processes()
        raise
    _stop_processes()  # not after an error: the other processes may be gone


def _stop_processes() -> None:
    from jddb_plugin.runtime import processes
    processes.stop()


def _prefix() -> str:
    from jddb_plugin.runtime import processes
    if not processes.is_distributed():
        return 'error'
    rank = processes.dist.get_rank()
    return 'error' if rank == 0 else f'error in process {rank}'


def _message(error: JDDBError) -> str:
    """One line: a loader's worker wraps the message into a traceback, whose last line it is."""
    message = str(error).strip().splitlines()[-1]
    return message.partition(': ')[2] if str(error).startswith('Caught ') else message


def _run(args: argparse.Namespace, *, is_train: bool) -> None:
    from jddb_plugin.config import dump_options, find_options, load_options, parse_override
    overrides = [parse_override(text) for text in args.set]
    overrides += [parse_override(text, separator=':') for text in args.force_yml]
    file = find_options(args.opt, 'train' if is_train else 'test')
    options = load_options(file, overrides)

    from basicsr.utils.registry import MODEL_REGISTRY

    from jddb_plugin.compat import datasets
    from jddb_plugin.compat.options import check_options
    from jddb_plugin.runtime import processes
    opt = check_options(options, is_train=is_train, launcher=args.launcher)
    find_weights(opt['path'])
    built = check_files(opt)
    ours = hasattr(MODEL_REGISTRY.get(opt['model_type']), 'check_options')
    if not is_train and ours and not opt['path'].get('pretrain_network_g'):
        raise OptionError("path: 'pretrain_network_g' is missing; a network with random weights is not worth testing.")
    with temporary_folder() as folder:
        resolved = folder / Path(file).name
        command = ' '.join(shlex.join(args.arguments).split())
        header = f'# Resolved from: {args.opt}\n# by: jddb {args.command} {command}\n'
        resolved.write_text(header + dump_options(opt), encoding='utf-8')
        args.auto_resume = args.auto_resume or processes.is_restart(args.launcher)
        flags = [f'--{flag}' for flag in ('auto_resume', 'debug') if getattr(args, flag)]
        sys.argv = [f'jddb {args.command}', '-opt', str(resolved), '--launcher', args.launcher, *flags]
        if is_train:
            from basicsr.train import train_pipeline as pipeline
        else:
            from basicsr.test import test_pipeline as pipeline
        for phase, name, dataset in built:
            datasets.keep(phase, name, dataset)
        try:
            pipeline(os.getcwd())
        finally:
            datasets.forget()


def find_weights(paths: dict[str, Any]) -> None:
    """Put files in place of names of weights that come with the package, e.g. ``pretrain_network_g: small``."""
    from jddb_plugin.weights import FOLDER, available
    for key, path in paths.items():
        if key.startswith('pretrain_network') and path in available() and not os.path.isfile(path):
            paths[key] = str(FOLDER / f'{path}.pth')


def check_files(opt: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """Check the files that options name, before an older experiment makes room for this one.

    Returns:
        (phase, name, data set) of those that were built for it.

    Raises:
        CheckpointError: a checkpoint is not there.
        DataError: one of our data sets cannot be built, or holds frames smaller than a tile.
    """
    from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

    for key, path in opt['path'].items():
        if key.startswith(('pretrain_network', 'resume_state')) and path and not os.path.isfile(os.path.expanduser(path)):
            raise CheckpointError(f'path.{key}: {path}: no such checkpoint.')
    smallest = getattr(MODEL_REGISTRY.get(opt['model_type']), 'smallest_frame', lambda opt, phase: 0)
    built = []
    for phase, section in opt['datasets'].items():
        kind = DATASET_REGISTRY.get(section['type'])
        if not hasattr(kind, 'Options'):
            check_folders(section, f'datasets.{phase}')
            continue
        tile = smallest(opt, phase)
        kept_phase = phase.split('_')[0]
        dataset = kind({**section, 'phase': kept_phase})
        built.append((kept_phase, section['name'], dataset))
        for name, (height, width) in dataset.frame_sizes().items():
            if min(height, width) < tile:
                key = 'train.tile' if phase == 'train' else 'val.tile'
                raise DataError(f'datasets.{phase}: what is cut from clip {name}, {width} x {height}, is smaller than a tile of '
                                f'{tile} RGB px; lower {key}, enlarge gt_size or crop, or leave the clip out.')
    return built
