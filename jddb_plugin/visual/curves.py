"""Curves of trainings from the numbers that they keep: ``metrics.jsonl`` and ``validation.jsonl`` of an experiment's folder.

Everything is drawn over iterations. Where an iteration comes again, as after a resume, what followed the first time is discarded.
"""
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from jddb_plugin.checks import DataError

#: Names of the files, which :mod:`jddb_plugin.runtime` writes.
TRAINING, VALIDATION = 'metrics.jsonl', 'validation.jsonl'
#: Values by iteration, by name.
Curves = dict[str, dict[int, float]]

#: Panels in this order, by the beginning of their names; the rest comes before the last three.
_ORDER = ('l_', 'lr', 'temperature', 'weight_', '', 'iterations_per_second', 'samples_per_second', 'data_wait', 'peak_memory_gb')
_LOGARITHMIC = ('l_', 'lr', 'temperature', 'grad')
_SMOOTHED = ('l_', 'grad', 'iterations', 'samples', 'data_wait')


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding='utf-8', errors='replace').splitlines() if path.is_file() else []
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror}).') from error
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # the run was killed while writing
            continue
        if isinstance(entry, dict) and isinstance(entry.get('iter'), int):
            entries.append(entry)
    return entries


def read_curves(folder: Path) -> Curves:
    """Curves of an experiment: values of training under their names, scores as ``metric on data set``.

    Raises:
        DataError: there are none, or a file cannot be read.
    """
    curves: Curves = {}
    for entry in _entries(folder / TRAINING):
        iteration = entry.pop('iter')
        for points in curves.values():
            for later in [place for place in points if place >= iteration]:
                del points[later]
        for name, value in entry.items():
            if isinstance(value, (int, float)):
                curves.setdefault(name, {})[iteration] = float(value)
    for entry in _entries(folder / VALIDATION):
        if {'set', 'metric', 'value'} <= entry.keys():
            curves.setdefault(f"{entry['metric']} on {entry['set']}", {})[entry['iter']] = float(entry['value'])
    if not any(curves.values()):
        raise DataError(f'{folder}: holds no numbers of a training ({TRAINING}); expected the folder of an experiment that has '
                        'reached its first logger.print_freq iterations, e.g. experiments/jddb_reds.')
    return curves


def _rank(name: str) -> tuple[int, str]:
    if ' on ' in name:
        return 0, name
    matches = [place for place, start in enumerate(_ORDER) if name.startswith(start)]
    return 1 + (max(matches, key=lambda place: len(_ORDER[place]))), name


def running_mean(values: Sequence[float], count: int) -> list[float]:
    """Mean of each value and up to ``count - 1`` before it; those that are not finite are left out, and stay gaps."""
    means = []
    for place, value in enumerate(values):
        window = [v for v in values[max(0, place + 1 - count):place + 1] if math.isfinite(v)]
        means.append(sum(window) / len(window) if math.isfinite(value) else math.nan)
    return means


def draw_curves(runs: Sequence[tuple[str, Curves]], *, smooth: int = 1, columns: int = 3) -> Figure:
    """A figure with one panel for each name, all runs over each other.

    Args:
        runs: (label, curves) of each.
        smooth: values that the running mean of losses and speed spans; 1 draws them as they are.
        columns: panels side by side.
    """
    names = sorted({name for _, curves in runs for name, points in curves.items() if points}, key=_rank)
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 2.7 * rows + 0.4), dpi=110, layout='constrained')
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, name in zip(panels, names):
        panel.set_title(name, loc='left', fontsize=10)
        panel.set_xlabel('iteration', fontsize=8)
        panel.grid(True, color='0.9')
        for place, (_, curves) in enumerate(runs):
            points = curves.get(name, {})
            iterations, values = list(points), list(points.values())
            if smooth > 1 and name.startswith(_SMOOTHED):
                panel.plot(iterations, values, color=f'C{place}', linewidth=0.7, alpha=0.3)
                values = running_mean(values, smooth)
            marker = '.' if len(points) < 3 or ' on ' in name else ''
            panel.plot(iterations, values, color=f'C{place}', linewidth=1.3, marker=marker)
        drawn = [value for _, curves in runs for value in curves.get(name, {}).values() if math.isfinite(value)]
        if name.startswith(_LOGARITHMIC) and drawn and min(drawn) > 0:
            panel.set_yscale('log')
    for panel in panels[len(names):]:
        panel.set_visible(False)
    handles = [panels[0].plot([], [], color=f'C{place}')[0] for place in range(len(runs))]
    figure.legend(handles, [label for label, _ in runs], loc='outside upper center', ncols=min(len(runs), 4), frameon=False)
    return figure
