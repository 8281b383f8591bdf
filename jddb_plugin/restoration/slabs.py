"""Rows of a burst's padded frames, and the features of them, as the network would see the whole frames."""
from __future__ import annotations

from typing import Callable, Optional

import torch
from torch import Tensor

from jddb_plugin.archs.dpbm_arch import REACH, SCALE
from jddb_plugin.archs.jddb_arch import TwoStageJDDB
from jddb_plugin.ops.tiling import TileGrid
from jddb_plugin.restoration.frames import Frames

#: Rows of packed raw that are made light of at once.
LIGHT_ROWS = 64


class Slabs:
    """The frames, padded as a grid of tiles asks for.

    Args:
        net: in evaluation mode, on its device.
        frames: the burst.
        grid: tells the padding.

    Attributes:
        height, width: of the padded frames.
        count: of the frames.
    """

    def __init__(self, net: TwoStageJDDB, frames: Frames, grid: TileGrid) -> None:
        self.net, self.frames, self.grid = net, frames, grid
        self.device = next(net.parameters()).device
        left, right, top, bottom = grid.padding
        self.height, self.width = top + grid.frame[0] + bottom, left + grid.frame[1] + right
        self.count = len(frames.mosaics)
        self.has_zeros = grid.padding_mode == 'constant'
        self._statistics: Optional[tuple[Tensor, Tensor]] = None

    def read(self, first: int, last: int) -> Tensor:
        """Rows of the padded frames, [1, N, 4, rows, W]; padding of zeros is NaN, as its noise map is zero too."""
        left, _, above, _ = self.grid.padding
        height, width = self.grid.frame
        begin, end = (min(max(row - above, 0), height) for row in (first, last))
        slab = torch.full((self.count, 4, last - first, self.width), torch.nan, device=self.device)
        inside = slab[:, :, begin + above - first:, left:left + width]
        for index in range(self.count):
            for row in range(begin, end, LIGHT_ROWS):
                light = self.frames.light(index, row, min(row + LIGHT_ROWS, end))
                inside[index, :, row - begin:row - begin + light.shape[1]] = light
        if not self.has_zeros:  # repeat the last column and row of the frame
            slab[..., width:] = slab[..., width - 1:width]
            slab[:, :, end - first:] = slab[:, :, end - first - 1:end - first]
        return slab[None]

    def read_with_features(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """(:meth:`read`, features [1, N, F, rows / 4, W / 4] as of the whole frames)."""
        around, inner = self._around(first, last)
        slab = self.read(*around)
        features = self._normalised(slab, whole=around == (0, self.height))[:, :, :, inner]
        return slab[:, :, :, first - around[0]:last - around[0]], features

    def _around(self, first: int, last: int) -> tuple[tuple[int, int], slice]:
        """Rows that the features of rows ``first`` to ``last - 1`` depend on, and where those features lie among theirs."""
        around = max(first - REACH, 0), min(last + REACH, self.height)
        return around, slice((first - around[0]) // SCALE, (last - around[0]) // SCALE)

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
            features = self._of_each_frame(self.net.coarse.convolve, self.read(*around))[:, :, :, inner].double()
            total = total + features.sum(dim=(-2, -1))
            squares = squares + features.square().sum(dim=(-2, -1))
            count += features.shape[-2] * features.shape[-1]
        mean = total / count
        return mean.float(), (squares / count - mean.square()).float()
