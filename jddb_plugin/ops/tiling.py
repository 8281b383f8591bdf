"""Cut a frame into tiles that cover it, and merge the tiles' results.

Convention:
    Coordinates are (y, x) in pixels of the packed raw. Tile corners are multiples of ``multiple``, so that they
    fall on whole feature pixels.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Union

import torch
import torch.nn.functional as F
from torch import Tensor

from jddb_plugin.checks import OptionError, ShapeError, check_choice


@dataclass(frozen=True)
class TileGrid:
    """Tiles of equal size over a padded frame.

    Attributes:
        frame: (height, width) of the frame that is covered.
        padding: (left, right, top, bottom) to add to the frame before tiles are cut.
        padding_mode: mode of ``F.pad``.
        rows, cols: first row of each row of tiles, first column of each column, in the padded frame.
        size: (height, width) of a tile.
        row_weights, col_weights: [len(rows), height], [len(cols), width]; how much each line of a tile counts in
            the merged frame. They add up to 1 on every line of the frame.
    """

    frame: tuple[int, int]
    padding: tuple[int, int, int, int]
    padding_mode: str
    rows: tuple[int, ...]
    cols: tuple[int, ...]
    size: tuple[int, int]
    row_weights: Tensor
    col_weights: Tensor

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)

    @property
    def padded(self) -> tuple[int, int]:
        """(height, width) of the padded frame."""
        left, right, top, bottom = self.padding
        return top + self.frame[0] + bottom, left + self.frame[1] + right

    def positions(self, device: torch.device) -> Tensor:
        """[T, 2] corners in the padded frame, row by row."""
        rows, cols = torch.tensor(self.rows, device=device), torch.tensor(self.cols, device=device)
        return torch.stack(torch.meshgrid(rows, cols, indexing='ij'), dim=-1).flatten(0, 1)

    def pad(self, frames: Tensor) -> Tensor:
        """Pad [..., H, W] as the grid asks for."""
        if not any(self.padding):
            return frames
        if self.padding_mode == 'constant':
            return F.pad(frames, self.padding)
        return F.pad(frames.flatten(0, -4), self.padding, mode=self.padding_mode).unflatten(0, frames.shape[:-3])

    def shifted(self, pixels: int) -> TileGrid:
        """The same tiles further down and to the right, and more of them at the frame's start; to measure what they matter.

        Args:
            pixels: a multiple of what corners are multiples of, less than the distance of two tiles; of tiles inside the frame.
        """
        rows, cols = (tuple(sorted({0} | {min(start + pixels, starts[-1]) for start in starts}))
                      for starts in (self.rows, self.cols))
        return replace(self, rows=rows, cols=cols, row_weights=_ramps(rows, self.size[0]), col_weights=_ramps(cols, self.size[1]))

    def canvas(self, batch: int, channels: int, scale: int, like: Tensor) -> Tensor:
        """An empty padded frame, ``scale`` times larger, to :meth:`add` tiles to."""
        height = max(self.rows[-1] + self.size[0], self.padding[2] + self.frame[0] + self.padding[3])
        width = max(self.cols[-1] + self.size[1], self.padding[0] + self.frame[1] + self.padding[1])
        return like.new_zeros(batch, channels, height * scale, width * scale)

    def add(self, canvas: Tensor, tiles: Tensor, first: int, scale: int, *, top: int = 0) -> None:
        """Add results of the tiles ``first``, ``first + 1``, ... to the canvas.

        Args:
            canvas: from :meth:`canvas`; changed in place.
            tiles: [B, t, C, scale * height, scale * width].
            first: index of the first tile.
            scale: pixels of a result per pixel of a tile.
            top: first row of the padded frame that the canvas holds.
        """
        height, width = (side * scale for side in self.size)
        rows = self.row_weights.to(tiles).repeat_interleave(scale, dim=1)
        cols = self.col_weights.to(tiles).repeat_interleave(scale, dim=1)
        for k in range(tiles.shape[1]):
            row, col = divmod(first + k, len(self.cols))
            weight = rows[row, :, None] * cols[col]
            y, x = (self.rows[row] - top) * scale, self.cols[col] * scale
            canvas[..., y:y + height, x:x + width] += tiles[:, k] * weight

    def crop(self, canvas: Tensor, scale: int) -> Tensor:
        """Cut the frame out of the padded canvas."""
        top, left = self.padding[2] * scale, self.padding[0] * scale
        return canvas[..., top:top + self.frame[0] * scale, left:left + self.frame[1] * scale]


def _spread(length: int, size: int, step: int, multiple: int) -> tuple[int, ...]:
    """Evenly spread starts of the fewest windows of ``size`` that cover ``length``, ``step`` apart at most."""
    gaps = -(-(length - size) // step) if length > size else 0
    return tuple(round(i * (length - size) / gaps / multiple) * multiple if gaps else 0 for i in range(gaps + 1))


def _ramps(starts: tuple[int, ...], size: int) -> Tensor:
    """Weights of overlapping windows: linear ramps over the overlaps, adding up to 1."""
    weights = torch.ones(len(starts), size, dtype=torch.float64)
    for i in range(len(starts) - 1):
        shared = starts[i] + size - starts[i + 1]
        ramp = (torch.arange(shared, dtype=torch.float64) + 0.5) / shared if shared > 0 else torch.empty(0)
        weights[i + 1, :shared] *= ramp
        weights[i, size - shared:] *= ramp.flip(0)
    total = torch.zeros(starts[-1] + size, dtype=torch.float64)
    for start, weight in zip(starts, weights):
        total[start:start + size] += weight
    return torch.stack([weight / total[start:start + size] for start, weight in zip(starts, weights)])


def make_grid(height: int, width: int, *, tile: Union[int, tuple[int, int]], overlap: int, multiple: int,
              layout: str = 'inside') -> TileGrid:
    """Plan the tiles of a frame.

    Args:
        height, width: of the packed raw.
        tile: side of a tile without its overlap, or its height and width; multiples of ``multiple``.
        overlap: extra context on each side, a multiple of ``multiple``.
        multiple: corners are multiples of it.
        layout: 'inside' keeps tiles inside the frame (padded to ``multiple`` by repeating its border) and blends
            their overlaps; 'released' is the released code's: zeros right and below up to the next multiple of
            the tile (a whole tile where the size already is one), ``overlap`` zeros all around, tiles cut to
            their center and put side by side. Tiles of nothing but padding, which the released code restores
            too and throws away, are left out.

    Raises:
        OptionError: tile or overlap is not a multiple.
        ShapeError: the frame is smaller than a tile.

    Examples:
        >>> grid = make_grid(100, 140, tile=64, overlap=4, multiple=4)
        >>> grid.size, grid.rows, grid.cols
        ((72, 72), (0, 28), (0, 32, 68))
    """
    check_choice(layout, ('inside', 'released'), 'layout')
    tall, wide = (tile, tile) if isinstance(tile, int) else tile
    if min(tall, wide) < 1 or overlap < 0 or tall % multiple or wide % multiple or overlap % multiple:
        raise OptionError(f'tile and overlap must be multiples of the matching scale {multiple}, got {tile}, {overlap}.')
    if height < tall or width < wide:
        raise ShapeError(f'a frame of {height} x {width} px (of packed raw: half the size of the RGB image) is smaller than '
                         f'a tile of {tile}; use a smaller tile or a larger crop.')
    if layout == 'released':
        right, below = wide - width % wide, tall - height % tall
        rows, cols = tuple(range(0, height, tall)), tuple(range(0, width, wide))
        return TileGrid((height, width), (overlap, right + overlap, overlap, below + overlap), 'constant', rows, cols,
                        (tall + 2 * overlap, wide + 2 * overlap), _centers(len(rows), tall, overlap),
                        _centers(len(cols), wide, overlap))
    below, right = -height % multiple, -width % multiple
    size = (min(tall + 2 * overlap, height + below), min(wide + 2 * overlap, width + right))
    return _inside(height, width, size, overlap, multiple)


def _inside(height: int, width: int, size: tuple[int, int], overlap: int, multiple: int) -> TileGrid:
    """Evenly spread tiles of a size that lie inside the frame, which is padded to ``multiple`` by repeating its border."""
    below, right = -height % multiple, -width % multiple
    rows = _spread(height + below, size[0], size[0] - 2 * overlap, multiple)
    cols = _spread(width + right, size[1], size[1] - 2 * overlap, multiple)
    return TileGrid((height, width), (0, right, 0, below), 'replicate', rows, cols, size,
                    _ramps(rows, size[0]), _ramps(cols, size[1]))


def _centers(count: int, tile: int, overlap: int) -> Tensor:
    """Weights of tiles that are cut to their center."""
    weights = torch.zeros(1, tile + 2 * overlap, dtype=torch.float64)
    weights[:, overlap:overlap + tile] = 1
    return weights.expand(count, -1)


def cheapest_cover(height: int, width: int, *, pixels: int, overlap: int, multiple: int) -> TileGrid:
    """Tiles of at most ``pixels`` each, overlap included, that process the fewest pixels in all.

    With room enough these are strips as wide as the frame or half of it; with little, tiles that are nearly square.

    Args:
        height, width: of the packed raw.
        pixels: of a tile, at most. Tiles are never smaller than ``multiple`` with its overlap.
        overlap: context on each side, a multiple of ``multiple``.
        multiple: corners are multiples of it.

    Examples:
        >>> from jddb_plugin.ops.tiling import cheapest_cover
        >>> grid = cheapest_cover(256, 512, pixels=64 * 1024, overlap=16, multiple=4)
        >>> grid.size[0] * grid.size[1] <= 64 * 1024
        True
    """
    tall, wide = height + -height % multiple, width + -width % multiple
    least = 2 * overlap + multiple
    best, cost = (min(least, tall), min(least, wide)), None
    columns = 1
    while True:
        across = _side(wide, columns, overlap, multiple)
        longest = pixels // across // multiple * multiple
        if longest >= min(least, tall):
            rows = 1 if longest >= tall else -(-(tall - 2 * overlap) // (longest - 2 * overlap))
            down = _side(tall, rows, overlap, multiple)
            if cost is None or rows * columns * down * across < cost:
                best, cost = (down, across), rows * columns * down * across
        if across <= least:
            return _inside(height, width, best, overlap, multiple)
        columns += 1


def _side(length: int, count: int, overlap: int, multiple: int) -> int:
    """Shortest side of ``count`` tiles that cover ``length`` with their overlaps; never below one multiple and its overlap."""
    side = -(-(length + (count - 1) * 2 * overlap) // count)
    return min(length, max(side + -side % multiple, 2 * overlap + multiple))
