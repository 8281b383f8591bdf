"""The measurements of ``jddb bench``, on the public interfaces: functions of ops, ``Restorer``, ``jddb train``."""
from __future__ import annotations

import contextlib
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import numpy as np
import torch

import jddb_plugin
from jddb_plugin.checks import JDDBError
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.ops import SearchWindow, make_grid, match_tiles
from jddb_plugin.restoration import Burst, Restorer, Settings

_FRAMES = 5
#: Height and width of the frames.
_SIZES = {'small': (480, 640), 'uhd': (2160, 3840)}
#: Options of the network: the paper's, and a small one that a CPU trains.
_NETWORKS = {'small': {'num_feat': 16, 'deformable_groups': 4}, 'uhd': {}}
_STEPS = {'small': 3, 'uhd': 20}


def measure(device: str, size: str, *, only: Optional[str] = None, repeats: int = 3) -> list[dict[str, Any]]:
    """All measurements, or one of 'matching', 'restore' and 'train': names with seconds and gigabytes."""
    where = torch.device(device)
    results = []
    if only in (None, 'matching'):
        results.append(_matching(where, size, repeats))
    precisions = ('float32', 'bf16') if where.type == 'cuda' else ('float32',)
    for precision in precisions if only in (None, 'restore') else ():
        results.append(_restore(where, size, precision, repeats))
    for precision in precisions if only in (None, 'train') else ():
        results.append(_train(where, size, precision))
    return results


def _median_seconds(function: Callable[[], object], device: torch.device, repeats: int) -> dict[str, float]:
    """Median after one call that warms up, and the peak of the GPU's memory."""
    function()
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(repeats):
        _synchronize(device)
        start = time.perf_counter()
        function()
        _synchronize(device)
        seconds.append(time.perf_counter() - start)
    memory = {'peak_memory_gb': torch.cuda.max_memory_allocated(device) / 1e9} if device.type == 'cuda' else {}
    return {'seconds': statistics.median(seconds), **memory}


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _matching(device: torch.device, size: str, repeats: int) -> dict[str, Any]:
    """The paper's search for 4K on features of 64 channels, a quarter of the packed raw's size."""
    height, width = (side // 8 for side in _SIZES[size])
    features = torch.rand(1, _FRAMES, 64, height, width, device=device)
    tile = min(32, height // 2)
    grid = make_grid(height, width, tile=tile, overlap=4, multiple=1)
    positions = grid.positions(device)[None]
    window = SearchWindow(radius=16, stride=2)
    with torch.no_grad():
        numbers = _median_seconds(
            lambda: match_tiles(features, positions, grid.size, ref_idx=_FRAMES // 2, window=window), device, repeats)
    return {'name': 'block matching', 'tiles': len(grid), **numbers}


def _restore(device: torch.device, size: str, precision: str, repeats: int) -> dict[str, Any]:
    """A burst in memory, through all that ``jddb restore`` does but reading and writing files."""
    rng = np.random.default_rng(0)
    camera = CameraMetadata(cfa='rggb', bits=12, black_level=(64.0,) * 4, white_level=(4095.0,) * 4,
                            white_balance=(2.0, 1.0, 1.5), color_matrix=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
                            noise_shot=(1e-3,) * 4, noise_read=(1e-2,) * 4)
    mosaics = [rng.integers(64, 4096, _SIZES[size], dtype=np.uint16) for _ in range(_FRAMES)]
    burst = Burst.from_arrays(mosaics, camera)
    with tempfile.TemporaryDirectory(prefix='jddb_bench_') as folder:
        weights = Path(folder) / 'net.pth'
        torch.save({'params': jddb_plugin.TwoStageJDDB(**_NETWORKS[size]).state_dict()}, weights)
        restorer = Restorer(weights, Settings(device=str(device), precision=precision))
        numbers = _median_seconds(lambda: restorer.restore(burst, progress=False), device, repeats)
    return {'name': f'restored burst, {precision}', 'frames': _FRAMES, **numbers}


@contextlib.contextmanager
def _quietly_in(folder: str) -> Iterator[None]:
    """Work in a folder, with what is printed there going nowhere."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    finally:
        os.chdir(before)


def _train(device: torch.device, size: str, precision: str) -> dict[str, Any]:
    """``jddb train`` by the paper's recipe on a random clip; the last line of its metrics.jsonl."""
    from jddb_plugin.cli.main import main
    side = {'small': 256, 'uhd': 720}[size]
    steps = _STEPS[size]
    overrides = {'train.total_iter': 2 * steps, 'train.scheduler.periods': [2 * steps], 'train.scheduler.restart_weights': [1],
                 'train.precision': precision, 'logger.print_freq': steps, 'logger.save_checkpoint_freq': 1000,
                 'logger.use_tb_logger': False, 'num_gpu': 1 if device.type == 'cuda' else 0,
                 'datasets.train.gt_size': side, 'datasets.train.exclude_clips': [], 'datasets.train.val_partition': None,
                 'datasets.train.clips': ['clip'], 'datasets.train.dataset_enlarge_ratio': 100, 'datasets.val': None, 'val': None,
                 **{f'network_g.{key}': value for key, value in _NETWORKS[size].items()}}
    if size == 'small':
        overrides.update({'datasets.train.batch_size': 1, 'datasets.train.num_worker_per_gpu': 0})
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix='jddb_bench_') as folder:
        lmdb = Path(folder) / 'frames.lmdb'
        with BurstLmdbWriter(str(lmdb), encoding='tiff') as writer:
            for index in range(2 * _FRAMES):
                writer.put_image('clip', index, rng.integers(0, 256, (side + 16, side + 16, 3), dtype=np.uint8))
        overrides['datasets.train.dataroot_gt'] = str(lmdb)
        arguments = [f'{key}={json.dumps(value)}' for key, value in overrides.items()]
        messages = Path(folder) / 'messages.txt'
        if device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(device)
        with _quietly_in(folder), open(messages, 'w') as errors, contextlib.redirect_stderr(errors):
            status = main(['train', '-opt', 'jddb_reds', '--set', *arguments])
        if status:
            raise JDDBError(f'the training of the benchmark failed: {messages.read_text().strip()[-300:]}')
        lines = next(Path(folder).glob('experiments/*/metrics.jsonl')).read_text().splitlines()
    last = json.loads(lines[-1])
    return {'name': f'training, {precision}', 'batch': 1 if size == 'small' else 4, 'seconds': 1 / last['iterations_per_second'],
            'data_wait': last['data_wait'], 'peak_memory_gb': last['peak_memory_gb']}


