"""Draw the curves of one or more trainings from their logs.

python scripts/plot_log.py experiments/jddb_reds [RUN ...] -o curves.png [--smooth 20]

RUN is an experiment's folder or one log file, of our models or the toolbox's own. All logs of a folder are put
together in the order of their times: what a resumed run does again replaces what was done before. Several runs are
drawn over each other. Everything is drawn over iterations, so that breaks and changed clocks do not matter. A
validation belongs to the last iteration that was logged before it; its best value is marked by a star. Values that
are not finite are marked by a cross at the panel's upper edge.
"""
from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Optional

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt  # noqa: E402 - after the choice of what it draws with
import numpy as np  # noqa: E402
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter  # noqa: E402
from matplotlib.transforms import ScaledTranslation  # noqa: E402

from jddb_plugin.checks import DataError, OptionError, one_line_errors  # noqa: E402

_NUMBER = r'[+-]?(?:nan|inf|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)'
_TRAINING = re.compile(r'\[epoch:\s*\d+, iter:\s*([\d,]+), lr:\(([^)]*)\)\]'
                       rf'(?: \[eta: .*?, time \(data\): ({_NUMBER}) \(({_NUMBER})\)\])?(.*)')
_ITEM = re.compile(rf'(?<!\S)(\S+): ({_NUMBER})(?!\S)')
_START = re.compile(r'Start training from epoch: \d+, iter: (\d+)')
_RECORD = re.compile(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+: ')
_VALIDATION = re.compile(r'INFO: Validation (.+)')
#: ``# psnr average: all 30.1, centre 30.2`` and ``# psnr best: 30.1 @ 5 iter`` are JDDBModel's, the others the toolbox's.
_AVERAGE = re.compile(rf'# (\S+) average: all ({_NUMBER}), centre (none|{_NUMBER})')
_OWN_BEST = re.compile(rf'# (\S+) best: ({_NUMBER}) @')
_CLIP = re.compile(r'# \S+ .+: all ')
_STOCK = re.compile(rf'# (\S+): ({_NUMBER})')
_STOCK_BEST = re.compile(rf'\bBest: ({_NUMBER}) @')
_STAMP = re.compile(r'(\d{8}_\d{6})\.log$')

#: Names of the log in words, and the order of the panels that they get.
_SPEED = {'samples_per_second': 'samples per second', 'iterations_per_second': 'iterations per second',
          'data_wait': 'share of time waiting for data', 'peak_memory_gb': 'peak memory, GB'}
#: Kinds of training values in the order of their panels; some are smoothed, and the names of some call for a logarithmic axis.
_KINDS = ('loss', 'learning rate', 'scheduled', 'other', 'speed')
_SMOOTHED = ('loss', 'other', 'speed')
_STEADY = ('peak_memory_gb', 'skipped_steps')
_LOGARITHMIC = ('l_', 'lr ', 'temperature', 'grad')
#: A panel in inches: itself, what is left of it for labels, right of the last one, and between rows.
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _GAP = 3.5, 2.0, 0.62, 0.25, 0.66
#: Best values below a panel: how many in a line, and its height in inches.
_NOTES, _LINE = 3, 0.16
_DPI = 110
_DASHED = (0, (3, 2))


class Point(NamedTuple):
    """A value at an iteration."""

    iteration: int
    value: float


@dataclass
class Run:
    """Curves by their names.

    Attributes:
        training: values of training lines.
        validation: by (data set, metric): averages over clips.
        centre: the same over frames with neighbours on both sides, where the log has them.
        best: the best so far that stands beside a validation.
    """

    training: dict[str, list[Point]] = field(default_factory=dict)
    validation: dict[tuple[str, str], list[Point]] = field(default_factory=dict)
    centre: dict[tuple[str, str], list[Point]] = field(default_factory=dict)
    best: dict[tuple[str, str], list[Point]] = field(default_factory=dict)

    def forget(self, first: int) -> None:
        """Remove everything from iteration ``first`` on: it is done again."""
        for curves in (self.training, self.validation, self.centre, self.best):
            for points in curves.values():
                while points and points[-1].iteration >= first:
                    points.pop()


def parse_training(line: str) -> Optional[tuple[int, dict[str, float]]]:
    """Iteration and values of a training line; None for any other line."""
    match = _TRAINING.search(line)
    if match is None:
        return None
    iteration, rates, seconds, waiting, rest = match.groups()
    values = {f'lr {k + 1}': float(rate) for k, rate in enumerate(rate for rate in rates.split(',') if rate.strip())}
    values.update((name, float(value)) for name, value in _ITEM.findall(rest))
    if seconds is not None and float(seconds) > 0:
        values.setdefault('iterations_per_second', 1 / float(seconds))
        values.setdefault('data_wait', float(waiting) / float(seconds))
    return int(iteration.replace(',', '')), values


def parse_validation(line: str, metric: Optional[str]) -> tuple[Optional[str], dict[str, float]]:
    """A line below ``Validation <set>``: its metric (``metric`` where it goes on with it), and what it tells."""
    own, own_best, stock, best = (pattern.search(line) for pattern in (_AVERAGE, _OWN_BEST, _STOCK, _STOCK_BEST))
    if own:
        centre = {} if own[3] == 'none' else {'centre': float(own[3])}
        return own[1], {'value': float(own[2]), **centre}
    if own_best:
        return own_best[1], {'best': float(own_best[2])}
    if _CLIP.search(line):
        return metric, {}
    found = {'best': float(best[1])} if best else {}
    if stock:  # the first of the line is the mean, clips follow
        return stock[1], {'value': float(stock[2]), **found}
    return metric, found


def parse_lines(run: Run, lines: Iterable[str]) -> None:
    """Add the lines of one log to a run.

    An iteration that comes again, or a start from before it, makes the later ones void.
    """
    iteration, dataset, metric = 0, None, None
    for line in lines:
        start, training, validation = _START.search(line), parse_training(line), _VALIDATION.search(line)
        if start or training or validation or _RECORD.match(line):
            dataset = None
        if start:
            iteration = int(start[1])
            run.forget(iteration + 1)
        elif training:
            iteration = training[0]
            run.forget(iteration)
            for name, value in training[1].items():
                run.training.setdefault(name, []).append(Point(iteration, value))
        elif validation:
            dataset, metric = validation[1].strip(), None
        elif dataset is not None:
            metric, found = parse_validation(line, metric)
            for kind, value in found.items():
                curves = {'value': run.validation, 'centre': run.centre, 'best': run.best}[kind]
                points = curves.setdefault((dataset, metric), [])
                if points and points[-1].iteration == iteration:  # the end of a training validates once more
                    points.pop()
                points.append(Point(iteration, value))


def log_files(path: Path) -> list[Path]:
    """The logs of a run, oldest first.

    Raises:
        DataError: nothing is there.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise DataError(f"{path}: no such folder or file; expected an experiment's folder, or a log.")
    files = [file for file in path.glob('*.log') if not file.name.startswith('test_')]
    if not files:
        raise DataError(f'{path}: holds no *.log; expected the folder of an experiment, e.g. experiments/jddb_reds.')
    return sorted(files, key=lambda file: (_time(file), file.name))


def _time(file: Path) -> str:
    """When a log was begun: its name tells, or else its first record; as digits."""
    stamp = _STAMP.search(file.name)
    if stamp:
        return stamp[1].replace('_', '')
    record = next((line for line in _read(file) if _RECORD.match(line)), '')
    return re.sub(r'\D', '', record[:19])


def _read(file: Path) -> list[str]:
    """Lines of a log; bytes that are no text do not matter.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return file.read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError as error:
        raise DataError(f'{file}: cannot be read ({error.strerror}).') from error


def read_run(path: Path) -> Run:
    """Read the logs of a run.

    Raises:
        DataError: there is none, it cannot be read, or holds no training line.
    """
    run = Run()
    for file in log_files(path):
        parse_lines(run, _read(file))
    if not any(run.training.values()):
        raise DataError(f'{path}: holds no training line ("[epoch: ..., iter: ..."); has the run reached its first '
                        'logger.print_freq iterations?')
    return run


def labels(paths: Sequence[Path]) -> list[str]:
    """Short names of runs: the ends of their paths, as long as it takes to tell them apart."""
    paths = [path.resolve() for path in paths]
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        names = ['/'.join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names


# -------------------------------------------------------------------------------------------- curves


def smooth(values: np.ndarray, count: int) -> np.ndarray:
    """Mean of each value and up to ``count - 1`` before it; those that are not finite are left out."""
    finite = np.isfinite(values)
    sums, counts = (np.concatenate(([0], np.cumsum(part))) for part in (np.where(finite, values, 0), finite))
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - count, 0)
    number = counts[last] - counts[first]
    return np.where(finite, (sums[last] - sums[first]) / np.maximum(number, 1), np.nan)


def lower_is_better(points: Sequence[Point], best: Sequence[Point]) -> bool:
    """Which way a metric improves, from the best values that stand beside it; higher where they do not tell.

    The toolbox keeps no best value over a resume, so that their order alone would not tell.
    """
    values = dict(points)
    differences = [point.value - values[point.iteration] for point in best if point.iteration in values]
    vote = sum((difference > 0) - (difference < 0) for difference in differences if math.isfinite(difference))
    if vote == 0 and differences:  # every validation was the best so far
        vote = points[-1].value - points[0].value
    return vote < 0


def find_best(points: Sequence[Point], best: Sequence[Point]) -> Optional[Point]:
    """The best of the finite values, the earliest if it came several times."""
    finite = [point for point in points if math.isfinite(point.value)]
    sign = -1 if lower_is_better(points, best) else 1
    return max(finite, key=lambda point: sign * point.value, default=None)


def _kind(name: str) -> str:
    """What a training value is, one of _KINDS."""
    if name.startswith('l_'):
        return 'loss'
    if name.startswith('lr '):
        return 'learning rate'
    if name.startswith(('temperature', 'weight_')):
        return 'scheduled'
    return 'speed' if name in _SPEED else 'other'


def panels(runs: Iterable[Run]) -> list[Any]:
    """What gets a panel, in this order: losses, validation, learning rates, scheduled values, others, speed.

    Names of training values, and (data set, metric).
    """
    runs = list(runs)
    names = dict.fromkeys(name for run in runs for name, points in run.training.items() if points)
    scores = dict.fromkeys(name for run in runs for name, points in run.validation.items() if points)

    if all(run.training.get('samples_per_second') for run in runs):
        names.pop('iterations_per_second', None)  # says the same
    names = sorted(names, key=lambda name: (_KINDS.index(_kind(name)), list(_SPEED).index(name) if name in _SPEED else 0))
    losses = [name for name in names if _kind(name) == 'loss']
    return losses + list(scores) + names[len(losses):]


# ------------------------------------------------------------------------------------------- drawing


def _title(name: Any, runs: Sequence[Run]) -> str:
    """A panel's heading."""
    if isinstance(name, tuple):
        dashed = any(run.centre.get(name) for run in runs)
        return f'{name[1]} on {name[0]}' + (' (dashed: centre frames)' if dashed else '')
    if name.startswith('lr '):
        count = len({key for run in runs for key in run.training if key.startswith('lr ')})
        return f'learning rate of group {name[3:]}' if count > 1 else 'learning rate'
    return _SPEED.get(name, name)


def _line(axes: Any, points: Sequence[Point], colour: Any, count: int) -> None:
    """One curve of a training value, smoothed over ``count`` points."""
    x, y = np.array(points, dtype=float).T
    shown = np.where(np.isfinite(y), y, np.nan)
    marker = '.' if len(points) < 3 else ''
    if count > 1:
        axes.plot(x, shown, color=colour, linewidth=0.8, alpha=0.3, zorder=1.5)
        shown = smooth(y, count)
    axes.plot(x, shown, color=colour, linewidth=1.3, marker=marker)
    bad = x[~np.isfinite(y)]
    axes.plot(bad, np.ones(len(bad)), linestyle='', marker='x', color=colour, transform=axes.get_xaxis_transform(),
              clip_on=False)


def _scores(axes: Any, run: Run, name: tuple[str, str], colour: Any) -> Optional[str]:
    """One curve of a metric with its best marked; returns the best in words."""
    points = [point for point in run.validation[name] if math.isfinite(point.value)]
    for curve, style in ((points, {'marker': 'o', 'markersize': 3}), (run.centre.get(name), {'linestyle': _DASHED})):
        if curve:
            axes.plot(*zip(*curve), color=colour, linewidth=1.3, **style)
    best = find_best(points, run.best.get(name, ()))
    if best is None:
        return None
    axes.plot(*best, color=colour, marker='*', markersize=13, markeredgecolor='white', linestyle='', clip_on=False, zorder=4)
    return f"{best.value:.{2 if abs(best.value) >= 10 else 4}f} at {EngFormatter(sep='')(best.iteration)}"


def _short(value: float, _: Any = None) -> str:
    """Text of a tick: 20k, 500, 0.05, 1e-5."""
    if value >= 1000:
        return EngFormatter(sep='')(value)
    return f'{value:g}' if value >= 0.01 else re.sub(r'e([+-])0*', r'e\1', f'{value:.0e}').replace('e+', 'e')


def _scale(axes: Any, values: np.ndarray, *, logarithmic: bool) -> None:
    """Axis of the values: logarithmic where it is asked for and possible, where zeros become gaps."""
    positive = values[np.isfinite(values) & (values > 0)]
    if logarithmic and len(positive) and not (values < 0).any():
        axes.set_yscale('log', nonpositive='mask')
        decades = math.log10(positive.max() / positive.min())
        axes.yaxis.set_major_locator(LogLocator(numticks=6, subs=(1,) if decades > 2 else (1, 2, 5)))
        axes.yaxis.set_major_formatter(_short)
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.ticklabel_format(axis='y', scilimits=(-3, 4), useOffset=False)


def _style(axes: Any, title: str) -> None:
    """Heading, grid and the axis of the iterations."""
    axes.text(0, 1, title, fontsize=10, transform=axes.transAxes + _inches(axes, 0, 0.07))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=2))
    axes.xaxis.set_major_formatter(EngFormatter(sep=''))
    axes.tick_params(labelsize=8, length=3)
    axes.yaxis.get_offset_text().set_fontsize(8)
    axes.grid(True, color='0.9', linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)


def _inches(axes: Any, x: float, y: float) -> Any:
    """A shift of what is drawn."""
    return ScaledTranslation(x, y, axes.figure.dpi_scale_trans)


def _panel(axes: Any, name: Any, runs: Sequence[Run], colours: Sequence[Any], count: int) -> None:
    """All runs' curves of one name."""
    scores = isinstance(name, tuple)
    curves = [(run.validation if scores else run.training).get(name) for run in runs]
    drawn = [(run, points, colour) for run, points, colour in zip(runs, curves, colours) if points]
    if scores:
        notes = [(_scores(axes, run, name, colour), colour) for run, _, colour in drawn]
        for k, (text, colour) in enumerate(note for note in notes if note[0]):  # below the panel, clear of the curves
            shift = _inches(axes, k % _NOTES * _WIDTH / _NOTES, -0.36 - _LINE * (k // _NOTES))
            axes.text(0, 0, f'$\\bigstar$ {text}', color=colour, fontsize=8, transform=axes.transAxes + shift)
    else:
        smoothed = count if _kind(name) in _SMOOTHED and name not in _STEADY else 1
        for _, points, colour in drawn:
            _line(axes, points, colour, smoothed)
    _style(axes, _title(name, runs))
    values = np.array([point.value for _, points, _ in drawn for point in points])
    _scale(axes, values, logarithmic=not scores and name.startswith(_LOGARITHMIC))
    if name == 'data_wait':
        axes.set_ylim(bottom=0)


def draw(runs: Sequence[Run], names: Sequence[str], *, smooth_over: int = 1, columns: int = 3) -> Any:
    """A figure of all curves, one panel for each.

    Args:
        runs: what was read.
        names: of the runs, for the legend.
        smooth_over: points that the running mean of losses, speed and the like takes in; 1 draws them as they are.
        columns: panels side by side.

    Returns:
        The figure; close it when it is saved.
    """
    wanted = panels(runs)
    columns = min(columns, len(wanted))
    rows = [wanted[k:k + columns] for k in range(0, len(wanted), columns)]
    notes = _LINE * -(-len(runs) // _NOTES)
    heights = [_HEIGHT + _GAP + (notes if any(isinstance(name, tuple) for name in row) else 0) for row in rows]
    width = columns * (_LEFT + _WIDTH) + _RIGHT
    side_by_side = min(len(names), max(1, int(width / (0.6 + 0.085 * max(map(len, names))))))
    heading = 0.25 + 0.22 * -(-len(names) // side_by_side)
    height = heading + sum(heights) + _LINE
    figure = plt.figure(figsize=(width, height), dpi=_DPI)
    palette = plt.get_cmap('tab10' if len(runs) <= 10 else 'tab20').colors
    colours = [palette[k % len(palette)] for k in range(len(runs))]
    last = max(points[-1].iteration for run in runs for points in run.training.values() if points)
    top = height - heading
    for row, taken in zip(rows, heights):
        for k, name in enumerate(row):
            corner = _LEFT + k * (_LEFT + _WIDTH), top - 0.25 - _HEIGHT
            axes = figure.add_axes((corner[0] / width, corner[1] / height, _WIDTH / width, _HEIGHT / height))
            _panel(axes, name, runs, colours, smooth_over)
            axes.set_xlim(-0.02 * last, 1.02 * last)
        top -= taken
    figure.text(0.5, 0.08 / height, 'iteration', fontsize=9, horizontalalignment='center')
    figure.legend(handles=[plt.Line2D([], [], color=colour, linewidth=2, label=name) for colour, name in zip(colours, names)],
                  loc='upper center', ncols=side_by_side, frameon=False, fontsize=10)
    return figure


@one_line_errors
def main(arguments: Optional[list[str]] = None) -> int:
    """Read, draw and write; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', type=Path, nargs='+', metavar='RUN', help="an experiment's folder, or a log")
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='FILE', help='picture to write, .png')
    parser.add_argument('--smooth', type=int, default=1, metavar='N', help='running mean over N lines of the log')
    parser.add_argument('--columns', type=int, default=3, help='panels side by side')
    args = parser.parse_args(arguments)
    if args.smooth < 1 or args.columns < 1:
        raise OptionError(f'expected --smooth and --columns of at least 1, got {args.smooth} and {args.columns}.')
    if args.output.suffix.lower() != '.png':
        raise OptionError(f'{args.output}: expected the name of a .png file.')
    paths = list(dict.fromkeys(args.runs))
    figure = draw([read_run(path) for path in paths], labels(paths), smooth_over=args.smooth, columns=args.columns)
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.output, format='png')
    except OSError as error:
        raise DataError(f'{args.output}: cannot be written ({error.strerror}).') from error
    finally:
        plt.close(figure)
    return 0


if __name__ == '__main__':
    sys.exit(main())
