"""Bilinear demosaicking of the noisy reference: what every system must beat."""
from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Mapping, Optional

import numpy as np
from basicsr.data import build_dataset
from basicsr.metrics import calculate_metric
from tqdm import tqdm

from jddb_plugin.ops.bayer import demosaic_bilinear


def bilinear_scores(section: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Scores of a test set in the layout of a test's metrics file: metric -> clip -> 'all' and 'center'.

    Args:
        section: of the test set in an option file.
        metrics: ``val.metrics`` of the same file.
    """
    dataset = build_dataset({**copy.deepcopy(dict(section)), 'phase': 'test'})
    folders = np.array(dataset.data_info['folder'])
    border = np.array(dataset.data_info['border'], dtype=bool)
    values: dict[str, list[float]] = {name: [] for name in metrics}
    for index in tqdm(range(len(dataset)), unit='frame', desc=f'Bilinear {section["name"]}', leave=False):
        sample = dataset[index]
        noisy = demosaic_bilinear(sample['lq'][None, len(sample['lq']) // 2, :4])
        images = {name: sample['camera'].develop(linear)[0].permute(1, 2, 0).numpy().astype(np.float64) * 255
                  for name, linear in (('img', noisy), ('img2', sample['gt'][None]))}
        for name, metric in metrics.items():
            values[name].append(float(calculate_metric(images, copy.deepcopy(dict(metric)))))
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for name, found in values.items():
        scores = np.array(found)
        table[name] = {}
        for clip in dict.fromkeys(folders):
            own = folders == clip
            table[name][str(clip)] = {'all': float(scores[own].mean()),
                                      'center': float(scores[own & ~border].mean()) if (own & ~border).any() else None}
        clips = list(table[name].values())
        table[name]['average'] = {kind: _mean([clip[kind] for clip in clips]) for kind in ('all', 'center')}
    return table


def _mean(values: list[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def kept_scores(file: Path, section: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """:func:`bilinear_scores`, read from ``file`` if it is there."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(bilinear_scores(section, metrics), indent=2) + '\n')
    return json.loads(file.read_text())
