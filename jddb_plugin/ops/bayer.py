"""Bayer mosaics and their packed form.

Convention:
    The mosaic's 2x2 cell is R Gr / Gb B ("rggb"). Packed raw holds the four samples of a cell as
    planes in the order R, Gr, Gb, B, each of half the height and width: plane k of ``packed[..., k, i, j]``
    is ``mosaic[..., 2 i + k // 2, 2 j + k % 2]``.
"""
from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from jddb_plugin.checks import ShapeError


def _check_even(image: Tensor, name: str) -> None:
    height, width = image.shape[-2:]
    if height % 2 or width % 2 or height < 2 or width < 2:
        raise ShapeError(f'{name}: height and width must be even, got {height} x {width}; crop one row or column.')


def _check_planes(packed: Tensor) -> None:
    if packed.ndim < 3 or packed.shape[-3] != 4:
        raise ShapeError(f'packed raw: expected [..., 4, H, W], got {list(packed.shape)}.')


def pack(mosaic: Tensor) -> Tensor:
    """Pack a mosaic [..., 2H, 2W] into planes [..., 4, H, W].

    Raises:
        ShapeError: height or width is odd.

    Examples:
        >>> pack(torch.arange(16).view(4, 4))[:, 0, 0].tolist()
        [0, 1, 4, 5]
    """
    _check_even(mosaic, 'mosaic')
    return F.pixel_unshuffle(mosaic.unsqueeze(-3), 2)


def unpack(packed: Tensor) -> Tensor:
    """Lay planes [..., 4, H, W] out as a mosaic [..., 2H, 2W]; the inverse of :func:`pack`.

    Raises:
        ShapeError: there are not four planes.

    Examples:
        >>> mosaic = torch.rand(2, 6, 8)
        >>> torch.equal(unpack(pack(mosaic)), mosaic)
        True
    """
    _check_planes(packed)
    return F.pixel_shuffle(packed, 2).squeeze(-3)


def mosaic_rgb(rgb: Tensor) -> Tensor:
    """Sample an RGB image [..., 3, 2H, 2W] by the rggb pattern into packed raw [..., 4, H, W].

    Raises:
        ShapeError: not three channels, or height or width is odd.

    Examples:
        >>> mosaic_rgb(torch.rand(5, 3, 8, 6)).shape
        torch.Size([5, 4, 4, 3])
    """
    if rgb.ndim < 3 or rgb.shape[-3] != 3:
        raise ShapeError(f'rgb: expected [..., 3, H, W], got {list(rgb.shape)}.')
    _check_even(rgb, 'rgb')
    red = rgb[..., 0, 0::2, 0::2]
    green_r = rgb[..., 1, 0::2, 1::2]
    green_b = rgb[..., 1, 1::2, 0::2]
    blue = rgb[..., 2, 1::2, 1::2]
    return torch.stack((red, green_r, green_b, blue), dim=-3)


def half_size_rgb(packed: Tensor) -> Tensor:
    """Color picture of half the mosaic's size: red, mean of the greens, blue of each cell.

    Args:
        packed: [..., 4, H, W], any range.

    Returns:
        [..., 3, H, W] in the range of the input.

    Raises:
        ShapeError: there are not four planes.

    Examples:
        >>> half_size_rgb(torch.tensor([0.0, 0.25, 0.75, 1.0]).view(4, 1, 1)).flatten().tolist()
        [0.0, 0.5, 1.0]
    """
    _check_planes(packed)
    return torch.stack((packed[..., 0, :, :], packed[..., 1:3, :, :].mean(dim=-3), packed[..., 3, :, :]), dim=-3)


def demosaic_bilinear(packed: Tensor) -> Tensor:
    """Bilinear demosaicking, the plain baseline.

    Every missing sample is the mean of the nearest samples of its color; at the border the mean runs
    over those that exist.

    Args:
        packed: [..., 4, H, W], any range.

    Returns:
        rgb [..., 3, 2H, 2W] in the range of the input.

    Raises:
        ShapeError: there are not four planes.

    Examples:
        >>> demosaic_bilinear(torch.full((4, 3, 5), 0.5)).shape
        torch.Size([3, 6, 10])
    """
    _check_planes(packed)
    leading, packed = packed.shape[:-3], packed.reshape(-1, *packed.shape[-3:])
    batch, _, height, width = packed.shape
    sparse = packed.new_zeros(batch, 3, 2 * height, 2 * width)
    known = packed.new_zeros(1, 3, 2 * height, 2 * width)
    for plane, channel in enumerate((0, 1, 1, 2)):
        rows, cols = slice(plane // 2, None, 2), slice(plane % 2, None, 2)
        sparse[:, channel, rows, cols] = packed[:, plane]
        known[:, channel, rows, cols] = 1
    tent = packed.new_tensor([1, 2, 1])
    square = torch.outer(tent, tent)
    # Green samples lie on a checkerboard: only the four direct neighbors are nearest.
    cross = packed.new_tensor([[0, 1, 0], [1, 4, 1], [0, 1, 0]])
    kernel = torch.stack((square, cross, square)).unsqueeze(1)
    rgb = F.conv2d(sparse, kernel, padding=1, groups=3) / F.conv2d(known, kernel, padding=1, groups=3)
    return rgb.reshape(*leading, *rgb.shape[1:])


def demosaic_malvar(packed: Tensor) -> Tensor:
    """Demosaicking by the linear 5x5 filters of Malvar, He and Cutler (ICASSP 2004).

    Bilinear interpolation, corrected by the gradient of the color that was sampled at the place itself. It is sharper than
    :func:`demosaic_bilinear`, and noisier. Beyond the border cells repeat.

    Args:
        packed: [..., 4, H, W], any range.

    Returns:
        rgb [..., 3, 2H, 2W]; values may lie beyond the input's range.

    Raises:
        ShapeError: there are not four planes.

    Examples:
        >>> demosaic_malvar(torch.full((4, 3, 5), 0.5)).shape
        torch.Size([3, 6, 10])
    """
    _check_planes(packed)
    leading, packed = packed.shape[:-3], packed.reshape(-1, *packed.shape[-3:])
    # On packed planes: all four places of a cell at once, and no arithmetic on samples that are not there.
    rgb = F.conv2d(F.pad(packed, (1, 1, 1, 1), mode='replicate'), _malvar_kernel().to(packed))
    return F.pixel_shuffle(rgb, 2).reshape(*leading, 3, 2 * packed.shape[-2], 2 * packed.shape[-1])


#: Malvar's filters, in eighths: a green value at red or blue; red (blue) at a green place of its row; at blue (red).
_GREEN = ((0, 0, -1, 0, 0), (0, 0, 2, 0, 0), (-1, 2, 4, 2, -1), (0, 0, 2, 0, 0), (0, 0, -1, 0, 0))
_IN_ROW = ((0, 0, 0.5, 0, 0), (0, -1, 0, -1, 0), (-1, 4, 5, 4, -1), (0, -1, 0, -1, 0), (0, 0, 0.5, 0, 0))
_OPPOSITE = ((0, 0, -1.5, 0, 0), (0, 2, 0, 2, 0), (-1.5, 0, 6, 0, -1.5), (0, 2, 0, 2, 0), (0, 0, -1.5, 0, 0))


@cache
def _malvar_kernel() -> Tensor:
    """Kernel [12, 4, 3, 3] on packed planes; output 4 c + 2 y + x is color c at (y, x) of the cell, as in pixel shuffling."""
    green, in_row, opposite = (torch.tensor(values) / 8 for values in (_GREEN, _IN_ROW, _OPPOSITE))
    in_column = in_row.T
    sampled = torch.zeros(5, 5)
    sampled[2, 2] = 1
    filters = ((sampled, in_row, in_column, opposite),  # red at R, Gr, Gb, B
               (green, sampled, sampled, green),
               (opposite, in_column, in_row, sampled))
    kernel = torch.zeros(12, 4, 3, 3)
    for color, places in enumerate(filters):
        for place, weights in enumerate(places):
            for row in range(5):
                for col in range(5):
                    y, x = place // 2 + row - 2, place % 2 + col - 2
                    kernel[4 * color + place, 2 * (y % 2) + x % 2, y // 2 + 1, x // 2 + 1] = weights[row, col]
    return kernel
