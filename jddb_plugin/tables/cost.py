"""Parameters, arithmetic, seconds and memory of a restoration by any burst network: table 3 for this machine.

A burst goes through the tiled inference of ``jddb restore``. Its alignment is always done for the whole frame. Where restoring
all tiles would take too long, only some batches of them are restored, evenly spread, and their seconds multiplied: the table says
so.
"""
from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Iterator, Optional, Sequence

import torch
from basicsr.archs import build_network
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.config import load_options
from jddb_plugin.inference.align import Band
from jddb_plugin.inference.engine import MEMORY, TiledInference, make_alignment
from jddb_plugin.inference.memory import Plan, make_plan, peak_bytes
from jddb_plugin.inference.source import TensorSource
from jddb_plugin.inference.tiling import TilingOptions
from jddb_plugin.ops.block_matching import SearchWindow
from jddb_plugin.runtime.machine import machine
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
    """What the restoration of one frame costs.

    Attributes:
        parameters: of the whole network.
        flop: of convolutions and matrix products on all tiles, 2 per multiply-add.
        coarse: seconds of the alignment of the frames; on a CPU all seconds are CPU time.
        refined: seconds of alignment within the network, all tiles.
        rest: seconds of everything else, all tiles.
        peak: bytes that the restoration takes beyond the network and the burst; None where the system does not say.
        tiles, timed: number of tiles of the frame, and of those that were restored.
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

    @property
    def extent(self) -> str:
        """How much of the frame the seconds of the tiles were measured on."""
        return 'all tiles' if self.timed == self.tiles else f'extrapolated from {self.timed} of {self.tiles} tiles'


def now(device: torch.device) -> float:
    """Seconds; on a CPU those of its time that this process used, so that other jobs on the machine do not count."""
    if device.type != 'cuda':
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


class _Stopwatch:
    """Seconds within the aligning submodules of a network, by hooks."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.seconds = 0.0
        self._began = 0.0
        self._device = device
        aligning = [module for name, module in network.named_modules() if name.split('.')[-1] in _ALIGNING]
        self._hooks = [hook for module in aligning for hook in (
            module.register_forward_pre_hook(self._start), module.register_forward_hook(self._stop))]

    def remove(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def _start(self, *_: Any) -> None:
        self._began = now(self._device)

    def _stop(self, *_: Any) -> None:
        self.seconds += now(self._device) - self._began


class _PartialInference(TiledInference):
    """Restores only some batches of tiles, evenly spread; the others stay black."""

    def __init__(self, *args: Any, tiles: Optional[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        batches = len(self.grid.rows) * -(-len(self.grid.cols) // self.plan.tile_batch)
        count = batches if tiles is None else min(batches, -(-tiles // self.plan.tile_batch))
        self.chosen = {int((k + 0.5) * batches / count) for k in range(count)}
        self.batch = self.restored = self.flop = 0
        self.restoring = 0.0

    def now(self) -> float:
        """CPU time on a CPU."""
        return now(self.device)

    def restore(self, band: Band, chosen: slice) -> Tensor:
        """Some tiles of a row, counted."""
        self.batch += 1
        if self.batch - 1 not in self.chosen:
            sides = [self.net.upscale * side for side in self.grid.size]
            return torch.zeros(chosen.stop - chosen.start, 3, *sides, device=self.device)
        start = self.now()
        with FlopCounterMode(display=False) as counter:
            result = super().restore(band, chosen)
        self.restoring += self.now() - start
        self.restored += len(result)
        self.flop += counter.get_total_flops()
        return result


def _load_counter() -> None:
    """Count an operation once: the first one that torch counts imports hundreds of modules, a second that no tile may take."""
    with FlopCounterMode(display=False):
        torch.ones(1, 1) @ torch.ones(1, 1)


def measure(network: BurstNetwork, lq: Tensor, *, align: Optional[str] = None, tiling: Optional[TilingOptions] = None,
            window: Optional[SearchWindow] = None, tiles: Optional[int] = None, tile_batch: Optional[int] = None,
            bf16: bool = False) -> Cost:
    """Restore a burst and measure what that costs.

    Args:
        network: in evaluation mode, on its device.
        lq: the burst [N, 8, H, W], on that device.
        align, tiling, window: see :func:`jddb_plugin.inference.engine.make_alignment`.
        tiles: how many are restored at least; None for all.
        tile_batch: tiles that are restored at once; by default what the plan says.
        bf16: convolutions in bfloat16.
    """
    tiling = tiling or TilingOptions()
    alignment = make_alignment(network, TensorSource(lq), align, tiling, window)
    plan: Plan = make_plan(network, alignment, tiling, free=MEMORY)
    if tile_batch is not None:
        plan = replace(plan, tile_batch=tile_batch)
    _load_counter()
    inference = _PartialInference(network, alignment, plan, tiles=tiles, bf16=bf16)
    watch = _Stopwatch(network, inference.device)

    def run() -> None:
        for _ in inference:
            pass

    try:
        peak = peak_bytes(run, inference.device)
    finally:
        watch.remove()
    scale = len(plan.grid) / inference.restored
    blending = inference.seconds['restoration'] - inference.restoring  # that of all tiles
    rest = (inference.restoring - watch.seconds) * scale + blending
    return Cost(sum(p.numel() for p in network.parameters()), inference.flop * scale, inference.seconds['alignment'],
                watch.seconds * scale, rest, peak, len(plan.grid), inference.restored)


def network_of(system: System) -> BurstNetwork:
    """The system's network with random weights, as its training files have it."""
    parts = [load_options(str(OPTIONS / 'train' / 'tables' / f'{part}.yml'))['network_g'] for part in system.parts]
    if len(parts) == 2:
        return build_network({'type': 'DenoiseThenDemosaic', 'denoiser': parts[0], 'demosaicker': parts[1]})
    return build_network(parts[0])


def tiling_of(case: str, multiple: int) -> TilingOptions:
    """Tiles of the paper's test, enlarged to multiples of what the network needs."""
    *_, tile, overlap, _ = CASES[case]
    step = max(4, multiple)
    return TilingOptions(tile=tile + -tile % step, overlap=overlap + -overlap % step)


def measure_system(system: System, case: str, *, tiles: Optional[int], device: torch.device) -> Cost:
    """Measure a row of table 3 as the paper tests it: block matching of whole tiles where the network has it, one tile at a time.

    Args:
        system: row of the table.
        case: of :data:`CASES`.
        tiles: how many are restored; None for all.
        device: where.
    """
    torch.manual_seed(0)
    network = network_of(system).eval().to(device)
    height, width, _, _, radius = CASES[case]
    lq = torch.rand(FRAMES, 8, height // 2, width // 2, device=device)
    align = 'none' if network.coarse is None else 'tiles'
    return measure(network, lq, align=align, tiling=tiling_of(case, network.multiple), window=SearchWindow(radius), tiles=tiles,
                   tile_batch=1)


def measure_all(systems: Sequence[System], cases: Sequence[str], *, tiles: Optional[int],
                device: torch.device) -> Iterator[tuple[str, System, Cost]]:
    """Measure one after the other."""
    pairs = [(case, system) for case in cases for system in systems]
    for case, system in tqdm(pairs, desc='Table 3', unit='row'):
        yield case, system, measure_system(system, case, tiles=tiles, device=device)


#: Headings of :func:`cells`.
HEADINGS = ('parameters', 'GFLOP', 'seconds', 'coarse alignment', 'refined alignment', 'the rest', 'measured', 'peak memory')


def cells(cost: Cost) -> list[str]:
    """A cost as cells of a table."""
    return [f'{cost.parameters / 1e6:.2f} M', f'{cost.flop / 1e9:,.0f}', f'{cost.seconds:,.1f}', f'{cost.coarse:,.1f}',
            f'{cost.refined:,.1f}', f'{cost.rest:,.1f}', cost.extent,
            'unknown' if cost.peak is None else f'{cost.peak / 1e6:,.0f} MB']


def table3(costs: Sequence[tuple[str, System, Cost]]) -> str:
    """The table as text."""
    rows = []
    for case, system, cost in costs:
        printed = paper.TABLE3.get(system.key)
        rows.append([case, system.heading, *cells(cost),
                     f'{printed[0]:.2f} M, {printed[1]:.1f} s' if printed and case == 'uhd' else ''])
    return markdown(['frame', 'system', *HEADINGS, 'paper (2080 Ti)'], rows)


def paper_split() -> str:
    """What the paper says of its network's seconds."""
    coarse, rest = paper.TABLE3_SPLIT
    return (f"The paper's {paper.TABLE3['two_stage'][1]:g} s of the two-stage network are {coarse:g} s of coarse alignment and "
            f'{rest:g} s of refined alignment with the fusion.')


def measured_on(device: torch.device) -> str:
    """What the figures belong to."""
    about = machine(device)
    return (f"{about['name']}, {about['threads']} threads, torch {about['torch']}, {FRAMES} frames, "
            f"{'wall-clock' if device.type == 'cuda' else 'CPU'} seconds")
