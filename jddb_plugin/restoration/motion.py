"""Motion between the frames of a burst as a smooth field, and frames moved by it.

The coarse alignment of the paper moves each tile by one multiple of four pixels: where motion changes within a tile only a part
of it is aligned, and which one depends on where the tiles lie. Here the same matching is done for windows of the same size
that lie closer, the matches are refined to fractions of a pixel and interpolated, and every pixel is taken from where it moved
to, rounded to whole pixels of the packed raw: its noise stays what it was. Deviates from the paper on purpose.
"""
from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from jddb_plugin.archs.dpbm_arch import SCALE
from jddb_plugin.archs.jddb_arch import TwoStageJDDB
from jddb_plugin.ops.motion_field import MotionField, refine_offsets, replace_strays
from jddb_plugin.ops.tiling import TileGrid, make_grid
from jddb_plugin.restoration.slabs import LIGHT_ROWS, Slabs

#: Neighbouring windows whose motion differs by more pixels of the packed raw show different things.
JUMP = 8.0


def lattice_of(net: TwoStageJDDB, size: tuple[int, int]) -> TileGrid:
    """Windows that are matched: as large as the network's tiles with their overlap, half a tile apart."""
    step = max(net.tile // 2 // SCALE, 1) * SCALE
    overlap = (net.tile + 2 * net.overlap - step) // 2 // SCALE * SCALE
    return make_grid(*size, tile=step, overlap=overlap, multiple=SCALE)


def _refined_size(lattice: TileGrid) -> tuple[int, int]:
    """The middle of a window, by which its match is refined: about as large as windows are apart."""
    return tuple(max(starts[1] - starts[0], SCALE) if len(starts) > 1 else size
                 for starts, size in zip((lattice.rows, lattice.cols), lattice.size))


def bands_of(count: int, band: int) -> Iterator[range]:
    """Ranges of at most ``band`` rows."""
    for first in range(0, count, band):
        yield range(first, min(first + band, count))


def matched_rows(slabs: Slabs, grid: TileGrid, band: range) -> tuple[int, Tensor, Tensor, Tensor]:
    """Match some rows of a grid's tiles.

    Returns:
        (first row of the slab, packed raw [1, N, 4, rows, W] of all that the matches touch, corners [1, T, 2] counted from
        its first row, offsets [1, T, N, 2] in pixels of the packed raw).
    """
    coarse = slabs.net.coarse
    reach = 0 if coarse is None else coarse.reach(slabs.count)
    first = max(grid.rows[band[0]] - reach, 0)
    last = min(grid.rows[band[-1]] + grid.size[0] + reach, slabs.height)
    columns = len(grid.cols)
    corners = grid.positions(slabs.device)[None, band[0] * columns:(band[-1] + 1) * columns].clone()
    corners[..., 0] -= first
    if coarse is None:
        zero = torch.zeros(1, corners.shape[1], slabs.count, 2, dtype=torch.int64, device=slabs.device)
        return first, slabs.read(first, last), corners, zero
    slab, features = slabs.read_with_features(first, last)
    return first, slab, corners, coarse.match_features(features, corners, grid.size).offset * SCALE


def find_motion(slabs: Slabs, lattice: TileGrid, band: int) -> MotionField:
    """Match the lattice, ``band`` rows of it at once, refine the matches, and replace those that stand alone."""
    size = _refined_size(lattice)
    inset = torch.tensor([(whole - part) // 2 for whole, part in zip(lattice.size, size)], device=slabs.device)
    found = []
    for rows in bands_of(len(lattice.rows), band):
        _, slab, corners, offsets = matched_rows(slabs, lattice, rows)
        reference = slabs.frames.ref_idx
        still = _stable(slab[0, reference])
        refined = [torch.zeros_like(offsets[0, :, 0], dtype=torch.float32) if frame == reference else
                   refine_offsets(still, _stable(slab[0, frame]), corners[0] + inset, offsets[0, :, frame], size)
                   for frame in range(slabs.count)]
        found.append(torch.stack(refined).unflatten(1, (len(rows), len(lattice.cols))))
        del slab, still  # before the next ones are made
    centres = (torch.tensor(starts, device=slabs.device) + whole / 2
               for starts, whole in zip((lattice.rows, lattice.cols), lattice.size))
    return MotionField(*centres, replace_strays(torch.cat(found, dim=1), JUMP), JUMP)


def _stable(light: Tensor) -> Tensor:
    """[4, H, W] -> [H, W, 4] with noise that is about as strong in the light as in the dark."""
    return light.clamp(min=0).sqrt_().permute(1, 2, 0)


def moved_rows(slabs: Slabs, field: MotionField, first: int, last: int) -> Tensor:
    """Rows of the padded frames, every frame moved onto the reference, [1, N, 4, rows, W]; the border repeats beyond it."""
    height, width = slabs.grid.frame
    result = torch.empty(slabs.count, 4, last - first, slabs.width, device=slabs.device)
    column = torch.arange(slabs.width, device=slabs.device)
    for top in range(first, last, LIGHT_ROWS):
        bottom = min(top + LIGHT_ROWS, last)
        row = torch.arange(top, bottom, device=slabs.device)[:, None]
        for frame in range(slabs.count):
            motion = field.at(frame, top, bottom, slabs.width).round().long()
            y = (row + motion[..., 0]).clamp(0, height - 1)
            x = (column + motion[..., 1]).clamp(0, width - 1)
            begin, end = int(y.min()), int(y.max()) + 1
            light = slabs.frames.light(frame, begin, end).to(slabs.device)
            result[frame, :, top - first:bottom - first] = light[:, y - begin, x]
    return result[None]
