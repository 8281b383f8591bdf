"""Cut a frame into tiles that cover it, and merge the tiles' results.

Convention:
    Coordinates are (y, x) in pixels of the packed raw. Tile corners are multiples of ``multiple``, so that they
    fall on whole feature pixels.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

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
    gaps = -(-(length - size) // step)
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


def make_grid(height: int, width: int, *, tile: int, overlap: int, multiple: int, layout: str = 'inside') -> TileGrid:
    """Plan the tiles of a frame.

    Args:
        height, width: of the packed raw.
        tile: side of a tile without its overlap, a multiple of ``multiple``.
        overlap: extra context on each side, a multiple of ``multiple``.
        multiple: corners are multiples of it.
        layout: 'inside' keeps tiles inside the frame (padded to ``multiple`` by repeating its border) and blends
            their overlaps; 'published' is the released code's: zeros right and below up to the next multiple of
            the tile (a whole tile where the size already is one), ``overlap`` zeros all around, tiles cut to
            their centre and put side by side. Tiles of nothing but padding, which the released code restores
            too and throws away, are left out.

    Raises:
        OptionError: tile or overlap is not a multiple.
        ShapeError: the frame is smaller than a tile.

    Examples:
        >>> grid = make_grid(100, 140, tile=64, overlap=4, multiple=4)
        >>> grid.size, grid.rows, grid.cols
        ((72, 72), (0, 28), (0, 32, 68))
    """
    check_choice(layout, ('inside', 'published'), 'layout')
    if tile < 1 or overlap < 0 or tile % multiple or overlap % multiple:
        raise OptionError(f'tile and overlap must be multiples of the matching scale {multiple}, got {tile}, {overlap}.')
    if height < tile or width < tile:
        raise ShapeError(f'a frame of {height} x {width} px (of packed raw: half the size of the RGB image) is smaller than '
                         f'a tile of {tile}; use a smaller tile or a larger crop.')
    if layout == 'published':
        right, below = tile - width % tile, tile - height % tile
        rows = tuple(range(0, height, tile))
        cols = tuple(range(0, width, tile))
        weights = torch.zeros(1, tile + 2 * overlap, dtype=torch.float64)
        weights[:, overlap:overlap + tile] = 1
        return TileGrid((height, width), (overlap, right + overlap, overlap, below + overlap), 'constant', rows, cols,
                        (tile + 2 * overlap,) * 2, weights.expand(len(rows), -1), weights.expand(len(cols), -1))
    below, right = -height % multiple, -width % multiple
    size = (min(tile + 2 * overlap, height + below), min(tile + 2 * overlap, width + right))
    rows = _spread(height + below, size[0], tile, multiple)
    cols = _spread(width + right, size[1], tile, multiple)
    return TileGrid((height, width), (0, right, 0, below), 'replicate', rows, cols, size,
                    _ramps(rows, size[0]), _ramps(cols, size[1]))
