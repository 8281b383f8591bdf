"""Restore a frame of any size by bands of tiles: what is held at once does not grow with its height.

Rows of tiles are walked from top to bottom. For each band of them the aligned packed raw is made, tile after tile is restored
and blended, and rows that no later tile touches are handed out. Aligned are either tiles, as the network does it: the result
is then that of ``net(lq)`` on the whole frame; or all pixels, by a field of motion (:mod:`jddb_plugin.restoration.motion`).
"""
from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Callable, Optional

import torch
from torch import Tensor

from jddb_plugin.archs.dpbm_arch import SCALE
from jddb_plugin.archs.jddb_arch import UPSCALE, TwoStageJDDB
from jddb_plugin.ops.block_matching import take_tiles
from jddb_plugin.ops.motion_field import MotionField
from jddb_plugin.ops.tiling import TileGrid, make_grid
from jddb_plugin.restoration.frames import Frames
from jddb_plugin.restoration.motion import bands_of, find_motion, lattice_of, matched_rows, moved_rows
from jddb_plugin.restoration.slabs import Slabs


def grid_of(net: TwoStageJDDB, size: tuple[int, int]) -> TileGrid:
    """Tiles that ``net`` walks over packed raw of a size."""
    return make_grid(*size, tile=net.tile, overlap=net.overlap, multiple=SCALE, layout=net.layout)


class TileStream:
    """The restored rows of one burst.

    Args:
        net: in evaluation mode, on its device, for the frames' reference (``ref_idx``).
        frames: the burst.
        band: rows of tiles, or of the field's windows, that are matched at once.
        tile_batch: tiles that are restored at once.
        smooth: align by a field of motion. A network without coarse alignment aligns nothing either way.
        grid: the tiles; :func:`grid_of` by default.
        bf16: convolutions of the refined stage in bfloat16.
        on_tiles: called with the number of tiles after each batch.

    Attributes:
        matched: the windows that were matched: the tiles, or the lattice of the field.
        offsets: [T, N, 2], where each of them was found, in pixels of the packed raw; complete after the walk.
        seconds: spent in matching (with its features, and moving pixels) and in the refined stage (with cutting and blending).

    Raises:
        ValueError: a field of motion over padding of zeros, which is not to be moved.
    """

    def __init__(self, net: TwoStageJDDB, frames: Frames, *, band: int, tile_batch: int, smooth: bool = False,
                 grid: Optional[TileGrid] = None, bf16: bool = False,
                 on_tiles: Callable[[int], object] = lambda count: None) -> None:
        self.net, self.frames = net, frames
        self.grid = grid_of(net, frames.packed_size) if grid is None else grid
        self.slabs = Slabs(net, frames, self.grid)
        self.smooth = smooth and net.coarse is not None
        if self.smooth and self.slabs.has_zeros:
            raise ValueError('a field of motion needs tiles inside the frame.')
        self.matched = lattice_of(net, frames.packed_size) if self.smooth else self.grid
        self.band, self.tile_batch, self.bf16, self.on_tiles = band, tile_batch, bf16, on_tiles
        self.device = self.slabs.device
        self.offsets = torch.zeros(len(self.matched), self.slabs.count, 2)
        self.seconds = {'matching': 0.0, 'refined stage': 0.0}

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Finished rows from top to bottom: (first row, linear camera RGB [3, rows, W] on the device)."""
        with torch.inference_mode():
            yield from self._rows()

    def _rows(self) -> Iterator[tuple[int, Tensor]]:
        grid, rows = self.grid, self.grid.rows
        columns = len(grid.cols)
        canvas = None
        for band, slab, positions, offsets in self._aligned():
            for row in band:
                start = self._now()
                if canvas is None:
                    canvas = torch.zeros(3, grid.size[0] * UPSCALE, self.slabs.width * UPSCALE, device=self.device)
                for column in range(0, columns, self.tile_batch):
                    chosen = slice((row - band[0]) * columns + column,
                                   (row - band[0]) * columns + min(column + self.tile_batch, columns))
                    restored = self._restore(slab, positions[:, chosen], offsets[:, chosen])
                    grid.add(canvas[None], restored[None], row * columns + column, UPSCALE, top=rows[row])
                    self.on_tiles(len(restored))
                finished = (rows[row + 1] if row + 1 < len(rows) else rows[row] + grid.size[0]) - rows[row]
                result = self._inside(canvas, rows[row], finished)
                rest = canvas[:, finished * UPSCALE:]
                canvas = torch.zeros_like(canvas)
                canvas[:, :rest.shape[1]] = rest
                self.seconds['refined stage'] += self._now() - start
                if result is not None:
                    yield result

    def _inside(self, canvas: Tensor, top: int, rows: int) -> Optional[tuple[int, Tensor]]:
        """The part of the canvas's first rows that lies in the frame; ``top`` is the row of the padded frame it begins at."""
        left, _, above, _ = self.grid.padding
        first, last = max(top, above), min(top + rows, above + self.grid.frame[0])
        if first >= last:
            return None
        columns = slice(left * UPSCALE, (left + self.grid.frame[1]) * UPSCALE)
        return (first - above) * UPSCALE, canvas[:, (first - top) * UPSCALE:(last - top) * UPSCALE, columns]

    def _aligned(self) -> Iterator[tuple[range, Tensor, Tensor, Tensor]]:
        """Bands of tiles: (their rows, slab [1, N, 4, rows, W], corners in it [1, T, 2], offsets from there [1, T, N, 2])."""
        columns = len(self.grid.cols)
        field = self._field() if self.smooth else None
        for band in bands_of(len(self.grid.rows), 1 if self.smooth else self.band):
            start = self._now()
            tiles = slice(band[0] * columns, (band[-1] + 1) * columns)
            if field is None:
                _, slab, positions, offsets = matched_rows(self.slabs, self.grid, band)
                self.offsets[tiles] = offsets[0].float().cpu()
            else:
                first = self.grid.rows[band[0]]
                slab = moved_rows(self.slabs, field, first, first + self.grid.size[0])
                positions = self.grid.positions(self.device)[None, tiles] - torch.tensor([first, 0], device=self.device)
                offsets = positions.new_zeros(1, columns, self.slabs.count, 2)
            if self.net.coarse is not None:
                self.seconds['matching'] += self._now() - start
            yield band, slab, positions, offsets

    def _field(self) -> MotionField:
        start = self._now()
        field = find_motion(self.slabs, self.matched, self.band)
        self.offsets[:] = field.offsets.flatten(1, 2).transpose(0, 1).cpu()
        self.seconds['matching'] += self._now() - start
        return field

    def _restore(self, slab: Tensor, positions: Tensor, offsets: Tensor) -> Tensor:
        """Tiles [t, 3, 2h, 2w] of linear camera RGB."""
        light = take_tiles(slab, positions, offsets, self.grid.size)[0]
        lq = torch.cat((light, self.frames.noise_map(light)), dim=2).nan_to_num(nan=0.0)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self.net.refine(lq, self.frames.ref_idx).restored.float()

    def _now(self) -> float:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
