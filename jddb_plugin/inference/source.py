"""Rows of a burst, wherever it lies, and of its padded frames."""
from __future__ import annotations

from typing import Optional, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from jddb_plugin.checks import ShapeError
from jddb_plugin.ops.stabilization import noise_levels
from jddb_plugin.ops.tiling import TileGrid

#: Rows of packed raw that are read at once.
STRIP_ROWS = 64


class RowSource(Protocol):
    """A burst of which a few rows are wanted at a time.

    Attributes:
        size: (height, width) of the packed raw.
        count: number of frames.
        ref_idx: index of the reference.
    """

    size: tuple[int, int]
    count: int
    ref_idx: int

    def read(self, index: int, first: int, last: int, planes: int = 8) -> Tensor:
        """Rows ``first`` to ``last - 1`` of one frame, [planes, rows, W]: 4 of packed raw, or with its noise map 8."""

    def noise_levels(self) -> tuple[Tensor, Tensor]:
        """Shot noise and squared read noise of the reference's planes, [4, 1, 1] each."""


class TensorSource:
    """A burst in memory.

    Args:
        lq: [N, 8, H, W], packed raw and its noise map.
        ref_idx: index of the reference; the middle frame by default.

    Raises:
        ShapeError: another shape, or no such frame.
    """

    def __init__(self, lq: Tensor, ref_idx: Optional[int] = None) -> None:
        if lq.ndim != 4 or lq.shape[1] != 8:
            raise ShapeError(f'lq: expected [N, 8, H, W] (4 raw planes, 4 noise map planes), got {list(lq.shape)}.')
        self.lq = lq
        self.count = lq.shape[0]
        self.size = (lq.shape[2], lq.shape[3])
        self.ref_idx = self.count // 2 if ref_idx is None else ref_idx
        if not 0 <= self.ref_idx < self.count:
            raise ShapeError(f'ref_idx is {ref_idx}, but the burst has {self.count} frames; expected 0 .. {self.count - 1}.')

    def read(self, index: int, first: int, last: int, planes: int = 8) -> Tensor:
        """See :class:`RowSource`."""
        return self.lq[index, :planes, first:last]

    def noise_levels(self) -> tuple[Tensor, Tensor]:
        """See :class:`RowSource`; a straight line through the values and their noise map."""
        reference = self.lq[self.ref_idx]
        return noise_levels(reference[:4], reference[4:])


def read_strips(source: RowSource, index: int, first: int, last: int, planes: int, device: torch.device) -> Tensor:
    """As :meth:`RowSource.read`, but in strips, so that what a source computes on its way is small."""
    result = torch.empty(planes, last - first, source.size[1], device=device)
    for row in range(first, last, STRIP_ROWS):
        result[:, row - first:min(row + STRIP_ROWS, last) - first] = source.read(index, row, min(row + STRIP_ROWS, last), planes)
    return result


class PaddedRows:
    """The frames of a source, padded as a grid of tiles asks for.

    Attributes:
        height, width: of the padded frames.
    """

    def __init__(self, source: RowSource, grid: TileGrid, device: torch.device) -> None:
        self.source, self.grid, self.device = source, grid, device
        self.height, self.width = grid.padded

    def read(self, first: int, last: int, planes: int = 8) -> Tensor:
        """Rows of the padded frames, [1, N, planes, rows, W]."""
        return torch.stack([self.read_frame(index, first, last, planes) for index in range(self.source.count)])[None]

    def read_frame(self, index: int, first: int, last: int, planes: int = 8) -> Tensor:
        """Rows of one padded frame, [planes, rows, W]."""
        above, height = self.grid.padding[2], self.grid.frame[0]
        if self.grid.padding_mode == 'constant':
            begin, end = (min(max(row - above, 0), height) for row in (first, last))
        else:  # rows beyond the frame repeat its last one
            begin, end = min(first, height - 1), min(last, height)
        inside = read_strips(self.source, index, begin, end, planes, self.device)
        return pad_rows(inside, self.grid, begin + above - first, last - end - above)

    def zeros(self) -> bool:
        """Whether padding is zeros."""
        return self.grid.padding_mode == 'constant'


def pad_rows(inside: Tensor, grid: TileGrid, above: int, below: int) -> Tensor:
    """Pad rows [C, rows, W] of a frame to the left and right as ``grid`` asks for, and by rows above and below."""
    left, right = grid.padding[:2]
    if not any((left, right, above, below)):
        return inside
    if grid.padding_mode == 'constant':
        return F.pad(inside, (left, right, above, below))
    return F.pad(inside[None], (left, right, above, below), mode=grid.padding_mode)[0]
