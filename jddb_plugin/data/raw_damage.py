"""Truncated camera files: the offsets and lengths in their headers, compared with their size.

LibRaw fills missing samples with zeros or repeats the last block, often without a message. So every container that states offsets
and lengths is first searched for parts that lie behind the end of the file.
"""
from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from jddb_plugin.checks import DataError
from jddb_plugin.data import dng_tags as t
from jddb_plugin.data.tiff_tags import Content, Directory

_JPEG_OFFSET, _JPEG_COUNT = 513, 514
_ELSEWHERE = 0xFFFFFFFF
_DIRECTORY = 0
#: Tags without which a picture would be wrong.
_NEEDED = (330, t.BITS, t.MAKE, t.MODEL, t.CFA_PATTERN, t.PLANE_COLOR, t.LINEARIZATION, t.BLACK_REPEAT, t.BLACK, t.DELTA_H,
           t.DELTA_V, t.WHITE, t.DEFAULT_SCALE, t.CROP_ORIGIN, t.CROP_SIZE, t.COLOR_MATRIX_1, t.COLOR_MATRIX_2, t.CALIBRATION_1,
           t.CALIBRATION_2, t.ANALOG_BALANCE, t.NEUTRAL, t.WHITE_XY, t.ACTIVE_AREA, t.MASKED_AREAS, *t.OPCODES, t.NOISE_PROFILE,
           t.COLOR_MATRIX_3)
# Panasonic's: sensor width and height, packing, and where samples begin.
_RW2_WIDTH, _RW2_HEIGHT, _RW2_FORMAT, _RW2_OFFSET = 2, 3, 45, 280
_RW2_PACKED = 4  # 14 samples in 16 bytes
#: Rows at the end of a mosaic that are checked.
_TAIL_ROWS = 8


def check_whole(path: Path, content: Content, directories: Sequence[Directory]) -> None:
    """Raise DataError if a part that the file's headers name lies behind its end."""
    if not directories and content[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+', b'IIU\0'):
        raise DataError(f'{path}: is truncated: its first directory lies behind the end of the file; copy it again from the '
                        'camera.')
    parts = (_of_directories(path, content, directories), _of_panasonic(directories), _of_fuji(content), _of_boxes(content),
             _of_minolta(content), _of_phase_one(content))
    for what, end in itertools.chain(*parts):
        if end is None or end > len(content):
            place = 'behind its end' if end is None else f'up to byte {end}, but it ends at byte {len(content)}'
            raise DataError(f'{path}: is truncated: its header names {what} {place}; copy it again from the camera.')


def check_tail(path: Path, mosaic: np.ndarray, black: float, white: float, *, by_libraw: bool) -> None:
    """Raise DataError if the last rows of a mosaic look like an interrupted copy.

    Those are rows of 0 in a mosaic with a black level; and, of what LibRaw has decoded, rows that repeat those two above them
    while rows before do not, and that are neither black nor clipped throughout: no sensor gives the same noise twice.
    """
    if len(mosaic) <= 2 * _TAIL_ROWS:
        return
    tail, middle = mosaic[-_TAIL_ROWS:], mosaic[:len(mosaic) // 2]
    if black > 0 and not tail.any() and mosaic.any():
        rows = len(mosaic) - 1 - int(np.flatnonzero(mosaic.any(axis=1))[-1])
        raise DataError(f'{path}: damaged or truncated: its last {rows} rows are 0, below its black level {black:g}; copy it '
                        'again from the camera.')
    if by_libraw and np.array_equal(tail[2:], tail[:-2]) and ((tail > black) & (tail < white)).any() \
            and not np.array_equal(middle[2:], middle[:-2]):
        raise DataError(f'{path}: damaged or truncated: its last rows repeat each other; copy it again from the camera.')


def check_jpeg(path: Path, content: Content, start: int, end: int) -> None:
    """Raise DataError if a JPEG between two places has no end.

    Behind the header of a JPEG the two bytes of its end marker have no other meaning.
    """
    if content[start:start + 2] == b'\xff\xd8' and content.rfind(b'\xff\xd9', start, end) < 0:
        raise DataError(f'{path}: damaged or truncated: the JPEG at byte {start} has no end; copy it again from the camera.')


Part = tuple[str, Optional[int]]


def _of_directories(path: Path, content: Content, directories: Sequence[Directory]) -> Iterator[Part]:
    for directory in (part for top in directories for part in top.walk()):
        for offsets, counts, name in ((t.STRIP_OFFSETS, t.STRIP_COUNTS, 'a strip'), (t.TILE_OFFSETS, t.TILE_COUNTS, 'a tile'),
                                      (_JPEG_OFFSET, _JPEG_COUNT, 'a preview')):
            if offsets in directory.broken or counts in directory.broken:
                yield f'the list of {name}s', None
            for offset, count in zip(directory.numbers(offsets), directory.numbers(counts)):
                if offset != _ELSEWHERE:
                    yield name, int(offset) + int(count)
                    check_jpeg(path, content, int(offset), int(offset) + int(count))
        for code in (_DIRECTORY, *_NEEDED):
            if code in directory.broken:
                yield 'a directory' if code in (_DIRECTORY, 330) else f'the value of tag {code}', None


def _of_panasonic(directories: Sequence[Directory]) -> Iterator[Part]:
    if directories and _RW2_OFFSET in directories[0]:
        directory = directories[0]
        start = int(directory.number(_RW2_OFFSET))
        needed = int(directory.number(t.STRIP_COUNTS))
        if directory.number(_RW2_FORMAT) == _RW2_PACKED:
            samples = int(directory.number(_RW2_WIDTH)) * int(directory.number(_RW2_HEIGHT))
            needed = max(needed, -(-samples // 14) * 16)
        yield 'a strip', start + needed


def _of_fuji(content: Content) -> Iterator[Part]:
    if content[:16] != b'FUJIFILMCCD-RAW ' or len(content) < 108:
        return
    for what, place in (('the preview', 84), ('the header of the samples', 92), ('its samples', 100)):
        offset, size = struct.unpack('>2I', content[place:place + 8])
        yield what, offset + size


def _of_boxes(content: Content) -> Iterator[Part]:
    """ISO media files: Canon CR3."""
    if content[4:8] != b'ftyp':
        return
    place = 0
    while place < len(content):
        if place + 8 > len(content):
            yield 'a box', None
            return
        size, = struct.unpack('>I', content[place:place + 4])
        name = bytes(content[place + 4:place + 8]).decode('ascii', 'replace')
        if size == 1 and place + 16 <= len(content):
            size, = struct.unpack('>Q', content[place + 8:place + 16])
        if size == 0:  # up to the end
            return
        yield f"box '{name}'", place + max(size, 8)
        place += max(size, 8)


def _of_minolta(content: Content) -> Iterator[Part]:
    if content[:4] != b'\0MRM' or len(content) < 48 or content[8:12] != b'\0PRD':
        return
    start, = struct.unpack('>I', content[4:8])
    height, width = struct.unpack('>2H', content[24:28])
    bits = 12 if content[34] == 0x59 else 16
    yield 'a strip', start + 8 + height * width * bits // 8


def _of_phase_one(content: Content) -> Iterator[Part]:
    order = {b'IIII': '<', b'MMMM': '>'}.get(bytes(content[8:12]))
    if order is None or len(content) < 24:
        return
    table = struct.unpack(order + 'I', content[16:20])[0] + 8
    if table + 8 > len(content):
        yield 'the table of its samples', None
        return
    count = min(struct.unpack(order + 'I', content[table:table + 4])[0], 1000)
    for entry in range(table + 8, table + 8 + 16 * count, 16):
        if entry + 16 > len(content):
            yield 'the table of its samples', None
            return
        tag, _, size, offset = struct.unpack(order + '4I', content[entry:entry + 16])
        if tag == 0x10F:
            yield 'its samples', offset + 8 + size
