"""Table 3 for this machine: parameters, arithmetic, seconds and memory of every system, without training.

A frame is restored tile by tile. Where a whole frame would take too long, some tiles are timed and their seconds multiplied by
the number of tiles: the table says so. Coarse alignment is always run on the whole frame. Weights are random.
"""
from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import torch
from basicsr.archs import build_network
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.archs.dpbm_arch import DPBM
from jddb_plugin.config import load_options
from jddb_plugin.inference.memory import peak_bytes
from jddb_plugin.ops.tiling import TileGrid, make_grid
from jddb_plugin.tables import paper
from jddb_plugin.tables.report import markdown
from jddb_plugin.tables.systems import OPTIONS, System

#: Height and width of the RGB frame; tile, overlap and search radius of the paper's tests on REDS4 and on 4K videos.
CASES = {'720p': (720, 1280, 64, 4, 6), 'uhd': (2160, 3840, 128, 16, 16)}
FRAMES = 5
#: Names of submodules that align frames within a network.
_ALIGNING = ('align',)


@dataclass(frozen=True)
class Cost:
    """What a system costs on one frame.

    Attributes:
        parameters: of the whole network.
        flop: of convolutions and matrix products on all tiles, 2 per multiply-add.
        coarse: seconds of coarse alignment, on the whole frame; on a CPU all seconds are CPU time.
        refined: seconds of alignment within the network, all tiles.
        rest: seconds of everything else, all tiles.
        peak: bytes that restoring one tile takes beyond the network and the frame; None where that can't be told.
        tiles, timed: number of tiles of the frame, and of those that were timed.
    """

    parameters: int
    flop: float
    coarse: float
    refined: float
    rest: float
    peak: Optional[int]
    tiles: int
    timed: int

    @property
    def seconds(self) -> float:
        """All together."""
        return self.coarse + self.refined + self.rest


class _Stopwatch:
    """Seconds within the aligning submodules of a network, by hooks."""

    def __init__(self, network: nn.Module) -> None:
        self.seconds = 0.0
        self._began = 0.0
        self.device = next(network.parameters()).device
        for name, module in network.named_modules():
            if name.split('.')[-1] in _ALIGNING:
                module.register_forward_pre_hook(self._start)
                module.register_forward_hook(self._stop)

    def now(self) -> float:
        """Seconds; on a CPU those of its time that this process used, so that other jobs on the machine do not count."""
        if self.device.type != 'cuda':
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _start(self, *_: Any) -> None:
        self._began = self.now()

    def _stop(self, *_: Any) -> None:
        self.seconds += self.now() - self._began


def network_of(system: System) -> BurstNetwork:
    """The system's network with random weights, as its training files have it."""
    parts = [load_options(str(OPTIONS / 'train' / 'tables' / f'{part}.yml'))['network_g'] for part in system.parts]
    if len(parts) == 2:
        return build_network({'type': 'DenoiseThenDemosaic', 'denoiser': parts[0], 'demosaicker': parts[1]})
    return build_network(parts[0])


def grid_of(case: str, multiple: int) -> TileGrid:
    """Tiles of the paper's test, with sides that are multiples of what the network needs."""
    height, width, tile, overlap, _ = CASES[case]
    step = max(4, multiple)
    tile += -tile % step
    overlap += -overlap % step
    return make_grid(height // 2, width // 2, tile=tile, overlap=overlap, multiple=step)


def _coarse_seconds(network: nn.Module, frames: Tensor, case: str, watch: _Stopwatch) -> float:
    """Matching and moving the tiles of a whole frame."""
    if getattr(network, 'coarse', None) is None:
        return 0.0
    *_, tile, overlap, radius = CASES[case]
    features = 'bicubic' if network.coarse.downsample is None else 'learned'
    stage = DPBM(features=features, radius=radius).eval().to(frames.device)
    grid = make_grid(*frames.shape[-2:], tile=tile, overlap=overlap, multiple=4)
    began = watch.now()
    padded = grid.pad(frames)
    positions = grid.positions(frames.device)[None]
    match = stage.match(padded, positions, grid.size)
    for first in range(0, len(grid), 16):  # a few at a time, as in the restoration
        part = slice(first, first + 16)
        stage.align(padded, positions[:, part], grid.size, _part_of(match, part))
    return watch.now() - began


def _part_of(match: Any, part: slice) -> Any:
    """The match of some tiles; hard matches need offset and whether they are soft alone."""
    return match._replace(offset=match.offset[:, part])


@torch.inference_mode()
def measure(system: System, case: str, *, tiles: Optional[int], device: torch.device) -> Cost:
    """Measure one system on one frame size.

    Args:
        system: row of the table.
        case: of :data:`CASES`.
        tiles: how many are timed; None for all.
        device: where.
    """
    torch.manual_seed(0)
    network = network_of(system).eval().to(device)
    height, width, *_ = CASES[case]
    frames = torch.rand(1, FRAMES, 8, height // 2, width // 2, device=device)
    grid = grid_of(case, network.multiple)
    watch = _Stopwatch(network)
    coarse = _coarse_seconds(network, frames, case, watch)
    sample = torch.rand(1, FRAMES, 8, *grid.size, device=device)
    count = len(grid) if tiles is None else min(tiles, len(grid))
    watch.seconds, began = 0.0, watch.now()
    with FlopCounterMode(display=False) as counter:
        peak = peak_bytes(lambda: network.restore(sample, FRAMES // 2), device)
    for _ in range(count - 1):
        network.restore(sample, FRAMES // 2)
    seconds = watch.now() - began
    scale = len(grid) / count
    return Cost(sum(p.numel() for p in network.parameters()), counter.get_total_flops() * len(grid), coarse,
                watch.seconds * scale, (seconds - watch.seconds) * scale, peak, len(grid), count)


def measure_all(systems: Sequence[System], cases: Sequence[str], *, tiles: Optional[int],
                device: torch.device) -> Iterator[tuple[str, System, Cost]]:
    """Measure one after the other."""
    pairs = [(case, system) for case in cases for system in systems]
    for case, system in tqdm(pairs, desc='Table 3', unit='row'):
        yield case, system, measure(system, case, tiles=tiles, device=device)


def table3(costs: Sequence[tuple[str, System, Cost]]) -> str:
    """The table as text."""
    rows = []
    for case, system, cost in costs:
        printed = paper.TABLE3.get(system.key)
        how = 'all tiles' if cost.timed == cost.tiles else f'extrapolated from {cost.timed} of {cost.tiles} tiles'
        rows.append([
            case, system.heading, f'{cost.parameters / 1e6:.2f} M', f'{cost.flop / 1e9:,.0f}', f'{cost.seconds:,.1f}',
            f'{cost.coarse:,.1f}', f'{cost.refined:,.1f}', f'{cost.rest:,.1f}', how,
            'unknown' if cost.peak is None else f'{cost.peak / 1e6:,.0f} MB',
            f'{printed[0]:.2f} M, {printed[1]:.1f} s' if printed and case == 'uhd' else ''])
    return markdown(['frame', 'system', 'parameters', 'GFLOP', 'seconds', 'coarse alignment', 'refined alignment', 'the rest',
                     'measured', 'peak memory of a tile', 'paper (2080 Ti)'], rows)


def machine(device: torch.device) -> str:
    """What the figures belong to."""
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else platform.machine()
    info = Path('/proc/cpuinfo')
    if device.type == 'cpu' and info.exists():
        names = [line.partition(':')[2].strip() for line in info.read_text().splitlines() if line.startswith('model name')]
        name = names[0] if names else name
    return f'{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {FRAMES} frames, float32, '\
           f'{"wall-clock" if device.type == "cuda" else "CPU"} seconds'

