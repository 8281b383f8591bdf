"""Whole frames in memory, tile by tile: align, process, merge.

Differentiable, and the plain form of what :mod:`jddb_plugin.inference` does by bands of rows.
"""
from __future__ import annotations

from typing import Callable, Optional, Protocol

from torch import Tensor

from jddb_plugin.checks import ShapeError
from jddb_plugin.ops.block_matching import Match
from jddb_plugin.ops.tile_extraction import extract_tiles
from jddb_plugin.ops.tiling import TileGrid


class CoarseStage(Protocol):
    """What aligns tiles: :class:`jddb_plugin.archs.dpbm_arch.DPBM`."""

    def match(self, frames: Tensor, positions: Tensor, size: tuple[int, int], ref_idx: int) -> Match:
        """Find tiles of the reference in the other frames."""

    def align(self, frames: Tensor, positions: Tensor, size: tuple[int, int], match: Match, ref_idx: int) -> Tensor:
        """Tiles [B, T, N, C, *size] moved onto the reference."""


def unaligned_tiles(frames: Tensor, positions: Tensor, size: tuple[int, int]) -> Tensor:
    """Tiles [B, T, N, C, *size] of all frames at the same place: no coarse alignment."""
    return extract_tiles(frames, positions, positions.new_zeros(*positions.shape[:2], frames.shape[1], 2), size)


def process_tiles(frames: Tensor, grid: TileGrid, process: Callable[[Tensor], Tensor], *, coarse: Optional[CoarseStage],
               tile_batch: int, ref_idx: int) -> Tensor:
    """Process whole frames by tiles.

    Args:
        frames: [B, N, C, H, W].
        grid: tiles that cover them.
        process: maps tiles [t, N, C, h, w] to [t, K, s h, s w], with a whole number s.
        coarse: aligns the tiles; None leaves all frames where they are.
        tile_batch: tiles that are cut out, aligned and processed at once.
        ref_idx: index of the frame that the others are aligned to.

    Returns:
        [B, K, s H, s W], overlaps blended by the grid's weights.

    Raises:
        ShapeError: the result of ``process`` is not a whole multiple of a tile.
    """
    batch = frames.shape[0]
    frames = grid.pad(frames)
    positions = grid.positions(frames.device).expand(batch, -1, -1)
    match = None if coarse is None else coarse.match(frames, positions, grid.size, ref_idx)
    canvas: Optional[Tensor] = None
    scale = 1
    step = max(1, tile_batch // batch)
    for first in range(0, len(grid), step):
        part = slice(first, first + step)
        if coarse is None or match is None:
            tiles = unaligned_tiles(frames, positions[:, part], grid.size)
        else:
            tiles = coarse.align(frames, positions[:, part], grid.size, match.tiles(part), ref_idx)
        result = process(tiles.flatten(0, 1))
        if canvas is None:
            scale = _scale(result, grid.size)
            canvas = grid.canvas(batch, result.shape[1], scale, result)
        grid.add(canvas, result.unflatten(0, (batch, -1)), first, scale)
    if canvas is None:
        raise ShapeError('a grid without tiles covers nothing.')
    return grid.crop(canvas, scale)


def _scale(result: Tensor, size: tuple[int, int]) -> int:
    scale = result.shape[-1] // size[1]
    if result.ndim != 4 or scale < 1 or result.shape[-2:] != (scale * size[0], scale * size[1]):
        raise ShapeError(f'a tile of {size[0]} x {size[1]} became {list(result.shape)}; expected [tiles, channels, height, '
                         'width] with a whole multiple of its height and width.')
    return scale
