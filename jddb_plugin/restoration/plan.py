"""How much is done at once, so that a restoration stays within the memory it was given."""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import torch

from jddb_plugin.archs.dpbm_arch import REACH, SCALE
from jddb_plugin.archs.jddb_arch import UPSCALE, TwoStageJDDB
from jddb_plugin.checks import OptionError
from jddb_plugin.ops.patch_distance import CHUNK_BYTES
from jddb_plugin.ops.tiling import TileGrid
from jddb_plugin.restoration.motion import lattice_of
from jddb_plugin.restoration.slabs import LIGHT_ROWS
from jddb_plugin.restoration.stream import grid_of

#: Bytes kept free for what libraries allocate now and then: code of kernels, packed weights, buffers of encoders.
_SLACK = 128 << 20
#: Shares of what is free that mosaics and the picture may take before they are laid into temporary files.
_MOSAICS, _PICTURE = 0.35, 0.2
#: Tiles at once; more gain nothing on a CPU.
_MOST_TILES = {'cpu': 4, 'cuda': 16}


def _number(path: str, pattern: str) -> Optional[int]:
    try:
        match = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) if match else None


def resident_memory() -> int:
    """Bytes that this process holds now; where the system does not tell, what Python and its libraries usually hold."""
    kilobytes = _number('/proc/self/status', r'^VmRSS:\s+(\d+)')
    return 900 << 20 if kilobytes is None else kilobytes << 10


def peak_memory() -> Optional[int]:
    """Bytes that this process held at most; None where the system does not tell."""
    kilobytes = _number('/proc/self/status', r'^VmHWM:\s+(\d+)')
    return None if kilobytes is None else kilobytes << 10


def available_memory() -> int:
    """Bytes that this process can still take: of the machine, or of its control group if that has less."""
    kilobytes = _number('/proc/meminfo', r'^MemAvailable:\s+(\d+)')
    free = 4 << 30 if kilobytes is None else kilobytes << 10
    limit, used = (_number(f'/sys/fs/cgroup/memory.{name}', r'^(\d+)$') for name in ('max', 'current'))
    return free if limit is None or used is None else min(free, max(limit - used, 0))


def default_memory() -> int:
    """Bytes for the process where nothing is said: what it holds, and half of what is available."""
    return resident_memory() + available_memory() // 2


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


@dataclass(frozen=True)
class Plan:
    """How a frame is walked.

    Attributes:
        band: rows of tiles, or of windows of the field of motion, that are matched at once.
        tile_batch: tiles that are restored at once.
        bytes: what the walk takes at most, by estimate; mosaics and picture not included.
    """

    band: int
    tile_batch: int
    bytes: int


def make_plan(net: TwoStageJDDB, size: tuple[int, int], frames: int, device: torch.device, where: str, *, free: int,
              smooth: bool) -> Plan:
    """Do as much at once as ``free`` bytes allow.

    Args:
        net: the network.
        size: (height, width) of the packed raw.
        frames: of the burst.
        device: where it runs; on another device than the CPU the bytes are that device's.
        where: the burst, for messages.
        free: bytes for the walk.
        smooth: aligned by a field of motion.

    Raises:
        OptionError: not even one tile fits.
    """
    grid = grid_of(net, size)
    smooth = smooth and net.coarse is not None
    matched = lattice_of(net, size) if smooth else grid
    rows = len(matched.rows)
    reach = (0 if net.coarse is None else net.coarse.reach(frames)) + REACH
    height, width = (grid.frame[k] + sum(grid.padding[2 - 2 * k:4 - 2 * k]) for k in (0, 1))
    canvas = 3 * 3 * grid.size[0] * width * UPSCALE ** 2 * 4
    most = max(1, min(_MOST_TILES.get(device.type, 4), len(grid.cols)))

    def needed(band: int, tile_batch: int) -> int:
        walked = max(matched.rows[k + band - 1] - matched.rows[k] for k in range(rows - band + 1)) + matched.size[0]
        lines = min(walked + 2 * reach, height)
        search = band * len(matched.cols) * _search_bytes(net, frames, matched)
        chunks = 3 * CHUNK_BYTES.get(device.type, CHUNK_BYTES['cpu'])
        matching = _slab_bytes(net, frames, lines * width) + search + chunks
        tiles = tile_batch * _tile_bytes(net, frames, grid.size, device) + canvas
        if not smooth:
            return matching + tiles
        rows_read = min(LIGHT_ROWS + 2 * reach, height)
        moved = (2 * 16 * frames * grid.size[0] + 48 * rows_read + 300 * LIGHT_ROWS) * width  # of two rows of tiles
        return max(matching, moved + tiles)  # the field is there before the first tile is restored

    tile_batch = next((count for count in range(most, 0, -1) if needed(1, count) <= free), 0)
    if not tile_batch:
        mega = 1 << 20
        raise OptionError(
            f'{where}: not enough memory for a single tile: {frames} frames of {size[1] * 2} x {size[0] * 2} in tiles of '
            f'{grid.size[1]} x {grid.size[0]} take about {needed(1, 1) // mega + 1} MB, and --memory leaves '
            f'{max(free, 0) // mega} MB for them; give at least {(needed(1, 1) - free) // mega + 1} MB more, a smaller --tile '
            'or --radius, or fewer --frames.')
    band = next(count for count in range(rows, 0, -1) if needed(count, tile_batch) <= free)
    return Plan(band, tile_batch, needed(band, tile_batch))


def _slab_bytes(net: TwoStageJDDB, frames: int, pixels: int) -> int:
    """Of ``pixels`` packed pixels: light of all frames, their features and a copy of those, and the layers of one frame."""
    light = 4 * 4 * frames * pixels
    if net.coarse is None:
        return light
    features = 4 * net.coarse.num_feat * pixels // 16
    return light + 2 * frames * features + 3 * 4 * features


def _search_bytes(net: TwoStageJDDB, frames: int, grid: TileGrid) -> int:
    """Of one tile: distances to all candidates, kept for each frame, and what is done with those of two frames at once."""
    if net.coarse is None:
        return 0
    axes = (net.coarse.window.coarse, net.coarse.window.fine)
    candidates = sum(((last - first) // step + 1) ** 2 for first, last, step in axes)
    features = 4 * net.coarse.num_feat * grid.size[0] * grid.size[1] // SCALE ** 2  # cut out, for two frames
    return candidates * (10 * frames + 60) + 3 * features


def _tile_bytes(net: TwoStageJDDB, frames: int, size: tuple[int, int], device: torch.device) -> int:
    """Of one tile in the refined stage, with a margin of about a quarter over what was measured."""
    channels = net.refine.fuse.join.out_channels
    per_frame = 6 if device.type == 'cpu' else 15  # a CPU takes frames one after another
    return 4 * size[0] * size[1] * (channels * (24 + per_frame * frames) + 1000)
