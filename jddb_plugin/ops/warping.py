"""Move a mosaic by a dense field of motion, to fractions of a pixel."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jddb_plugin.checks import ShapeError
from jddb_plugin.ops.bayer import demosaic_malvar

#: Cells that are demosaicked at once.
_PIECE = 1 << 18
#: Bytes that each of them takes, as measured: all colors, those that are sampled, places and samples of four planes.
_CELL_BYTES = 192
#: Channel of each plane's color.
_COLORS = (0, 1, 1, 2)
#: Cells before and after a sample's place that its value depends on: 2 px of bicubic sampling, 2 px of demosaicking.
_REACH = (2, 3)
#: Cells of the smallest piece that is demosaicked, so that no border of a piece reaches the border of the frame.
_LEAST = 3


def warp_mosaic(packed: Tensor, motion: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
    """Move a mosaic onto the reference.

    Samples of one color lie two pixels apart, too far to interpolate between them alone: the mosaic is demosaicked
    (:func:`demosaic_malvar`), and each color is sampled by bicubic interpolation (Keys, 1981, a = -0.75) where the reference has
    that color. The noise of what is interpolated is weaker, and shared with its neighbors.

    Convention:
        Motion is (dy, dx) in pixels of the mosaic: what is at p in the reference lies at p + motion in the other frame.

    Args:
        packed: [*, 4, H, W] planes R, Gr, Gb, B of each frame, 0 .. 1.
        motion: [*, h, w, 2] for the cells of a window of the reference, or of all of it, for each frame.
        corner: (row, column) of the window's first cell.

    Returns:
        [*, 4, h, w], 0 .. 1; what lies outside the frame is taken from its border.

    Raises:
        ShapeError: not four planes, or not such a motion.

    Examples:
        >>> from jddb_plugin.ops import warp_mosaic
        >>> frame = torch.rand(4, 8, 8)
        >>> moved = warp_mosaic(frame, torch.tensor([2.0, 0.0]).expand(8, 8, 2))
        >>> torch.allclose(moved[:, :-1], frame[:, 1:], atol=1e-5)
        True
    """
    if packed.ndim < 3 or packed.shape[-3] != 4 or motion.shape[:-3] != packed.shape[:-3] or motion.shape[-1:] != (2,):
        raise ShapeError('expected packed [*, 4, H, W] and motion [*, h, w, 2] with the same leading dimensions, got '
                         f'{list(packed.shape)} and {list(motion.shape)}.')
    frames, fields = packed.reshape(-1, *packed.shape[-3:]), motion.reshape(-1, *motion.shape[-3:])
    return _warp(frames, fields, corner).view(*packed.shape[:-2], *fields.shape[1:3])


def warp_bytes(cells: int) -> int:
    """Memory that :func:`warp_mosaic` takes at most for a frame of so many cells, beside the frame and the result.

    Examples:
        >>> from jddb_plugin.ops.warping import warp_bytes
        >>> warp_bytes(1000) < warp_bytes(10 ** 6) == warp_bytes(10 ** 7)
        True
    """
    return _CELL_BYTES * min(cells, _PIECE)


def cells_needed(first: int, count: int, motion: Tensor, size: int) -> range:
    """Rows (or columns) of a frame that :func:`warp_mosaic` needs.

    Args:
        first, count: the rows of the reference that are asked for.
        motion: any shape, along this axis, in pixels of the mosaic.
        size: rows of the frame.

    Examples:
        >>> from jddb_plugin.ops.warping import cells_needed
        >>> cells_needed(10, 4, torch.tensor([0.0, 6.5]), 100)
        range(8, 20)
    """
    lowest, highest = (int((bound / 2).floor()) for bound in motion.aminmax())
    start = min(max(first + lowest - _REACH[0], 0), max(size - _LEAST, 0))
    stop = first + count + highest + _REACH[1]
    return range(start, min(max(stop, start + _LEAST), size))


def _warp(frames: Tensor, motion: Tensor, corner: tuple[int, ...]) -> Tensor:
    """Move frames [B, 4, H, W] by motion [B, h, w, 2]; windows that need more of a frame than one piece are halved."""
    needed = [cells_needed(corner[k], motion.shape[1 + k], motion[..., k], frames.shape[2 + k]) for k in (0, 1)]
    starts, sides = [cells.start for cells in needed], [len(cells) for cells in needed]
    if len(frames) * sides[0] * sides[1] > _PIECE and motion.shape[1:3].numel() > 1:
        axis = int(motion.shape[2] >= motion.shape[1])
        halves = motion.tensor_split(2, dim=1 + axis)
        second = tuple(place + halves[0].shape[1 + k] * (k == axis) for k, place in enumerate(corner))
        return torch.cat([_warp(frames, half, place) for half, place in zip(halves, (corner, second))], dim=2 + axis)
    piece = frames[..., starts[0]:starts[0] + sides[0], starts[1]:starts[1] + sides[1]]
    colors = demosaic_malvar(piece)[:, _COLORS].flatten(0, 1)[:, None]
    y, x = (2.0 * torch.arange(corner[axis] - starts[axis], corner[axis] - starts[axis] + motion.shape[1 + axis],
                               device=motion.device, dtype=motion.dtype) + 0.5 for axis in (0, 1))
    # grid_sample counts from -1 at one border of the image to 1 at the other; a pixel's place is its middle.
    places = torch.stack(((x + motion[..., 1]) / sides[1] - 1, (y[:, None] + motion[..., 0]) / sides[0] - 1), dim=-1)
    places = places.to(colors.dtype)
    of_planes = places.new_tensor([(plane % 2 / sides[1], plane // 2 / sides[0]) for plane in range(4)])[:, None, None]
    # All planes as one batch, which a CPU divides among its threads.
    sampled = F.grid_sample(colors, (places[:, None] + of_planes).flatten(0, 1), mode='bicubic', padding_mode='border',
                            align_corners=False)
    return sampled.view(len(frames), 4, *motion.shape[1:3]).clamp_(0, 1)
