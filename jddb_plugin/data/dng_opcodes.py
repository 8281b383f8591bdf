"""Opcodes of a DNG that change its mosaic: GainMap, FixBadPixelsConstant and FixBadPixelsList (DNG specification 1.7.1,
chapter 7).

List 1 counts rows and columns from the first stored sample and works on samples as they are stored; list 2 from the active
area, on values where black is 0 and white 1. All numbers are big-endian, whatever the file's order is. Opcodes that are not
applied are reported by name.
"""
from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

import numpy as np

from jddb_plugin.data import dng_tags as t
from jddb_plugin.data.tiff_tags import Directory

_NAMES = {1: 'WarpRectilinear', 2: 'WarpFisheye', 3: 'FixVignetteRadial', 4: 'FixBadPixelsConstant', 5: 'FixBadPixelsList',
          6: 'TrimBounds', 7: 'MapTable', 8: 'MapPolynomial', 9: 'GainMap', 10: 'DeltaPerRow', 11: 'DeltaPerColumn',
          12: 'ScalePerRow', 13: 'ScalePerColumn', 14: 'WarpRectilinear2'}
_CONSTANT, _LIST, _GAIN_MAP = 4, 5, 9
_HEAD = struct.Struct('>8I')
_MAP = struct.Struct('>2I4dI')
_MOST_POINTS = 1 << 22
#: Offsets of neighbors of the same color, the nearest first: of green, and of red and blue.
_RINGS = (
    (((-1, -1), (-1, 1), (1, -1), (1, 1)), ((0, -2), (0, 2), (-2, 0), (2, 0))),
    (((0, -2), (0, 2), (-2, 0), (2, 0)), ((-2, -2), (-2, 2), (2, -2), (2, 2))),
    *(2 * (tuple((y, x) for y in range(-reach, reach + 1, 2) for x in range(-reach, reach + 1, 2)
                 if max(abs(y), abs(x)) == reach),)
      for reach in (4, 6, 8, 10)))


@dataclass(frozen=True)
class GainMap:
    """Factors for some samples: bilinear between points that lie evenly over the image.

    Attributes:
        area: top, left, bottom, right of what it applies to.
        pitch: every how many rows and columns.
        gains: [V, H] at the points.
        origin, spacing: of the points, down and across, where the image is 1 high and 1 wide.
        size: (height, width) of the image.
    """

    area: tuple[int, int, int, int]
    pitch: tuple[int, int]
    gains: np.ndarray
    origin: tuple[float, float]
    spacing: tuple[float, float]
    size: tuple[int, int]

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Factors [rows, columns] at the centers of samples, whether the map applies to them or not."""
        (top, bottom, down), (left, right, across) = (
            self._between((values + 0.5) / side, *rest)
            for values, side, *rest in zip((rows, columns), self.size, self.origin, self.spacing, self.gains.shape))
        upper, lower = (self.gains[line][:, left] * (1 - across) + self.gains[line][:, right] * across for line in (top, bottom))
        return upper * (1 - down[:, None]) + lower * down[:, None]

    @staticmethod
    def _between(place: np.ndarray, origin: float, spacing: float, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        position = np.clip((place - origin) / spacing, 0, count - 1) if count > 1 and spacing > 0 else np.zeros(len(place))
        before = np.minimum(position.astype(int), max(count - 2, 0))
        return before, np.minimum(before + 1, count - 1), position - before

    def mask(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """[rows, columns], where it applies."""
        down, across = ((values >= low) & (values < high) & ((values - low) % pitch == 0) for values, low, high, pitch in zip(
            (rows, columns), self.area[:2], self.area[2:], self.pitch))
        return down[:, None] & across


@dataclass(frozen=True)
class Shading:
    """Correction of lens shading: the product of some maps.

    Attributes:
        maps: in the order they apply.
        offset: (y, x) of the mosaic's first sample in what the maps count from.
    """

    maps: tuple[GainMap, ...]
    offset: tuple[int, int] = (0, 0)

    @property
    def is_smooth(self) -> bool:
        """Whether each place of a 2 x 2 cell has one smooth field of factors."""
        return all(max(one.pitch) <= 2 for one in self.maps)

    def of_samples(self, first: int, last: int, width: int) -> np.ndarray:
        """Factors [last - first, width] of rows ``first`` to ``last - 1`` of the mosaic."""
        rows, columns = np.arange(first, last) + self.offset[0], np.arange(width) + self.offset[1]
        result = np.ones((len(rows), width))
        for one in self.maps:
            result *= np.where(one.mask(rows, columns), one.at(rows, columns), 1)
        return result

    def of_place(self, place: tuple[int, int], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Factors [rows, columns] that a sample of this place of the cell, 0 or 1 down and across, would get there."""
        rows, columns = rows + self.offset[0], columns + self.offset[1]
        result = np.ones((len(rows), len(columns)))
        for one in self.maps:
            meets = all(pitch == 1 or (start - low) % pitch == 0 for start, low, pitch in zip(
                (place[0] + self.offset[0], place[1] + self.offset[1]), one.area[:2], one.pitch))
            if meets:
                down, across = (rows >= one.area[0]) & (rows < one.area[2]), (columns >= one.area[1]) & (columns < one.area[3])
                inside = down[:, None] & across
                result *= np.where(inside, one.at(rows, columns), 1)
        return result


@dataclass(frozen=True)
class BadPixels:
    """Samples to be replaced by their neighbors: those of one value, or those of a list.

    Attributes:
        constant: the value; None if there is a list.
        points: [N, 2], row and column.
        areas: [N, 4], top, left, bottom, right.
    """

    constant: Optional[int]
    points: np.ndarray
    areas: np.ndarray

    def mask(self, samples: np.ndarray) -> np.ndarray:
        """[H, W], which samples are bad."""
        if self.constant is not None:
            return samples == self.constant
        bad = np.zeros(samples.shape, bool)
        good = (self.points >= 0).all(axis=1) & (self.points < samples.shape).all(axis=1)
        bad[tuple(self.points[good].T)] = True
        for top, left, bottom, right in self.areas:
            bad[max(top, 0):max(bottom, 0), max(left, 0):max(right, 0)] = True
        return bad


@dataclass(frozen=True)
class Opcodes:
    """Opcodes of a file that are applied.

    Attributes:
        bad_pixels: by list 1 and list 2.
        maps: by list 1 and list 2.
    """

    bad_pixels: tuple[tuple[BadPixels, ...], tuple[BadPixels, ...]]
    maps: tuple[tuple[GainMap, ...], tuple[GainMap, ...]]


def read_opcodes(directory: Directory, sizes: tuple[tuple[int, int], tuple[int, int]], notes: list[str]) -> Opcodes:
    """Opcodes of a mosaic's directory.

    Args:
        directory: of the mosaic.
        sizes: (height, width) of all samples, and of the active area.
        notes: gets one line that names the opcodes that are not applied.
    """
    bad: tuple[list[BadPixels], list[BadPixels]] = ([], [])
    maps: tuple[list[GainMap], list[GainMap]] = ([], [])
    skipped = []
    for number, code in enumerate(t.OPCODES):
        try:
            for opcode, content in _split(directory.bytes(code)):
                if opcode == _GAIN_MAP and number < 2:
                    found = _gain_map(content, sizes[number])
                    maps[number].extend([] if found is None else [found])
                elif opcode in (_CONSTANT, _LIST) and number < 2:
                    bad[number].append(_bad_pixels(opcode, content))
                else:
                    skipped.append(f'{_NAMES.get(opcode, f"opcode {opcode}")} (list {number + 1})')
        except (struct.error, ValueError):
            skipped.append(f'the rest of list {number + 1}, which is damaged')
    if skipped:
        notes.append(f'opcodes that are not applied: {", ".join(dict.fromkeys(skipped))}')
    return Opcodes((tuple(bad[0]), tuple(bad[1])), (tuple(maps[0]), tuple(maps[1])))


def _split(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, parameters) of the opcodes of a list."""
    if not content:
        return
    count, = struct.unpack_from('>I', content)
    place = 4
    for _ in range(count):
        opcode, _, _, size = struct.unpack_from('>4I', content, place)
        if place + 16 + size > len(content):
            raise ValueError('truncated')
        yield opcode, content[place + 16:place + 16 + size]
        place += 16 + size


def _gain_map(content: bytes, size: tuple[int, int]) -> Optional[GainMap]:
    """None if it is for planes that a mosaic does not have."""
    top, left, bottom, right, plane, planes, row_pitch, column_pitch = _HEAD.unpack_from(content)
    down, across, *spacing, origin_v, origin_h, map_planes = _MAP.unpack_from(content, _HEAD.size)
    if not (down and across and map_planes and row_pitch and column_pitch and down * across * map_planes <= _MOST_POINTS):
        raise ValueError('no points')
    values = np.frombuffer(content, '>f4', down * across * map_planes, _HEAD.size + _MAP.size).astype(float)
    if not np.isfinite(values).all() or values.min() < 0 or not np.isfinite((*spacing, origin_v, origin_h)).all():
        raise ValueError('no numbers')
    gains = values.reshape(down, across, map_planes)[:, :, 0]
    return None if plane or not planes else GainMap(
        (top, left, bottom, right), (row_pitch, column_pitch), gains, (origin_v, origin_h), tuple(spacing), size)


def _bad_pixels(opcode: int, content: bytes) -> BadPixels:
    empty = np.zeros((0, 2), int), np.zeros((0, 4), int)
    if opcode == _CONSTANT:
        return BadPixels(struct.unpack_from('>2I', content)[0], *empty)
    _, points, areas = struct.unpack_from('>3I', content)
    values = np.frombuffer(content, '>i4', 2 * points + 4 * areas, 12).astype(int)
    return BadPixels(None, values[:2 * points].reshape(-1, 2), values[2 * points:].reshape(-1, 4))


def fix_bad_pixels(samples: np.ndarray, bad: np.ndarray, cfa: str, origin: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Samples [H, W] with the bad ones replaced by the mean of the nearest good ones of their color.

    Args:
        samples: of any type; a copy is returned.
        bad: [H, W], which ones.
        cfa: pattern from ``origin`` on.
        origin: (y, x) of a sample that the pattern begins at.
    """
    rows, columns = np.nonzero(bad)
    result = samples.copy()
    height, width = samples.shape
    places = 2 * ((rows - origin[0]) % 2) + (columns - origin[1]) % 2
    is_green = np.array([letter == 'g' for letter in cfa])[places]
    for ring in _RINGS:
        if not len(rows):
            break
        total, count = np.zeros(len(rows)), np.zeros(len(rows), int)
        for offsets, chosen in zip(ring, (is_green, ~is_green)):
            for y, x in offsets:
                near_rows, near_columns = rows + y, columns + x
                good = chosen & (near_rows >= 0) & (near_rows < height) & (near_columns >= 0) & (near_columns < width)
                good[good] = ~bad[near_rows[good], near_columns[good]]
                total[good] += samples[near_rows[good], near_columns[good]]
                count[good] += 1
        known = count > 0
        values = total[known] / count[known]
        result[rows[known], columns[known]] = np.rint(values) if samples.dtype.kind == 'u' else values
        rows, columns, is_green = rows[~known], columns[~known], is_green[~known]
    return result
