"""The command behind scripts/tables.py."""
from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Callable, Optional, Sequence

import torch

from jddb_plugin.checks import OptionError, TrainingError, one_line_errors
from jddb_plugin.tables import clips, cost, report, running, study_report
from jddb_plugin.tables.planning import Training
from jddb_plugin.tables.systems import MIXED, ROWS, Study, make_study

DESCRIPTION = """The systems of the paper's tables: train, test, print.

    prepare   build the data of a small study
    run       train and test what is not done yet, one after the other, or one training by its number (--index, for Slurm arrays)
    print     what is complete, the paper's figures beside
    list      the trainings with their numbers
    cost      table 3 for this machine, without training

Studies: 'tables' is the paper's recipe on REDS and its tables 1, 2 and 4; 'small' has all rows at a quarter of the width on
photographs, the same CPU time for each; 'claims' has the variants of table 4 on large shifts, all from one start; 'mixing' has
the toolbox's EDVR and BasicVSR with and without block matching in front, each from a start of its own. All but the first take
--seconds, CPU seconds of each training.

Every training and test is a process of its own and goes below the current directory (experiments/, results/) as
STUDY_ROW_seedK. Commands can be repeated: what is complete is skipped, what was interrupted goes on from its newest training
state. A training that exits with status 75 (preempted, its state saved) ends the command with 75 too.
"""
#: Rows of the small study that get all seeds; the others get the first alone.
_ALL_SEEDS = ('two_stage', 'gcp_net', 'edvr')
#: Folder of a study's data, what is filmed, and the side of what is cut of real clips.
_DATA = {'small': (Path('datasets/tables_small'), clips.SMALL, 192),
         'claims': (Path('datasets/tables_claims'), clips.CLAIMS, 256),
         'mixing': (Path('datasets/tables_mixing'), clips.MIXING, 256)}


def _study(args: argparse.Namespace) -> Study:
    if args.study != 'tables' and args.tables:
        raise OptionError(f'--tables: belongs to --study tables, not to {args.study}.')
    if min(args.seeds) < 0 or len(set(args.seeds)) < len(args.seeds):
        raise OptionError(f'--seeds: expected different numbers of at least 0, got {" ".join(map(str, args.seeds))}.')
    return make_study(args.study, tables=args.tables or [1, 2, 4], seconds=getattr(args, 'seconds', None))


def _seeds(study: Study, args: argparse.Namespace) -> dict[str, list[int]]:
    """Seeds of every row."""
    few = study.name == 'small' and not args.all_seeds
    return {key: args.seeds[:1] if few and key not in _ALL_SEEDS else args.seeds for key in study.rows}


def _trainings(study: Study, args: argparse.Namespace) -> list[Training]:
    seeds = _seeds(study, args)
    every = [training for seed in args.seeds for training in running.trainings_of(
        study, [system for system in study.systems(args.systems) if seed in seeds[system.key]], [seed])]
    return sorted(every, key=lambda training: study.start_of(training.part) is not None)  # what others start from comes first


def _run(args: argparse.Namespace) -> int:
    study = _study(args)
    if args.seconds is not None and not study.timed:
        raise OptionError(f"--seconds: study {study.name} has the paper's length; --set train.total_iter=N shortens it.")
    trainings = running.job(_trainings(study, args), args.index)
    seeds = _seeds(study, args)
    status = 0
    try:
        for training in trainings:
            status |= _attempt(functools.partial(_train, training, args.set))
        for system in study.systems(args.systems):
            for test in running.evaluations_of(study, [system], seeds[system.key]):
                if args.index is None or set(trainings) & set(test.trainings):
                    status |= _attempt(functools.partial(running.run_test, test, args.set_test))
    except running.Stopped as stopped:
        return stopped.status
    return status


def _train(training: Training, overrides: Sequence[str]) -> None:
    running.plan([training], overrides)
    running.run_training(training)


def _attempt(step: Callable[[], object]) -> int:
    """Run a step; one that fails does not keep the others from running."""
    try:
        step()
    except TrainingError as error:
        sys.stderr.write(f'error: {error}\n')
        return 1
    return 0


def _list(args: argparse.Namespace) -> int:
    for number, training in enumerate(_trainings(_study(args), args)):
        sys.stdout.write(f'{number:3d}  {training.name}  {"complete" if training.marker.exists() else report.MISSING}\n')
    return 0


def _print(args: argparse.Namespace) -> int:
    study = _study(args)
    kind = args.score or study.score
    if study.name == 'tables':
        tables = args.tables or sorted(report.TABLES)
        text = report.report(study, tables, args.seeds, kind)
        if tables != [3]:
            text += f'\nScores over {kind} frames; seeds: {", ".join(map(str, args.seeds))}.\n'
    else:
        text = study_report.REPORTS[study.name](study, _seeds(study, args), kind)
    file = Path('results', study.name, 'tables.md')
    report.write(text, file)
    sys.stdout.write(f'{text}\nWritten to {file}\n')
    return 0


def _prepare(args: argparse.Namespace) -> int:
    root, sets, side = _DATA[args.study]
    clips.prepare(root, sets, args.photographs, args.clips, real_side=side)
    return 0


def _cost(args: argparse.Namespace) -> int:
    if args.tiles < 0:
        raise OptionError(f'--tiles: expected at least 0, got {args.tiles}.')
    systems = make_study('tables', tables=[3]).systems(args.systems)
    costs = list(cost.measure_all(systems, args.cases, tiles=args.tiles or None, device=args.device))
    text = (f'Table 3: {cost.measured_on(args.device)}, float32, random weights.\n\n{cost.table3(costs)}\n'
            'GFLOP: convolutions and matrix products, 2 per multiply-add. Refined alignment: deformable convolutions and their '
            f'offsets. Frames and pictures themselves are not counted as memory. {cost.paper_split()}\n')
    report.write(text, report.TABLE3)
    sys.stdout.write(text)
    return 0


def _add_study(parser: argparse.ArgumentParser, tables: Sequence[int]) -> None:
    parser.add_argument('--study', choices=('tables', *_DATA), default='tables', help='default: tables')
    parser.add_argument('--tables', nargs='+', type=int, choices=tables, help="the paper's that are wanted (default: 1 2 4); " + (
                            '5 restores the bursts of figure 5' if 5 in tables else '3 is what cost has measured last'))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], help='default: 0')
    parser.add_argument('--all-seeds', action='store_true',
                        help=f'of the small study: all seeds for all rows, not only for {", ".join(_ALL_SEEDS)}')


def parse(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    command = commands.add_parser('prepare')
    command.set_defaults(function=_prepare)
    command.add_argument('--study', choices=_DATA, required=True)
    command.add_argument('--photographs', type=Path, metavar='FOLDER', help='every fifth is held out')
    command.add_argument('--clips', type=Path, metavar='FOLDER', help='of videos, or of folders of images, to test on')
    for name, function in (('run', _run), ('print', _print), ('list', _list)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        _add_study(command, (1, 2, 3, 4) if name == 'print' else (1, 2, 4, 5))
        if name != 'print':
            command.add_argument('--systems', nargs='+', metavar='ROW', help='default: all of ' + ', '.join(ROWS[1])
                                 + '; of table 4 and claims: ' + ', '.join(ROWS[4]) + '; of mixing: ' + ', '.join(MIXED))
        if name == 'run':
            command.add_argument('--seconds', type=float, metavar='S', help='CPU seconds of every training')
            command.add_argument('--index', type=int, metavar='K', help='training K alone, and the tests that it makes possible')
            command.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE', help='for the trainings')
            command.add_argument('--set-test', nargs='+', action='extend', default=[], metavar='KEY=VALUE', help='for the tests')
        if name == 'print':
            command.add_argument('--score', choices=('all', 'center'), help="frames that count (default: the study's)")
    command = commands.add_parser('cost')
    command.set_defaults(function=_cost)
    command.add_argument('--systems', nargs='+', metavar='ROW', help='default: all of ' + ', '.join(ROWS[3]))
    command.add_argument('--cases', nargs='+', choices=cost.CASES, default=list(cost.CASES))
    command.add_argument('--tiles', type=int, default=2, metavar='K', help='tiles that are timed (default: 2); 0: all')
    command.add_argument('--device', type=torch.device, default='cuda' if torch.cuda.is_available() else 'cpu')
    return parser.parse_args(arguments)


@one_line_errors
def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run a command; returns the exit status."""
    args = parse(arguments)
    return args.function(args)
