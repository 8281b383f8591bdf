"""Memory: what the process holds and may take, what a network takes for a tile, and how much is therefore done at once."""
from __future__ import annotations

import contextlib
import ctypes
import gc
import inspect
import re
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.checks import OptionError
from jddb_plugin.inference.align import Alignment
from jddb_plugin.inference.source import RowSource
from jddb_plugin.inference.tiling import TilingOptions, cover_grid
from jddb_plugin.ops.tiling import TileGrid

#: Bytes kept free for what libraries allocate now and then: code of kernels, packed weights, buffers of encoders.
_SLACK = 128 << 20
#: Shares of what is free that mosaics and the picture may take before they are laid into temporary files.
_MOSAICS, _PICTURE = 0.35, 0.2
#: Tiles of a given size that are restored at once; more gain nothing on a CPU.
_MOST_TILES = {'cpu': 4, 'cuda': 16}
#: Pixels of tiles whose size is not given; larger ones gain next to nothing.
_MOST_PIXELS = {'cpu': 1 << 18, 'cuda': 1 << 20}
#: Control groups of version 2 and 1: folder, files of the limit and of what is used, and the part of it that can be dropped.
_CONTROL_GROUPS = (('/sys/fs/cgroup', ('max', 'current'), 'inactive_file'),
                   ('/sys/fs/cgroup/memory', ('limit_in_bytes', 'usage_in_bytes'), 'total_inactive_file'))
#: Side of the tile by which the memory of a network is measured, and the margin for what libraries allocate for themselves.
_MEASURED_SIDE, _MARGIN = 48, 1.35


def _number(path: str, pattern: str) -> Optional[int]:
    try:
        match = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) if match else None


def resident_memory() -> int:
    """Bytes that this process holds now; where the system does not say, what Python and its libraries usually hold."""
    kilobytes = _number('/proc/self/status', r'^VmRSS:\s+(\d+)')
    return 900 << 20 if kilobytes is None else kilobytes << 10


def peak_memory() -> Optional[int]:
    """Bytes that this process held at most; None where the system does not say."""
    kilobytes = _number('/proc/self/status', r'^VmHWM:\s+(\d+)')
    return None if kilobytes is None else kilobytes << 10


def available_memory() -> int:
    """Bytes that this process can still take: of the machine, or of its control group if that has less."""
    kilobytes = _number('/proc/meminfo', r'^MemAvailable:\s+(\d+)')
    free = 4 << 30 if kilobytes is None else kilobytes << 10
    for folder, names, cache in _CONTROL_GROUPS:
        limit, used = (_number(f'{folder}/memory.{name}', r'^(\d+)$') for name in names)
        if limit is not None and used is not None:
            reclaimable = _number(f'{folder}/memory.stat', rf'^{cache} (\d+)$') or 0
            free = min(free, max(limit - used + reclaimable, 0))
    return free


def default_memory() -> int:
    """Default limit in bytes: what the process holds, and half of what is available."""
    return resident_memory() + available_memory() // 2


def release_memory() -> None:
    """Give back to the system what the allocator keeps of freed memory, where the C library can."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_bytes(function: Callable[[], Any], device: torch.device) -> Optional[int]:
    """Most memory that a call holds beyond what was held before it, its result included; None where the system does not say.

    On a CPU this is the process's resident memory, so that what other libraries allocate counts too.
    """
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not sys.platform.startswith('linux'):
        return None
    release_memory()  # what is free already must not hide what the call takes
    Path('/proc/self/clear_refs').write_text('5')  # resets the peak
    before = resident_memory()
    function()
    peak = peak_memory()
    return None if peak is None else peak - before


@dataclass(frozen=True)
class Budget:
    """Memory of a restoration, in bytes.

    Attributes:
        total: what the process may hold.
        held: what it held before the first burst.
    """

    total: int
    held: int

    @property
    def free(self) -> int:
        """What a burst may take."""
        return self.total - self.held - _SLACK

    @property
    def mosaics(self) -> int:
        """What the burst's mosaics may take."""
        return int(_MOSAICS * self.free)

    @property
    def picture(self) -> int:
        """What the restored picture may take."""
        return int(_PICTURE * self.free)


class _Allocations(TorchDispatchMode):
    """Counts the bytes of tensors that are alive at once."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[weakref.ref[Any], int] = {}  # older torch forgets storages at once, so it is there before they are
        for tensor in known:
            self._sizes[weakref.ref(tensor.untyped_storage(), self._forget)] = 0

    def _forget(self, reference: Any) -> None:
        self.now -= self._sizes.pop(reference)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                reference = weakref.ref(storage, self._forget)
                if reference not in self._sizes:
                    self._sizes[reference] = storage.nbytes()
                    self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        return result


# torch 2.14 wraps it, and loads its compiler, 150 MB, to tell it that there is nothing to compile.
_Allocations.__torch_dispatch__ = inspect.unwrap(_Allocations.__torch_dispatch__)  # type: ignore[method-assign]

_measured: weakref.WeakKeyDictionary[BurstNetwork, dict[tuple[int, str], float]] = weakref.WeakKeyDictionary()


def tile_bytes(net: BurstNetwork, count: int, device: torch.device) -> float:
    """Memory per pixel of the packed raw that ``net`` takes to restore a tile of ``count`` frames, measured on a small one."""
    known = _measured.setdefault(net, {})
    key = count, str(device)
    if key not in known:
        known[key] = _MARGIN * _measure(net, count, device)
    return known[key]


@torch.no_grad()
def _measure(net: BurstNetwork, count: int, device: torch.device) -> float:
    side = _MEASURED_SIDE + -_MEASURED_SIDE % net.multiple
    tiles = torch.full((1, count, 8, side, side), 0.1, device=device)
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        net.restore(tiles, count // 2)
        return (torch.cuda.max_memory_allocated(device) - held) / side ** 2 + tiles[..., 0, 0].nbytes
    with _Allocations([tiles, *net.parameters(), *net.buffers()]) as counted:
        type(net).restore(net, tiles, count // 2)  # not a compiled form of it
    return counted.peak / side ** 2 + tiles[..., 0, 0].nbytes


@dataclass(frozen=True)
class Plan:
    """How a frame is processed.

    Attributes:
        grid: the tiles.
        tile_batch: tiles that are restored at once.
        step: parts of the motion that are estimated at once, see :meth:`Alignment.estimate`.
        bytes: what that takes at most, by estimate; the burst and the picture not included.
    """

    grid: TileGrid
    tile_batch: int
    step: int
    bytes: int


def make_plan(net: BurstNetwork, alignment: Alignment, tiling: TilingOptions, *, free: int, host: Optional[int] = None,
              where: str = 'lq') -> Plan:
    """Do as much at once as ``free`` bytes allow.

    Args:
        net: the network.
        alignment: of the burst.
        tiling: what is asked for.
        free: bytes; on another device than the CPU, that device's.
        host: bytes of the CPU, for what an alignment estimates there wherever the network runs; ``free`` by default.
        where: the burst, for messages.

    Raises:
        OptionError: not even one tile fits.
    """
    source, device = alignment.source, alignment.device
    per_pixel = tile_bytes(net, source.count, device)

    def restoring(grid: TileGrid, tile_batch: int) -> int:
        height, width = grid.size
        canvas = 5 * 3 * 4 * net.upscale ** 2 * height * grid.padded[1]  # three of them, and what the allocator keeps
        held = alignment.held_bytes() if device.type == 'cpu' else 0
        return int(held + alignment.band_bytes(grid) + canvas + tile_batch * per_pixel * height * width)

    batches: Sequence[int]
    if alignment.by_pixels and tiling.tile is None:
        grids, batches = _covers(net, source.size, tiling, _MOST_PIXELS.get(device.type, 1 << 18)), [1]
    else:
        windows = None if alignment.by_pixels else alignment.windows
        grid = cover_grid(net, source.size, tiling, 0) if windows is None else windows
        most = max(1, min(_MOST_TILES.get(device.type, 4), len(grid.cols)))
        grids, batches = [grid], range(most, 0, -1)
    for_motion = host if alignment.on_host and host is not None else free
    estimating = alignment.estimation_bytes(1)
    if alignment.on_host and estimating > for_motion:
        raise _too_little(where, 'to estimate the motion', source, '', estimating, for_motion)
    choices = [(grid, batch) for grid in grids for batch in batches]
    fitting = next((choice for choice in choices if restoring(*choice) <= free), None)
    if fitting is None or estimating > for_motion:
        grid = grids[-1] if fitting is None else fitting[0]
        needed = max(0 if alignment.on_host else estimating, restoring(grid, 1))
        tiles = f' in tiles of {grid.size[1]} x {grid.size[0]}'
        smaller = 'a smaller --tile or --radius, ' if alignment.windows is not None else 'a smaller --tile, '
        raise _too_little(where, 'for a single tile', source, tiles, needed, free, smaller)
    grid, tile_batch = fitting
    steps = alignment.steps
    step = next(step for step in _descending(steps) if step == 1 or alignment.estimation_bytes(step) <= for_motion)
    return Plan(grid, tile_batch, step, max(alignment.estimation_bytes(step), restoring(grid, tile_batch)))


def _covers(net: BurstNetwork, size: tuple[int, int], tiling: TilingOptions, most: int) -> list[TileGrid]:
    """Covers by ever smaller tiles."""
    grids: list[TileGrid] = []
    pixels = most
    while True:
        grid = cover_grid(net, size, tiling, pixels)
        if not grids or grid.size != grids[-1].size:
            grids.append(grid)
        elif pixels < grid.size[0] * grid.size[1]:  # no smaller one
            return grids
        pixels = min(pixels, grid.size[0] * grid.size[1]) * 4 // 5


def _descending(steps: int) -> range:
    return range(steps, 0, -1)


def _too_little(where: str, what: str, source: RowSource, tiles: str, needed: int, free: int, smaller: str = '') -> OptionError:
    mega = 1 << 20
    height, width = source.size
    return OptionError(
        f'{where}: not enough memory {what}: {source.count} frames of {width * 2} x {height * 2}{tiles} take about '
        f'{needed // mega + 1} MB, and --memory leaves {max(free, 0) // mega} MB for them; give at least '
        f'{(needed - free) // mega + 1} MB more, {smaller}or fewer --frames.')
