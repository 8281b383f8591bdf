"""Restore a frame of any size by bands of tiles: what is held at once does not grow with its height.

The result is that of ``net(lq)`` on the whole frame. Rows of tiles are walked from top to bottom. For each band of them, the
packed rows that its searches can touch are read, their features computed and matched; then tile after tile is aligned, restored
and blended, and rows that no later tile touches are handed out.
"""
from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Callable, Optional

import torch
from torch import Tensor

from jddb_plugin.archs.dpbm_arch import REACH, SCALE
from jddb_plugin.archs.jddb_arch import UPSCALE, TwoStageJDDB
from jddb_plugin.ops.block_matching import take_tiles
from jddb_plugin.ops.tiling import TileGrid, make_grid
from jddb_plugin.restoration.frames import Frames

#: Rows of packed raw that are made light of at once.
_LIGHT_ROWS = 64


def grid_of(net: TwoStageJDDB, size: tuple[int, int]) -> TileGrid:
    """Tiles that ``net`` walks over packed raw of a size."""
    return make_grid(*size, tile=net.tile, overlap=net.overlap, multiple=SCALE, layout=net.layout)


class TileStream:
    """The restored rows of one burst.

    Args:
        net: in evaluation mode, on its device, for the frames' reference (``ref_idx``).
        frames: the burst.
        band: rows of tiles that are matched at once.
        tile_batch: tiles that are restored at once.
        bf16: convolutions of the refined stage in bfloat16.
        on_tiles: called with the number of tiles after each batch.

    Attributes:
        offsets: [T, N, 2], int64, where each tile was found, in pixels of the packed raw; complete after the walk.
        seconds: spent in matching (with its features) and in the refined stage (with cutting and blending).
    """

    def __init__(self, net: TwoStageJDDB, frames: Frames, *, band: int, tile_batch: int, bf16: bool = False,
                 on_tiles: Callable[[int], object] = lambda count: None) -> None:
        self.net, self.frames = net, frames
        self.grid = grid_of(net, frames.packed_size)
        self.band, self.tile_batch, self.bf16, self.on_tiles = band, tile_batch, bf16, on_tiles
        self.device = next(net.parameters()).device
        left, right, top, bottom = self.grid.padding
        self.height, self.width = top + frames.packed_size[0] + bottom, left + frames.packed_size[1] + right
        self.count = len(frames.mosaics)
        self.has_zeros = self.grid.padding_mode == 'constant'
        self.offsets = torch.zeros(len(self.grid), self.count, 2, dtype=torch.int64)
        self.seconds = {'matching': 0.0, 'refined stage': 0.0}
        self._statistics: Optional[tuple[Tensor, Tensor]] = None

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Finished rows from top to bottom: (first row, linear camera RGB [3, rows, W] on the device)."""
        with torch.inference_mode():
            yield from self._rows()

    def _rows(self) -> Iterator[tuple[int, Tensor]]:
        grid, rows = self.grid, self.grid.rows
        columns = len(grid.cols)
        canvas = None
        for first in range(0, len(rows), self.band):
            band = range(first, min(first + self.band, len(rows)))
            top, slab, offsets = self._match(band)
            self.offsets[band[0] * columns:(band[-1] + 1) * columns] = offsets[0].cpu()
            positions = self._positions(band, top)
            for row in band:
                start = self._now()
                if canvas is None:
                    canvas = torch.zeros(3, grid.size[0] * UPSCALE, self.width * UPSCALE, device=self.device)
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

    def _match(self, band: range) -> tuple[int, Tensor, Tensor]:
        """(its first row, packed raw [1, N, 4, rows, W], offsets [1, T, N, 2]) of what a band of tiles needs.

        Padding of zeros is NaN in it, as its noise map is zero too.
        """
        start = self._now()
        grid, coarse = self.grid, self.net.coarse
        first, last = grid.rows[band[0]], grid.rows[band[-1]] + grid.size[0]
        if coarse is None:
            zero = torch.zeros(1, len(band) * len(grid.cols), self.count, 2, dtype=torch.int64, device=self.device)
            return first, self._slab(first, last), zero
        reach = coarse.reach(self.count)
        first, last = max(first - reach, 0), min(last + reach, self.height)
        around, inner = self._around(first, last)
        slab = self._slab(*around)
        features = self._normalised(slab, whole=around == (0, self.height))
        offsets = coarse.match_features(features[:, :, :, inner], self._positions(band, first), grid.size).offset * SCALE
        self.seconds['matching'] += self._now() - start
        return first, slab[:, :, :, first - around[0]:last - around[0]], offsets

    def _positions(self, band: range, top: int) -> Tensor:
        """Corners [1, T, 2] of a band's tiles, counted from row ``top`` of the padded frame."""
        columns = len(self.grid.cols)
        positions = self.grid.positions(self.device)[None, band[0] * columns:(band[-1] + 1) * columns].clone()
        positions[..., 0] -= top
        return positions

    def _around(self, first: int, last: int) -> tuple[tuple[int, int], slice]:
        """Rows that the features of rows ``first`` to ``last - 1`` depend on, and where those features lie among theirs."""
        around = max(first - REACH, 0), min(last + REACH, self.height)
        return around, slice((first - around[0]) // SCALE, (last - around[0]) // SCALE)

    def _slab(self, first: int, last: int) -> Tensor:
        """Rows of the padded frames, [1, N, 4, rows, W]; padding of zeros is NaN."""
        left, _, above, _ = self.grid.padding
        height, width = self.grid.frame
        begin, end = (min(max(row - above, 0), height) for row in (first, last))
        slab = torch.full((self.count, 4, last - first, self.width), torch.nan, device=self.device)
        inside = slab[:, :, begin + above - first:, left:left + width]
        for index in range(self.count):
            for row in range(begin, end, _LIGHT_ROWS):
                light = self.frames.light(index, row, min(row + _LIGHT_ROWS, end))
                inside[index, :, row - begin:row - begin + light.shape[1]] = light
        if not self.has_zeros:  # repeat the last column and row of the frame
            slab[..., width:] = slab[..., width - 1:width]
            slab[:, :, end - first:] = slab[:, :, end - first - 1:end - first]
        return slab[None]

    def _normalised(self, slab: Tensor, *, whole: bool) -> Tensor:
        """Features of a slab, normalised by the statistics of the whole frames."""
        coarse = self.net.coarse
        if whole or coarse.downsample is None:
            return self._of_each_frame(coarse.extract, slab)
        if self._statistics is None:
            self._statistics = self._frame_statistics()
        mean, variance = self._statistics
        parts = (slice(index, index + 1) for index in range(self.count))
        return torch.cat([coarse.normalise(self._of_each_frame(coarse.convolve, slab[:, part]), mean[:, part], variance[:, part])
                          for part in parts], dim=1)

    def _of_each_frame(self, compute: Callable[[Tensor], Tensor], slab: Tensor) -> Tensor:
        """Features [1, N, F, h, w]; of one frame at a time, so that padding is set to zero in a copy of that alone."""
        frames = (slab[:, index:index + 1] for index in range(slab.shape[1]))
        return torch.cat([compute(frame.nan_to_num(nan=0.0) if self.has_zeros else frame) for frame in frames], dim=1)

    def _frame_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and variance [1, N, F] of the features of whole frames, which are never held."""
        step = self.grid.size[0]
        total, squares, count = 0, 0, 0
        for first in range(0, self.height, step):
            around, inner = self._around(first, min(first + step, self.height))
            features = self._of_each_frame(self.net.coarse.convolve, self._slab(*around))[:, :, :, inner].double()
            total = total + features.sum(dim=(-2, -1))
            squares = squares + features.square().sum(dim=(-2, -1))
            count += features.shape[-2] * features.shape[-1]
        mean = total / count
        return mean.float(), (squares / count - mean.square()).float()

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
