"""Pattern, geometry and noise of a mosaic by a DNG's tags (DNG specification 1.7.1)."""
from __future__ import annotations

import math
from typing import Optional, Sequence

import numpy as np

from jddb_plugin.checks import DataError
from jddb_plugin.data import dng_samples
from jddb_plugin.data import dng_tags as t
from jddb_plugin.data.dng_color import color_planes
from jddb_plugin.data.dng_tags import Mosaic
from jddb_plugin.data.metadata import CFA_PATTERNS
from jddb_plugin.data.tiff_tags import Directory


def check_layout(directory: Directory, where: str) -> None:
    """Raise DataError unless samples lie in a rectangle, row by row."""
    layout = directory.number(t.CFA_LAYOUT, 1)
    if layout != 1:
        raise DataError(f'{where}: CFALayout {layout}: its rows or columns are shifted against each other (a SuperCCD sensor); '
                        'expected samples in a rectangle, CFALayout 1.')
    if any(directory.number(code, 1) != 1 for code in (t.ROW_INTERLEAVE, t.COLUMN_INTERLEAVE)):
        raise DataError(f'{where}: its samples are interleaved (RowInterleaveFactor, ColumnInterleaveFactor), which is not '
                        'supported; convert it by Adobe DNG Converter.')


def read_pattern(mosaic: Mosaic, where: str) -> tuple[str, list[int]]:
    """Cell at the top left of the active area, and the place of red, green and blue among the planes."""
    directory = mosaic.directory
    values, dim = directory.numbers(t.CFA_PATTERN), tuple(map(int, directory.numbers(t.CFA_DIM) or (2, 2)))
    planes = color_planes(mosaic)
    is_complete = len(dim) == 2 and len(values) == dim[0] * dim[1] > 0
    pattern = np.array(values, dtype=float).reshape(dim[0], dim[1]) if is_complete else np.zeros((1, 1))
    rows, columns = np.indices(tuple(side * 2 for side in pattern.shape))
    whole = np.tile(pattern, (2, 2))
    cfa = ''.join('rgb'[int(color)] if color in (0, 1, 2) else '?' for color in whole[:2, :2].flat)
    if planes is None or cfa not in CFA_PATTERNS or not np.array_equal(whole, whole[rows % 2, columns % 2]):
        raise DataError(f'{where}: its color pattern ({dim[0]} x {dim[-1]}) is {_pattern_name(pattern)}; expected a Bayer '
                        f"pattern ({', '.join(CFA_PATTERNS)}). Quad-Bayer and X-Trans sensors are not supported, convert the "
                        'file to a Bayer mosaic first.')
    return cfa, planes


def _pattern_name(pattern: np.ndarray) -> str:
    for side, name in ((2, 'a Quad-Bayer pattern'), (3, 'a Nona-Bayer pattern')):
        if pattern.shape == (2 * side, 2 * side) and np.array_equal(pattern,
                                                                    np.kron(pattern[::side, ::side], np.ones((side, side)))):
            return name
    return 'an X-Trans pattern' if pattern.shape == (6, 6) else 'not a Bayer pattern'


def read_active_area(directory: Directory, where: str) -> tuple[int, int, int, int]:
    """Top, left, bottom, right."""
    height, width = dng_samples.mosaic_size(directory, where)
    area = directory.numbers(t.ACTIVE_AREA) or (0, 0, height, width)
    if len(area) != 4 or not (0 <= area[0] < area[2] <= height and 0 <= area[1] < area[3] <= width):
        raise DataError(f'{where}: ActiveArea {" ".join(map(str, area))} does not lie within its {width} x {height} samples; '
                        'correct the file.')
    top, left, bottom, right = map(int, area)
    return top, left, bottom, right


def read_noise(profile: Sequence[float], cfa: str, planes: Sequence[int],
           notes: list[str]) -> Optional[tuple[tuple[float, ...], tuple[float, ...]]]:
    """NoiseProfile, pairs (S, O) with variance S x + O -> shot and read of the cell; None if it is unusable.

    There is one pair for all planes, or one for each of three, or, as some phones write it, one for each place of the cell.
    """
    if not profile:
        return None
    pairs = np.reshape(profile, (-1, 2)) if len(profile) in (2, 6, 8) else np.zeros((0, 2))
    good = len(pairs) and np.isfinite(pairs).all() and (pairs[:, 0] >= 0).all() and (np.abs(pairs) <= 1).all()
    if not good or (pairs.clip(min=0).sum(axis=1) <= 0).any():  # no sensor is without noise
        notes.append('its NoiseProfile is unusable (zeros, or invalid values); it counts as missing')
        return None
    chosen = {1: [0] * 4, 3: [planes['rgb'.index(letter)] for letter in cfa], 4: range(4)}[len(pairs)]
    # Fitted offsets may lie a little below zero.
    return (tuple(float(pairs[k][0]) for k in chosen), tuple(math.sqrt(max(float(pairs[k][1]), 0)) for k in chosen))


def read_pixel_aspect(directory: Directory, notes: list[str]) -> float:
    """Width of a pixel by its height."""
    scale = directory.numbers(t.DEFAULT_SCALE)
    if not scale:
        return 1.0
    if len(scale) != 2 or not all(math.isfinite(side) and 0 < side <= 16 for side in scale):
        notes.append('its DefaultScale is invalid; pixels are assumed to be square')
        return 1.0
    return float(scale[0] / scale[1])


def read_default_crop(directory: Directory, size: tuple[int, int], notes: list[str]) -> Optional[tuple[int, int, int, int]]:
    """(top, left, height, width) of the final picture in the active area; None if it is all of it."""
    corner, sides = directory.numbers(t.CROP_ORIGIN), directory.numbers(t.CROP_SIZE)
    if not sides:
        return None
    values = (*(corner or (0, 0)), *sides)
    if len(values) == 4 and all(map(math.isfinite, values)):
        left, top, width, height = (math.floor(value + 0.5) for value in values)
        if top >= 0 and left >= 0 and height > 0 and width > 0 and top + height <= size[0] and left + width <= size[1]:
            return None if (height, width) == size else (top, left, height, width)
    notes.append('its DefaultCropOrigin and DefaultCropSize do not lie within the active area; the picture is not cropped')
    return None
