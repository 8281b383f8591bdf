"""Draw the curves of one or more trainings: jddb plot experiments/jddb_reds [RUN ...] -o curves.png

RUN is the folder of an experiment. Its losses, learning rates, speed and scores are drawn over iterations, several runs over
each other.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from jddb_plugin.checks import DataError, OptionError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Runs, and the picture."""
    parser.add_argument('runs', type=Path, nargs='+', metavar='RUN', help="an experiment's folder")
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='FILE', help='picture to write, .png, .svg or .pdf')
    parser.add_argument('--smooth', type=int, default=1, metavar='N', help='running mean over N values of losses and speed')
    parser.add_argument('--columns', type=int, default=3, metavar='N', help='panels side by side (default: 3)')


def labels(paths: list[Path]) -> list[str]:
    """Short names of runs: the ends of their paths, as long as it takes to distinguish them."""
    paths = [path.resolve() for path in paths]
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        names = ['/'.join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(paths):
            break
    return names


def run(args: argparse.Namespace) -> int:
    """Draw; returns the exit status."""
    from jddb_plugin.visual.curves import draw_curves, read_curves
    for name in ('smooth', 'columns'):
        if getattr(args, name) < 1:
            raise OptionError(f'expected at least 1, got {getattr(args, name)}.', field=name)
    if args.output.suffix.lower() not in ('.png', '.svg', '.pdf'):
        raise OptionError(f'expected a name that ends in .png, .svg or .pdf, got {args.output}.', field='output')
    paths = list({path.resolve(): path for path in args.runs}.values())
    for path in paths:
        if not path.is_dir():
            raise DataError(f"{path}: no such folder; expected an experiment's folder.")
    figure = draw_curves(list(zip(labels(paths), map(read_curves, paths))), smooth=args.smooth, columns=args.columns)
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.output)
    except OSError as error:
        raise DataError(f'{args.output}: cannot be written ({error.strerror}).') from error
    return 0
