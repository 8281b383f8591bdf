"""DNG files, read by their tags; see docs/raw.md for what is supported.

Plain, packed and Deflate samples are read here, of integers and floating point; lossless JPEG is decoded by LibRaw. Levels, white
balance, geometry, noise and opcodes are those of the tags, as the specification has it, never LibRaw's reading of them.
"""
from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

import numpy as np

from jddb_plugin.checks import DataError
from jddb_plugin.data import dng_samples
from jddb_plugin.data import dng_tags as t
from jddb_plugin.data.dng_color import read_color, read_white_balance
from jddb_plugin.data.dng_layout import (
    check_layout,
    read_active_area,
    read_default_crop,
    read_noise,
    read_pattern,
    read_pixel_aspect,
)
from jddb_plugin.data.dng_levels import (
    BlackLevel,
    has_black_level,
    read_black_level,
    read_white_level,
    subtract_rest,
)
from jddb_plugin.data.dng_opcodes import Opcodes, Shading, fix_bad_pixels, read_opcodes
from jddb_plugin.data.dng_tags import Mosaic, compression_name, find_mosaics, largest
from jddb_plugin.data.libraw import open_raw
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.data.raw_damage import check_jpeg
from jddb_plugin.data.tiff_tags import Directory

_FLOAT = 3
_WHITE = 65535
#: Values of tags that make LibRaw take a directory for a small preview.
_HIDDEN = ((t.SUBFILE_TYPE, 1), (t.PHOTOMETRIC, 2), (t.COMPRESSION, 1), (t.WIDTH, 32), (t.HEIGHT, 32), (t.STRIP_OFFSETS, 0),
           (t.TILE_OFFSETS, 0))


@dataclass(frozen=True)
class DngFrame:
    """A mosaic of a DNG with its metadata, not yet checked.

    Attributes:
        mosaic: [H, W] uint16, the active area.
        metadata: of the mosaic.
        notes: tags that are invalid or not supported, one line each, without the file's name.
        shading: lens shading that is not yet corrected; None if there is none.
        is_plain: its samples were read here, not decoded by LibRaw.
    """

    mosaic: np.ndarray
    metadata: CameraMetadata
    notes: tuple[str, ...]
    shading: Optional[Shading] = None
    is_plain: bool = True


def count_mosaics(directories: Sequence[Directory]) -> int:
    """How many mosaics of full resolution a DNG holds."""
    return len(find_mosaics(directories))


def read_dng(path: Path, directories: Sequence[Directory], number: int = 0) -> DngFrame:
    """Read one mosaic of a DNG.

    Args:
        path: the file.
        directories: of it.
        number: which of its mosaics.

    Raises:
        DataError: it holds no mosaic of a Bayer sensor, is damaged, compressed in an unknown way, or its tags are invalid.
    """
    where = str(path)
    mosaics = find_mosaics(directories)
    if not mosaics:
        stored = compression_name(largest(directories))
        raise DataError(f'{where}: it holds no mosaic (linear DNG, Foveon or monochrome sensor; samples stored with {stored}); '
                        'expected samples of a Bayer sensor.')
    mosaic = mosaics[number]
    directory = mosaic.directory
    notes: list[str] = []
    check_layout(directory, where)
    cfa, planes = read_pattern(mosaic, where)
    area = read_active_area(directory, where)
    size = area[2] - area[0], area[3] - area[1]
    samples = _samples(path, mosaic, where)
    opcodes = read_opcodes(directory, (samples.shape, size), notes)
    samples = _first_list(samples, opcodes, cfa, area)
    black, white = _black_level(mosaic, samples, area, where, notes), read_white_level(mosaic, where, notes)
    visible = samples[area[0]:area[2], area[1]:area[3]]
    cell = tuple(max(level, 0.0) for level in black.cell(size))  # metadata hold no level below 0: samples are raised instead
    rest = subtract_rest(visible, black, cell, white)
    visible = visible if rest is None else rest
    for bad in opcodes.bad_pixels[1]:
        visible = fix_bad_pixels(visible, bad.mask(visible), cfa)
    visible, levels, bits = _as_integers(visible, (*cell, white), where)
    color = read_color(mosaic, planes)
    noise = read_noise(mosaic.of_frame(t.NOISE_PROFILE), cfa, planes, notes)
    orientation = mosaic.of_camera(t.ORIENTATION)
    metadata = CameraMetadata(
        cfa=cfa, bits=bits, black_level=levels[:4], white_level=levels[4:] * 4,
        white_balance=read_white_balance(mosaic, color, planes, where, notes),
        color_matrix=_matrix(path, color.for_daylight() if color.lights else None, where),
        noise_shot=noise and noise[0], noise_read=noise and noise[1],
        orientation=int(orientation[0]) if orientation and orientation[0] in range(1, 9) else 1,
        pixel_aspect=read_pixel_aspect(directory, notes), crop=read_default_crop(directory, size, notes))
    shading = Shading(opcodes.maps[1]) if opcodes.maps[1] else None
    return DngFrame(np.minimum(visible, np.uint16(2 ** bits - 1)), metadata, tuple(notes), shading,
                    dng_samples.is_readable(directory))


def _samples(path: Path, mosaic: Mosaic, where: str) -> np.ndarray:
    """All stored samples, linearized."""
    directory = mosaic.directory
    if dng_samples.is_readable(directory):
        samples = dng_samples.read_samples(directory, where)
        table = np.array(directory.numbers(t.LINEARIZATION), np.uint16)
        return table[np.minimum(samples, len(table) - 1)] if table.size and samples.dtype == np.uint16 else samples
    if directory.number(t.COMPRESSION, 1) != dng_samples.LOSSLESS_JPEG or directory.number(t.SAMPLE_FORMAT, 1) == _FLOAT:
        raise DataError(f'{where}: its samples are stored with {compression_name(directory)}, {directory.number(t.BITS, 16)} '
                        'bits, which is not supported; convert it to a DNG without lossy compression (lossless JPEG or none).')
    for chunk in dng_samples.chunks(directory, where):  # refuses what is cut off
        check_jpeg(path, directory.content, chunk.offset, chunk.offset + chunk.count)
    with open_raw(path, content=_only(mosaic)) as raw:
        decoded: Optional[np.ndarray] = None if raw.raw_image is None else raw.raw_image.copy()
    if decoded is None or decoded.shape != dng_samples.mosaic_size(directory, where):
        raise DataError(f'{where}: LibRaw finds another mosaic than its tags name; convert the file by Adobe DNG Converter.')
    return decoded


def _only(mosaic: Mosaic) -> Optional[io.BytesIO]:
    """The file with all other pictures hidden, so that LibRaw decodes this one; None if it is the only large one.

    LibRaw's own choice of a shot counts only in some makers' files.
    """
    directory = mosaic.directory
    own = directory.number(t.WIDTH) * directory.number(t.HEIGHT)
    others = [part for top in (mosaic.main, *mosaic.following) for part in top.walk()
              if part is not directory and part.number(t.WIDTH) * part.number(t.HEIGHT) >= own]
    if not others:
        return None
    content = bytearray(directory.content[:])
    for part in others:
        for code, value in _HIDDEN:
            tag = part.tags.get(code)
            if tag is not None:
                content[tag.place:tag.place + tag.size] = value.to_bytes(tag.size, 'little' if part.order == '<' else 'big')
    return io.BytesIO(content)


def _first_list(samples: np.ndarray, opcodes: Opcodes, cfa: str, area: Sequence[int]) -> np.ndarray:
    """What OpcodeList1 does to the stored samples."""
    for bad in opcodes.bad_pixels[0]:
        samples = fix_bad_pixels(samples, bad.mask(samples), cfa, (area[0], area[1]))
    if opcodes.maps[0]:
        gains = Shading(opcodes.maps[0]).of_samples(0, *samples.shape)
        moved = samples * gains
        samples = np.minimum(np.rint(moved), _WHITE).astype(np.uint16) if samples.dtype.kind == 'u' else moved.astype(np.float32)
    return samples


def _black_level(mosaic: Mosaic, samples: np.ndarray, area: Sequence[int], where: str, notes: list[str]) -> BlackLevel:
    """Black level by the tags; without such tags the mean of the masked areas, if the file names some."""
    size = area[2] - area[0], area[3] - area[1]
    masked = mosaic.directory.numbers(t.MASKED_AREAS)
    if has_black_level(mosaic) or not masked:
        return read_black_level(mosaic, size, where)
    corners = np.array(masked if len(masked) % 4 == 0 else (), dtype=float).reshape(-1, 4)
    total, count = np.zeros((2, 2)), np.zeros((2, 2), int)
    for top, left, bottom, right in corners.astype(int):
        for y in (0, 1):
            for x in (0, 1):
                part = samples[top + (area[0] + y - top) % 2:bottom:2, left + (area[1] + x - left) % 2:right:2]
                total[y, x] += part.sum(dtype=float)
                count[y, x] += part.size
    if not count.all():
        notes.append('its MaskedAreas are invalid; its black level is assumed to be 0')
        return read_black_level(mosaic, size, where)
    return BlackLevel(total / count, np.zeros(0), np.zeros(0))


def _as_integers(samples: np.ndarray, levels: Sequence[float], where: str) -> tuple[np.ndarray, tuple[float, ...], int]:
    """Samples as uint16, levels on their scale, and bits. Floating point is scaled so that white is 65535."""
    white = levels[-1]
    if samples.dtype.kind == 'u' and white <= _WHITE:
        return samples, tuple(levels), min(max(int(white).bit_length(), 8), 16)
    if samples.dtype.kind == 'f' and np.isnan(samples).any():
        raise DataError(f'{where}: damaged: it holds samples that are not numbers (NaN); replace it.')
    result = np.empty(samples.shape, np.uint16)
    for first in range(0, len(samples), 256):
        part = samples[first:first + 256] * (_WHITE / white)
        result[first:first + 256] = np.rint(np.clip(part, 0, _WHITE))
    return result, tuple(level * _WHITE / white for level in levels), 16


def _matrix(path: Path, matrix: Optional[np.ndarray], where: str) -> tuple[tuple[float, ...], ...]:
    """XYZ to camera: the file's, else LibRaw's for this camera."""
    if matrix is None:
        with open_raw(path) as raw:
            matrix = np.asarray(raw.rgb_xyz_matrix, dtype=float)[:3]
    if not np.isfinite(matrix).all() or not np.any(matrix):
        raise DataError(f'{where}: it states no color matrix and LibRaw does not know the camera; convert it to a DNG that has '
                        'ColorMatrix1.')
    return tuple(tuple(float(value) for value in row) for row in matrix)

