"""Move a mosaic by a dense field of motion without mixing samples, so that their noise stays what it was."""
from __future__ import annotations

import torch
from torch import Tensor

from jddb_plugin.checks import ShapeError


def gather_mosaic(packed: Tensor, motion: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
    """Take every sample of the reference from the nearest sample of its color in another frame.

    Red and blue samples lie two pixels apart. Green ones lie on a checkerboard, so a green sample may come from either of
    the two green planes, and is never more than one pixel off (along both axes together).

    Convention:
        Motion is (dy, dx) in pixels of the mosaic: what is at p in the reference lies at p + motion in the other frame.

    Args:
        packed: [*, C, 4, H, W] planes R, Gr, Gb, B of each frame (C may be any number of such images, e.g. values and noise
            map).
        motion: [*, h, w, 2] for the cells of a window of the reference, or of all of it, for each frame.
        corner: (row, column) of the window's first cell.

    Returns:
        [*, C, 4, h, w]; what lies outside the frame is taken from its border.

    Raises:
        ShapeError: not four planes, or not such a motion.

    Examples:
        >>> from jddb_plugin.ops import gather_mosaic
        >>> frame = torch.rand(1, 4, 8, 8)
        >>> moved = gather_mosaic(frame, torch.tensor([2.0, 0.0]).expand(8, 8, 2))
        >>> torch.equal(moved[..., :-1, :], frame[..., 1:, :])
        True
    """
    if packed.ndim < 4 or packed.shape[-3] != 4 or motion.shape[:-3] != packed.shape[:-4] or motion.shape[-1] != 2:
        raise ShapeError('expected packed [*, C, 4, H, W] and motion [*, h, w, 2] with the same leading dimensions, got '
                         f'{list(packed.shape)} and {list(motion.shape)}.')
    height, width = packed.shape[-2:]
    size = height * width
    row = torch.arange(corner[0], corner[0] + motion.shape[-3], device=packed.device)[:, None]
    col = torch.arange(corner[1], corner[1] + motion.shape[-2], device=packed.device)
    y, x = motion[..., 0], motion[..., 1]
    # Samples of one color lie two pixels apart, along both axes.
    whole_y = (row + (y / 2).round().long()).clamp(0, height - 1)
    whole_x = (col + (x / 2).round().long()).clamp(0, width - 1)
    cell = whole_y * width + whole_x
    # Green samples are where u = y + x and v = y - x are odd.
    diagonal, antidiagonal = y + x, y - x
    sources = [cell]
    for plane in (1, 2):
        green_y, green_x = 2 * row + (plane >> 1), 2 * col + (plane & 1)
        u = ((green_y + green_x + diagonal) / 2).floor().long() * 2 + 1
        v = ((green_y - green_x + antidiagonal) / 2).floor().long() * 2 + 1
        green_y, green_x = (u + v) >> 1, (u - v) >> 1
        inside = (green_y >= 0) & (green_y < 2 * height) & (green_x >= 0) & (green_x < 2 * width)
        source = (1 + (green_y & 1)) * size + (green_y >> 1) * width + (green_x >> 1)
        sources.append(torch.where(inside, source, plane * size + cell))
    sources.append(3 * size + cell)
    source = torch.stack(sources, dim=-3)
    samples = source.flatten(-3).unsqueeze(-2).expand(*packed.shape[:-3], -1)
    return packed.flatten(-3).gather(-1, samples).view(*packed.shape[:-3], *source.shape[-3:])
