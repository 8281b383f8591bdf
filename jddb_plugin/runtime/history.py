"""Scores of every validation of a run, and the values of its log, in files beside its checkpoints: one JSON object a line.

The best score is a function of this history. It is therefore known after a resume, also when the state that the run
goes on from was saved before the validation of its iteration, as the toolbox does it. A validation that was interrupted
leaves no score, and is repeated by the run that goes on.
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from jddb_plugin.files import atomic_write

FILE = 'validation.jsonl'
#: Values of the training log.
METRICS = 'metrics.jsonl'


def append(folder: str, iteration: int, name: str, metric: str, value: float) -> None:
    """Add one score of data set ``name``."""
    entry = {'iter': int(iteration), 'set': name, 'metric': metric, 'value': float(value)}
    with open(Path(folder) / FILE, 'a', encoding='utf-8') as file:
        file.write(json.dumps(entry) + '\n')


def append_metrics(folder: str, iteration: int, values: Mapping[str, float]) -> None:
    """Add the values of one line of the training log, by name."""
    with open(Path(folder) / METRICS, 'a', encoding='utf-8') as file:
        file.write(json.dumps({'iter': int(iteration), **{name: float(value) for name, value in values.items()}}) + '\n')


def _complete(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # killed while writing
            continue
        if isinstance(entry, dict) and {'iter', 'set', 'metric', 'value'} <= entry.keys():
            yield entry


def is_complete(entries: Iterable[Mapping[str, Any]], name: str, metrics: Iterable[str], iteration: int) -> bool:
    """Whether all metrics of data set ``name`` were scored at an iteration."""
    scored = {entry['metric'] for entry in entries if entry['set'] == name and entry['iter'] == iteration}
    return scored >= set(metrics)


def take_over(source: str, target: str, up_to: int, metrics: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Scores of experiment ``source`` up to an iteration, which become the history of ``target`` (often the same).

    Later entries are discarded: the resumed run has not reached those iterations. So is a torn line, and the beginning of a
    validation that wrote some of its metrics and not all: it is repeated.
    """
    path = Path(source) / FILE
    if not path.is_file():
        return []
    entries = [entry for entry in _complete(path.read_text(encoding='utf-8').splitlines()) if entry['iter'] <= up_to]
    entries = [entry for entry in entries if entry['iter'] < up_to or is_complete(entries, entry['set'], metrics, up_to)]
    with atomic_write(Path(target) / FILE) as file:
        file.write_text(''.join(json.dumps(entry) + '\n' for entry in entries), encoding='utf-8')
    return entries
