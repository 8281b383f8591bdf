"""The command behind scripts/tables.py."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

import torch

from jddb_plugin.checks import OptionError, TrainingError, one_line_errors
from jddb_plugin.tables import cost, report, running
from jddb_plugin.tables.systems import ROWS, SYSTEMS, TESTS, Study, System, choose, paper_study

DESCRIPTION = """The systems of the paper's tables: train, test, print.

    run       train and test what is not done yet, one after the other, or one training by its number (--index, for Slurm arrays)
    print     tables 1, 2 and 4 of what is complete, the paper's figures beside
    cost      table 3 for this machine, without training
    list      the trainings with their numbers

Every training and test is a process of its own and goes below the current directory (experiments/, results/) as
tables_SYSTEM_seedK. Commands can be repeated: what is complete is skipped, what was interrupted goes on from its newest training
state. A training that exits with status 75 (preempted, its state saved) ends the command with 75 too.
"""


def add_choice(parser: argparse.ArgumentParser, known: Sequence[str]) -> None:
    """Which systems, seeds and options."""
    parser.add_argument('--systems', nargs='+', metavar='ROW', help='default: all of ' + ', '.join(known))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], help='default: 0')


def add_running(parser: argparse.ArgumentParser) -> None:
    """What running takes."""
    parser.add_argument('--index', type=int, metavar='K', help='training number K alone, and the tests that it makes possible')
    parser.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE', help='passed on to the trainings')
    parser.add_argument('--set-test', nargs='+', action='extend', default=[], metavar='KEY=VALUE', help='passed on to the tests')


def execute(study: Study, systems: Sequence[System], args: argparse.Namespace) -> int:
    """Run trainings and tests; returns the exit status. A training that fails does not keep the others from running."""
    trainings = running.job(running.trainings_of(study, systems, args.seeds), args.index)
    status = 0
    try:
        for training in trainings:
            try:
                running.plan([training], args.set)
                running.run_training(training)
            except TrainingError as error:
                sys.stderr.write(f'error: {error}\n')
                status = 1
        for test in running.tests_of(study, systems, args.seeds):
            if args.index is not None and not set(trainings) & set(test.trainings):
                continue
            try:
                running.run_test(test, args.set_test)
            except TrainingError as error:
                sys.stderr.write(f'error: {error}\n')
                status = 1
    except running.Stopped as stopped:
        return stopped.status
    return status


def _run(args: argparse.Namespace) -> int:
    return execute(paper_study(_tables(args)), _systems(args), args)


def _tables(args: argparse.Namespace) -> list[int]:
    return args.tables or [1, 2, 4]


def _systems(args: argparse.Namespace) -> list[System]:
    known = tuple(dict.fromkeys(key for table in _tables(args) for key in ROWS.get(table, ROWS[1])))
    return choose(args.systems, known)


def _list(args: argparse.Namespace) -> int:
    for number, training in enumerate(running.trainings_of(paper_study(_tables(args)), _systems(args), args.seeds)):
        sys.stdout.write(f'{number:3d}  {training.name}  {"complete" if training.marker.exists() else report.MISSING}\n')
    return 0


def _print(args: argparse.Namespace) -> int:
    text = report.report(paper_study(_tables(args)), _tables(args), args.seeds, args.score)
    report.write(text, args.output / 'tables.md')
    sys.stdout.write(text + f'\nScores over {args.score} frames; seeds: {", ".join(map(str, args.seeds))}. '
                     f'Written to {args.output / "tables.md"}\n')
    return 0


def _cost(args: argparse.Namespace) -> int:
    if args.tiles < 0:
        raise OptionError(f'--tiles: expected at least 0, got {args.tiles}.')
    costs = list(cost.measure_all(choose(args.systems, ROWS[3]), args.cases, tiles=args.tiles or None, device=args.device))
    text = (f'Table 3: {cost.machine(args.device)}, random weights.\n\n{cost.table3(costs)}\n'
            'GFLOP: convolutions and matrix products, 2 per multiply-add. Refined alignment: deformable convolutions and their '
            'offsets. Frames and pictures themselves are not counted as memory.\n')
    report.write(text, args.output / 'table3.md')
    sys.stdout.write(text)
    return 0


def parse(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', type=Path, default=Path('results', 'tables'), metavar='FOLDER',
                        help='for what is printed (default: results/tables)')
    commands = parser.add_subparsers(dest='command', required=True)
    for name, function in (('run', _run), ('print', _print), ('list', _list)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        numbers = sorted(TESTS) if name != 'print' else sorted(report.TABLES)
        command.add_argument('--tables', nargs='+', type=int, choices=numbers,
                             help='default: 1 2 4' + ('; 5 restores the bursts of figure 5' if 5 in numbers else ''))
        add_choice(command, tuple(SYSTEMS))
        if name == 'run':
            add_running(command)
        if name == 'print':
            command.add_argument('--score', choices=('all', 'centre'), default='all', help='frames that count (default: all)')
    command = commands.add_parser('cost')
    command.set_defaults(function=_cost)
    add_choice(command, ROWS[3])
    command.add_argument('--cases', nargs='+', choices=cost.CASES, default=list(cost.CASES))
    command.add_argument('--tiles', type=int, default=2, metavar='K', help='tiles that are timed (default: 2); 0: all')
    command.add_argument('--device', type=torch.device, default='cuda' if torch.cuda.is_available() else 'cpu')
    return parser.parse_args(arguments)


@one_line_errors
def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run a command; returns the exit status."""
    args = parse(arguments)
    return args.function(args)
