"""Scores of every validation of a run, in a file beside its checkpoints: one JSON object a line.

The best score is a function of this history. It is therefore known after a resume, also when the state that the run
goes on from was saved before the validation of its iteration, as the toolbox does it.
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator

FILE = 'validation.jsonl'


def append(folder: str, iteration: int, name: str, metric: str, value: float) -> None:
    """Add one score of data set ``name``."""
    entry = {'iter': int(iteration), 'set': name, 'metric': metric, 'value': float(value)}
    with open(Path(folder) / FILE, 'a', encoding='utf-8') as file:
        file.write(json.dumps(entry) + '\n')


def read(folder: str, up_to: int) -> Iterator[tuple[int, str, str, float]]:
    """(iteration, data set, metric, value) of the validations up to an iteration; a torn line is left out."""
    path = Path(folder) / FILE
    for line in path.read_text(encoding='utf-8').splitlines() if path.is_file() else ():
        try:
            entry: dict[str, Any] = json.loads(line)
            score = entry['iter'], entry['set'], entry['metric'], entry['value']
        except (ValueError, KeyError, TypeError):  # killed while writing
            continue
        if score[0] <= up_to:
            yield score
