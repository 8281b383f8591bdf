"""Black and white levels of a DNG's mosaic, by its tags (DNG specification 1.7.1, "Mapping Raw Values to Linear Reference
Values").

The black level of a sample is BlackLevel, a pattern that repeats from the top left of the active area, plus BlackLevelDeltaH of
its column, plus BlackLevelDeltaV of its row. :class:`CameraMetadata` holds four levels, those of a 2 x 2 cell: their means
over the frame. What a sample's level differs from them is subtracted from the sample itself.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence

import numpy as np

from jddb_plugin.checks import DataError
from jddb_plugin.data import dng_tags as t
from jddb_plugin.data.dng_tags import Mosaic

_LARGEST_PATTERN = 8  # as many as the specification's own reader takes
_FLOAT = 3


@dataclass(frozen=True)
class BlackLevel:
    """Black level of every sample of the active area.

    Attributes:
        pattern: [rows, columns], repeats from the top left.
        by_column, by_row: what is added, [W] and [H]; empty if nothing is.
    """

    pattern: np.ndarray
    by_column: np.ndarray
    by_row: np.ndarray

    def levels(self, first: int, last: int, width: int) -> np.ndarray:
        """Levels [last - first, width] of rows ``first`` to ``last - 1``."""
        rows, columns = self.pattern.shape
        result = self.pattern[np.arange(first, last)[:, None] % rows, np.arange(width) % columns]
        if self.by_row.size:
            result = result + self.by_row[first:last, None]
        return result + self.by_column[:width] if self.by_column.size else result

    def cell(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Mean level of the four places of a cell over an area of ``size``."""
        rows, columns = (np.arange(side) for side in size)
        pattern_rows, pattern_columns = self.pattern.shape
        means = []
        for y in (0, 1):
            for x in (0, 1):
                own_rows, own_columns = rows[y::2], columns[x::2]
                mean = self.pattern[own_rows[:, None] % pattern_rows, own_columns % pattern_columns].mean()
                mean += self.by_row[own_rows].mean() if self.by_row.size else 0
                means.append(float(mean + (self.by_column[own_columns].mean() if self.by_column.size else 0)))
        first, second, third, fourth = means
        return first, second, third, fourth

    @property
    def repeats_as_cell(self) -> bool:
        """Whether the levels are those of a repeating 2 x 2 cell."""
        pattern = np.tile(self.pattern, (2, 2))
        rows, columns = pattern.shape
        return not (np.ptp(pattern.reshape(rows // 2, 2, columns // 2, 2), axis=(0, 2)).any()
                    or any(np.ptp(values[k::2]) for values in (self.by_row, self.by_column) for k in (0, 1) if values.size > k))


def has_black_level(mosaic: Mosaic) -> bool:
    """Whether the mosaic's directory states black levels."""
    return any(code in mosaic.directory for code in (t.BLACK, t.DELTA_H, t.DELTA_V))


def read_black_level(mosaic: Mosaic, size: tuple[int, int], where: str) -> BlackLevel:
    """Of the active area of ``size`` (height, width); 0 where nothing is stated, as the specification has it.

    Four values without a repeat dimension are those of a 2 x 2 cell, one value with a repeat dimension holds throughout.

    Raises:
        DataError: the number of values contradicts the other tags, or values are not finite.
    """
    directory = mosaic.directory
    values = directory.numbers(t.BLACK) or (0,)
    repeat = directory.numbers(t.BLACK_REPEAT) or ((2, 2) if len(values) == 4 else (1, 1))
    if len(repeat) != 2 or not all(isinstance(side, int) and 1 <= side <= _LARGEST_PATTERN for side in repeat):
        raise DataError(f'{where}: BlackLevelRepeatDim {_listed(repeat)}: expected two numbers in 1 .. {_LARGEST_PATTERN}; '
                        'correct the file.')
    rows, columns = map(int, repeat)
    if len(values) == 1:
        values = values * (rows * columns)
    if len(values) != rows * columns:
        raise DataError(f'{where}: BlackLevel holds {len(values)} values, but BlackLevelRepeatDim {rows} x {columns} requires '
                        f'{rows * columns}; correct the file.')
    deltas = []
    for code, name, count in ((t.DELTA_H, 'BlackLevelDeltaH', size[1]), (t.DELTA_V, 'BlackLevelDeltaV', size[0])):
        delta = directory.numbers(code)
        if delta and len(delta) != count:
            raise DataError(f'{where}: {name} holds {len(delta)} values, but the active area has {count} '
                            f'{"columns" if code == t.DELTA_H else "rows"}; correct the file.')
        deltas.append(np.array(delta, dtype=float))
    pattern = np.reshape(np.array(values, dtype=float), (rows, columns))
    if not all(np.isfinite(array).all() for array in (pattern, *deltas)):
        raise DataError(f'{where}: BlackLevel, BlackLevelDeltaH or BlackLevelDeltaV holds values that are not finite; correct '
                        'the file.')
    return BlackLevel(pattern, *deltas)


def read_white_level(mosaic: Mosaic, where: str, notes: list[str]) -> float:
    """WhiteLevel of the mosaic's directory; else the largest value of its bits, or 1 for floating point.

    LinearResponseLimit does not lower it: that is where the response stops being linear, not where it ends.

    Raises:
        DataError: it is not a positive number.
    """
    directory = mosaic.directory
    values = directory.numbers(t.WHITE)
    if not values:
        is_float = directory.number(t.SAMPLE_FORMAT, 1) == _FLOAT
        return 1.0 if is_float else float(2 ** directory.whole(t.BITS, 16) - 1)
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise DataError(f'{where}: WhiteLevel {_listed(values)}: expected a positive number; correct the file.')
    if len(set(values)) > 1:
        notes.append(f'WhiteLevel has {len(values)} values for one plane ({_listed(values)}); the smallest is used')
    return float(min(values))


def subtract_rest(samples: np.ndarray, black: BlackLevel, cell: Sequence[float], white: float) -> Optional[np.ndarray]:
    """Samples [H, W] whose black level is that of their place in ``cell``, row by row; None if it is so already.

    Samples at white or above stay: they are clipped, whatever their black level. Fractions are rounded for integers.
    """
    if black.repeats_as_cell and tuple(cell) == black.cell(samples.shape):
        return None
    result = samples.copy()
    height, width = samples.shape
    means = np.reshape(np.asarray(cell, dtype=float), (2, 2))
    for first in range(0, height, 256):
        last = min(first + 256, height)
        rest = black.levels(first, last, width) - means[np.arange(first, last)[:, None] % 2, np.arange(width) % 2]
        part = samples[first:last]
        moved = part - rest
        if samples.dtype.kind == 'u':
            moved = np.clip(np.rint(moved), 0, np.iinfo(samples.dtype).max)
        result[first:last] = np.where(part >= white, part, moved)
    return result


def _listed(values: Sequence[object]) -> str:
    shown = ' '.join(f'{value:g}' if isinstance(value, float) else str(value) for value in values[:6])
    return shown + (' ...' if len(values) > 6 else '')
