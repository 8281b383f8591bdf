"""Mosaics of other Bayer patterns, of any size and orientation, brought to what the networks work on, and back.

Convention:
    A pattern is the 2x2 cell at the top left of a mosaic, read row by row: "grbg" is G R / B G. The networks work on
    "rggb", so a mosaic of another pattern loses at most its first row and first column, and the last ones where that
    leaves an odd size. Samples keep their order. Positions are (y, x), y down and x to the right, in mosaic pixels.
"""
from __future__ import annotations

from typing import Optional, Sequence, TypeVar, Union

import torch
from torch import Tensor

from jddb_plugin.checks import OptionError, ShapeError, check_choice

#: Bayer patterns: the 2x2 cell row by row.
CFA_PATTERNS = ('rggb', 'grbg', 'gbrg', 'bggr')

Value = TypeVar('Value')


def red_position(cfa: str) -> tuple[int, int]:
    """Position (y, x) of red in the cell, each 0 or 1.

    Raises:
        OptionError: ``cfa`` is not one of :data:`CFA_PATTERNS`.

    Examples:
        >>> red_position('gbrg')
        (1, 0)
    """
    check_choice(cfa, CFA_PATTERNS, 'cfa')
    y, x = divmod(cfa.index('r'), 2)
    return y, x


def to_rggb(mosaic: Tensor, cfa: str) -> tuple[Tensor, tuple[int, int]]:
    """Crop a mosaic so that it starts with red and has an even size.

    Args:
        mosaic: [..., H, W], any range and type.
        cfa: its pattern.

    Returns:
        (mosaic' [..., H', W'], (y, x)): a view of pattern rggb, H' and W' even, and the place of its first sample in
        ``mosaic``; y and x are 0 or 1, H - H' - y and W - W' - x too.

    Raises:
        OptionError: unknown pattern.
        ShapeError: no full cell is left.

    Examples:
        >>> cropped, origin = to_rggb(torch.zeros(9, 8), 'grbg')
        >>> cropped.shape, origin
        (torch.Size([8, 6]), (0, 1))
    """
    y, x = red_position(cfa)
    height, width = (mosaic.shape[-2] - y) // 2 * 2, (mosaic.shape[-1] - x) // 2 * 2
    if height < 2 or width < 2:
        raise ShapeError(f'mosaic: expected at least {2 + y} x {2 + x} samples of pattern {cfa}, got {list(mosaic.shape)}.')
    return mosaic[..., y:y + height, x:x + width], (y, x)


def restore_frame(image: Tensor, origin: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Put a result for a cropped mosaic back onto the frame it was cropped from.

    Args:
        image: [..., h, w], e.g. rgb [..., 3, h, w], of the size of the mosaic that :func:`to_rggb` returned.
        origin: (y, x) as :func:`to_rggb` returned it.
        size: (H, W) of the frame before the crop.

    Returns:
        [..., H, W]; pixels keep their place, lines that were cropped repeat the nearest one.

    Raises:
        ShapeError: the image does not fit into the frame, or more than one line is missing on a side.

    Examples:
        >>> cropped, origin = to_rggb(torch.arange(6.).expand(4, 6), 'grbg')
        >>> restore_frame(cropped, origin, (4, 6))[0].tolist()
        [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]
    """
    rows, columns = (_nearest_line(image, length, start, full)
                     for length, start, full in zip(image.shape[-2:], origin, size))
    if rows is None or columns is None:
        raise ShapeError(f'image {list(image.shape)} at {tuple(origin)} is not a crop of a frame {tuple(size)} '
                         'that leaves out at most one line on each side.')
    return image.index_select(-2, rows).index_select(-1, columns)


def _nearest_line(image: Tensor, length: int, start: int, full: int) -> Optional[Tensor]:
    if start not in (0, 1) or full - start - length not in (0, 1):
        return None
    return (torch.arange(full, device=image.device) - start).clamp(0, length - 1)


def cell_to_rggb(values: Sequence[Value], cfa: str) -> tuple[Value, Value, Value, Value]:
    """Put what belongs to the four samples of a cell (levels, noise) in the order R, Gr, Gb, B.

    Gr is the green in red's row. This is the order of the planes after :func:`to_rggb` and packing.

    Args:
        values: of the cell at the top left of the mosaic, row by row.
        cfa: the mosaic's pattern.

    Raises:
        OptionError: unknown pattern.
        ShapeError: not four values.

    Examples:
        >>> cell_to_rggb(('green in a row of red', 'red', 'blue', 'green in a row of blue'), 'grbg')
        ('red', 'green in a row of red', 'green in a row of blue', 'blue')
    """
    y, x = red_position(cfa)
    if len(values) != 4:
        raise ShapeError(f'values of a cell: expected four, got {len(values)}.')
    red, green_r, green_b, blue = (values[2 * ((i + y) % 2) + (j + x) % 2] for i in (0, 1) for j in (0, 1))
    return red, green_r, green_b, blue


def normalize(packed: Tensor, black: Union[Sequence[float], Tensor], white: Union[Sequence[float], Tensor]) -> Tensor:
    """Sample values -> normalized raw: black is 0 and white is 1.

    Plain arithmetic, so that gradients flow through it where the result is not clamped.

    Args:
        packed: packed raw [..., 4, H, W] in sample values; integers become float32.
        black, white: levels of the four planes in sample values, see :func:`cell_to_rggb`.

    Returns:
        Like ``packed``, in [0, 1].

    Raises:
        ShapeError: not four planes, or not four levels.

    Examples:
        >>> normalize(torch.full((4, 1, 1), 564), black=[64] * 4, white=[1064] * 4).flatten().tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    if packed.ndim < 3 or packed.shape[-3] != 4 or len(black) != 4 or len(white) != 4:
        raise ShapeError(f'expected packed raw [..., 4, H, W] with 4 levels of black and white, got {list(packed.shape)}, '
                         f'{len(black)} and {len(white)}.')
    if not packed.is_floating_point():
        packed = packed.float()
    black, white = (torch.as_tensor(level, dtype=packed.dtype, device=packed.device)[:, None, None] for level in (black, white))
    return ((packed - black) / (white - black)).clamp(0, 1)


def flip_mosaic(mosaic: Tensor, *, flip_y: bool = False, flip_x: bool = False, transpose: bool = False) -> Tensor:
    """Flip and turn a mosaic so that it stays rggb.

    A flipped side of even length starts with the wrong color and loses its first and its last line; one of odd
    length keeps its phase and loses the last line only, as does an unflipped one of odd length. What happens depends
    on the size alone: applied to an rgb image [..., 3, H, W] of the mosaic's size, this gives the matching image.
    Turning by 90 degrees is a flip and a transposition.

    Args:
        mosaic: [..., H, W] of pattern rggb, any range and type.
        flip_y, flip_x: reverse the rows, the columns.
        transpose: swap rows and columns, after the flips. This makes Gr samples Gb samples and the reverse.

    Returns:
        [..., H', W'] of pattern rggb, H' and W' even.

    Raises:
        ShapeError: no full cell is left.

    Examples:
        >>> flip_mosaic(torch.arange(6).expand(4, 6), flip_x=True)[0].tolist()
        [4, 3, 2, 1]
    """
    dims = [dim for dim, flipped in ((-2, flip_y), (-1, flip_x)) if flipped]
    # Red comes from line 0 and lands on the last one: on an odd line if the length is even.
    y = int(flip_y and mosaic.shape[-2] % 2 == 0)
    x = int(flip_x and mosaic.shape[-1] % 2 == 0)
    pattern = CFA_PATTERNS[2 * y + x]
    result, _ = to_rggb(mosaic.flip(dims), pattern)
    return result.transpose(-2, -1) if transpose else result


#: EXIF orientation -> (swap rows and columns first, reverse the rows then, reverse the columns then).
TURNS = {1: (False, False, False), 2: (False, False, True), 3: (False, True, True), 4: (False, True, False),
          5: (True, False, False), 6: (True, False, True), 7: (True, True, True), 8: (True, True, False)}


def _turn(orientation: int) -> tuple[bool, bool, bool]:
    if orientation not in TURNS:
        raise OptionError(f'expected an EXIF orientation, 1 to 8, got {orientation}.', field='orientation')
    return TURNS[orientation]


def orient(image: Tensor, orientation: int) -> Tensor:
    """Turn a picture [..., H, W] upright as its EXIF orientation (1 to 8) says; for finished pictures, not mosaics.

    Raises:
        OptionError: ``orientation`` is not in 1 to 8.

    Examples:
        >>> orient(torch.zeros(3, 40, 60), 6).shape
        torch.Size([3, 60, 40])
    """
    swap, rows, columns = _turn(orientation)
    if swap:
        image = image.transpose(-2, -1)
    return image.flip([dim for dim, reverse in ((-2, rows), (-1, columns)) if reverse])
