"""DNG files for other raw converters: linear DNGs of restored pictures, and mosaics.

Samples are stored uncompressed, which every reader supports. Color tags of the camera's own DNG are copied.
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Optional, Sequence

import numpy as np
import tifffile

from jddb_plugin.data import dng_tags as t
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.data.tiff_tags import Directory, FileContent, parse_tiff

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _SRATIONAL, _DOUBLE = 1, 2, 3, 4, 5, 10, 12
_LINEAR_RAW, _CFA = 34892, 32803
_D65 = 21
#: Tags of a camera's DNG that are copied: the camera's name, its colors, exposure and profile. Not its serial number.
_COPIED = (t.UNIQUE_MODEL, *range(50721, 50727), *range(50727, 50731), 50736, 50778, 50779, 50879, 50931, 50932,
           *range(50936, 50943), 50964, 50965, 50981, 50982, 51109, 51110, *range(52529, 52536))
_REFERENCE = {t.COLOR_MATRIX_1, t.ILLUMINANT_1}

Tags = list[tuple[int, int, int, Any, bool]]


def write_linear_dng(file: BinaryIO, strips: Iterator[np.ndarray], size: tuple[int, int], rows: int,
                     metadata: CameraMetadata, *, exif: Tags, description: str, software: str,
                     source: Optional[Path] = None) -> None:
    """A linear DNG: linear camera RGB of 16 bits, where black is 0 and white 65535, not white balanced, not turned.

    Args:
        file: to write to.
        strips: of rows [rows, W, 3], uint16, from top to bottom.
        size: (height, width) of the picture.
        rows: of each strip but the last.
        metadata: white balance, color matrix, orientation, crop and pixel aspect become tags.
        exif: tags of the shot, as tifffile takes them.
        description: text.
        software: name and version of the writer.
        source: the camera's file; of a DNG the tags of color are copied.
    """
    tags = [*_common_tags(metadata, source), (t.WHITE, _LONG, 3, (65535,) * 3, True), *_geometry_tags(metadata, size)]
    with tifffile.TiffWriter(file, byteorder='<', bigtiff=size[0] * size[1] * 6 > 3 << 30) as writer:
        writer.write((strip.astype('<u2', copy=False) for strip in strips), shape=(*size, 3), dtype=np.uint16,
                     photometric=_LINEAR_RAW, planarconfig='contig', rowsperstrip=rows, software=software,
                     description=description, metadata=None,
                     extratags=_merged(exif, tags))


def write_mosaic_dng(file: BinaryIO, mosaic: np.ndarray, metadata: CameraMetadata, *, software: str,
                     description: str = '') -> None:
    """A DNG of a mosaic [H, W], uint16, with all of its metadata."""
    shot, read = metadata.noise_shot, metadata.noise_read
    tags = [*_common_tags(metadata, None), (t.CFA_DIM, _SHORT, 2, (2, 2), True),
            (t.CFA_PATTERN, _BYTE, 4, bytes('rgb'.index(letter) for letter in metadata.cfa), True),
            (t.PLANE_COLOR, _BYTE, 3, bytes((0, 1, 2)), True), (t.CFA_LAYOUT, _SHORT, 1, 1, True),
            (t.BLACK_REPEAT, _SHORT, 2, (2, 2), True), (t.BLACK, _RATIONAL, 4, _rationals(metadata.black_level), True),
            (t.WHITE, _LONG, 1, int(min(metadata.white_level)), True), *_geometry_tags(metadata, mosaic.shape),
            (271, _ASCII, 0, 'jddb_plugin', True), (272, _ASCII, 0, 'synthetic burst', True)]
    if shot is not None and read is not None:
        pairs = [(shot[metadata.cfa.index(letter)], read[metadata.cfa.index(letter)] ** 2) for letter in 'rgb']
        pairs = pairs[:1] if len(set(pairs)) == 1 else pairs
        tags.append((t.NOISE_PROFILE, _DOUBLE, 2 * len(pairs), tuple(value for pair in pairs for value in pair), True))
    with tifffile.TiffWriter(file, byteorder='<') as writer:
        writer.write(mosaic, photometric=_CFA, software=software, description=description or None, metadata=None,
                     extratags=_merged([], tags))


def _merged(first: Tags, second: Tags) -> Tags:
    """Tags sorted by number, those of ``second`` in place of equal ones of ``first``."""
    return [tag for _, tag in sorted({tag[0]: tag for tag in (*first, *second)}.items())]


def _common_tags(metadata: CameraMetadata, source: Optional[Path]) -> Tags:
    """Version, orientation and color."""
    tags: Tags = [(t.VERSION, _BYTE, 4, bytes((1, 4, 0, 0)), True), (t.BACKWARD_VERSION, _BYTE, 4, bytes((1, 1, 0, 0)), True),
                  (t.ORIENTATION, _SHORT, 1, metadata.orientation, True)]
    copied = _copied_tags(source)
    neutral = np.array([1 / gain for gain in metadata.white_balance])
    own: Tags = [(t.UNIQUE_MODEL, _ASCII, 0, 'jddb_plugin', True), (t.COLOR_MATRIX_1, _SRATIONAL, 9, _rationals(
        [value for row in metadata.color_matrix for value in row]), True), (t.ILLUMINANT_1, _SHORT, 1, _D65, True),
        (t.NEUTRAL, _RATIONAL, 3, _rationals(neutral / neutral.max()), True)]
    codes = {tag[0] for tag in copied}
    if _REFERENCE & codes:  # a matrix and its light belong together
        own = [tag for tag in own if tag[0] not in _REFERENCE]
    if t.WHITE_XY in codes:
        own = [tag for tag in own if tag[0] != t.NEUTRAL]
    return tags + _merged(own, copied)


def _copied_tags(source: Optional[Path]) -> Tags:
    """What a camera's DNG says of its colors; nothing of other files, and of planes in another order."""
    try:
        directories = parse_tiff(FileContent(source)) if source is not None else []
    except OSError:
        return []
    if not t.is_dng(directories):
        return []
    mosaics = t.find_mosaics(directories)
    if not mosaics or (mosaics[0].directory.numbers(t.PLANE_COLOR) or (0, 1, 2)) != (0, 1, 2):
        return []
    return [tag for code in _COPIED for tag in [_copy(directories[0], code)] if tag is not None]


def _copy(directory: Directory, code: int) -> Optional[tuple[int, int, int, Any, bool]]:
    tag = directory.tags.get(code)
    if tag is None:
        return None
    if tag.kind == _ASCII:
        text = directory.text(code)
        return (code, _ASCII, 0, text, True) if text and text.isascii() else None
    if tag.kind in (1, 7):
        return code, tag.kind, tag.count, directory.bytes(code), True
    values = directory.numbers(code)
    if not values or not all(map(math.isfinite, values)):
        return None
    value = _rationals(values) if tag.kind in (_RATIONAL, _SRATIONAL) else values if len(values) > 1 else values[0]
    return code, tag.kind, tag.count, value, True


def _geometry_tags(metadata: CameraMetadata, size: tuple[int, int]) -> Tags:
    top, left, height, width = metadata.crop or (0, 0, *size)
    aspect = metadata.pixel_aspect
    scale = (1.0, 1 / aspect) if aspect < 1 else (aspect, 1.0)
    return [(t.DEFAULT_SCALE, _RATIONAL, 2, _rationals(scale), True), (t.CROP_ORIGIN, _LONG, 2, (left, top), True),
            (t.CROP_SIZE, _LONG, 2, (width, height), True)]


def _rationals(values: Sequence[float]) -> tuple[int, ...]:
    """Numerators and denominators in turn."""
    fractions = [Fraction(float(value)).limit_denominator(1_000_000) for value in values]
    return tuple(number for fraction in fractions for number in (fraction.numerator, fraction.denominator))
