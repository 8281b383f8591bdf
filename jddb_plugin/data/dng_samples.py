"""Samples of a DNG's mosaic that are stored plainly or by Deflate: integers of 8 to 16 bits, floating point of 16, 24 and 32
bits.

Strips and tiles are read where the tags place them; none may reach beyond the end of the file. LibRaw decodes lossless JPEG.
"""
from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jddb_plugin.checks import DataError
from jddb_plugin.data import dng_tags as t
from jddb_plugin.data.tiff_tags import Directory

NONE, LOSSLESS_JPEG, DEFLATE = 1, 7, 8
_FLOAT = 3
_FILL_ORDER = 266
#: How many samples back the difference of a predictor reaches; the second ones are those of floating point.
_INTEGER_STEPS = {2: 1, 34892: 2, 34893: 4}
_FLOAT_STEPS = {3: 1, 34894: 2, 34895: 4}
_MOST_SAMPLES = 1 << 29


@dataclass(frozen=True)
class Chunk:
    """A strip or tile: its place in the mosaic, and the bytes that hold it.

    Attributes:
        top, left: of its first sample.
        height, width: as it is stored; tiles may reach beyond the mosaic.
        offset, count: of its bytes in the file.
    """

    top: int
    left: int
    height: int
    width: int
    offset: int
    count: int


def mosaic_size(directory: Directory, where: str) -> tuple[int, int]:
    """(height, width) of all samples.

    Raises:
        DataError: not positive, or more than any camera has.
    """
    height, width = directory.number(t.HEIGHT), directory.number(t.WIDTH)
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0 and height * width <= _MOST_SAMPLES):
        raise DataError(f'{where}: ImageWidth {width} and ImageLength {height} are invalid; replace the file.')
    return height, width


def chunks(directory: Directory, where: str) -> list[Chunk]:
    """Strips or tiles of a mosaic, each checked to lie in the file.

    Raises:
        DataError: some are missing, shorter than what they hold, or behind the end of the file.
    """
    height, width = mosaic_size(directory, where)
    is_tiled = t.TILE_OFFSETS in directory
    codes = (t.TILE_OFFSETS, t.TILE_COUNTS) if is_tiled else (t.STRIP_OFFSETS, t.STRIP_COUNTS)
    if is_tiled:
        rows, columns = directory.number(t.TILE_HEIGHT), directory.number(t.TILE_WIDTH)
    else:
        rows, columns = min(directory.number(t.ROWS_PER_STRIP, height), height), width
    if not (isinstance(rows, int) and isinstance(columns, int) and rows > 0 and columns > 0):
        raise DataError(f'{where}: the size of its tiles or strips, {columns} x {rows}, is invalid; replace the file.')
    across, down = -(-width // columns), -(-height // rows)
    offsets, counts = (tuple(map(int, directory.numbers(code))) for code in codes)
    if len(offsets) < across * down or counts and len(counts) < across * down:
        cut = any(code in directory.broken for code in codes)
        raise DataError(f'{where}: {"is truncated: the list of its" if cut else "holds"} {min(len(offsets), len(counts))} of '
                        f'{across * down} {"tiles" if is_tiled else "strips"}; copy it again from the camera.')
    bits, plain = directory.whole(t.BITS, 16), directory.number(t.COMPRESSION, 1) == NONE
    found = []
    for number in range(across * down):
        top, left = number // across * rows, number % across * columns
        stored = rows if is_tiled else min(rows, height - top)
        needed = stored * ((columns * bits + 7) // 8)
        count = counts[number] if counts else 0
        if plain:
            if 0 < count < needed:
                raise DataError(f'{where}: {"tile" if is_tiled else "strip"} {number} holds {count} bytes, but {needed} are '
                                'needed; copy it again from the camera.')
            if bits < 16 and count == 2 * stored * columns:
                raise DataError(f'{where}: BitsPerSample is {bits}, but its {"tiles" if is_tiled else "strips"} hold 16 bits a '
                                'sample; correct the file, or convert it by Adobe DNG Converter.')
            count = needed
        if count <= 0 or offsets[number] + count > len(directory.content):
            raise DataError(f'{where}: is truncated: {"tile" if is_tiled else "strip"} {number} ends at byte '
                            f'{offsets[number] + count}, the file at {len(directory.content)}; copy it again from the camera.')
        found.append(Chunk(top, left, stored, columns, offsets[number], count))
    return found


def is_readable(directory: Directory) -> bool:
    """Whether :func:`read_samples` knows how the samples are stored."""
    if directory.number(t.COMPRESSION, 1) not in (NONE, DEFLATE) or directory.number(_FILL_ORDER, 1) != 1:
        return False
    bits, is_float = directory.number(t.BITS, 16), directory.number(t.SAMPLE_FORMAT, 1) == _FLOAT
    predictor = directory.number(t.PREDICTOR, 1)
    if is_float:
        return bits in (16, 24, 32) and predictor in (1, *_FLOAT_STEPS)
    if directory.number(t.COMPRESSION, 1) == DEFLATE:
        return bits in (8, 16) and predictor in (1, *_INTEGER_STEPS)
    return 8 <= bits <= 16


def read_samples(directory: Directory, where: str) -> np.ndarray:
    """All samples [H, W], as they are stored: uint16, or float32.

    Raises:
        DataError: damaged or truncated.
    """
    bits, is_float = directory.whole(t.BITS, 16), directory.number(t.SAMPLE_FORMAT, 1) == _FLOAT
    parts = chunks(directory, where)
    result = np.zeros(mosaic_size(directory, where), np.float32 if is_float else np.uint16)
    for chunk in parts:
        for top, rows in _rows(directory, chunk, bits, is_float, where):
            height, width = (min(side, end - start) for side, end, start in zip(rows.shape, result.shape, (top, chunk.left)))
            if height > 0:
                result[top:top + height, chunk.left:chunk.left + width] = rows[:height, :width]
    return result


def _rows(directory: Directory, chunk: Chunk, bits: int, is_float: bool, where: str) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, samples) of a chunk, some rows at a time."""
    row_bytes = (chunk.width * bits + 7) // 8
    content = directory.content[chunk.offset:chunk.offset + chunk.count]
    predictor = directory.whole(t.PREDICTOR, 1) if directory.number(t.COMPRESSION, 1) == DEFLATE else 1
    if directory.number(t.COMPRESSION, 1) == DEFLATE:
        try:
            content = zlib.decompressobj().decompress(content, chunk.height * row_bytes)
        except zlib.error as error:
            raise DataError(f'{where}: damaged: its compressed samples cannot be read ({error}); copy it again from the camera.'
                            ) from error
        if len(content) < chunk.height * row_bytes:
            raise DataError(f'{where}: damaged: a strip or tile holds {len(content)} of {chunk.height * row_bytes} bytes; copy '
                            'it again from the camera.')
    lines = np.frombuffer(content, np.uint8, chunk.height * row_bytes).reshape(chunk.height, row_bytes)
    step = max(1, (4 << 20) // row_bytes)
    for first in range(0, chunk.height, step):
        part = lines[first:first + step]
        if is_float:
            yield chunk.top + first, _floats(part, bits, predictor, directory.order)
        else:
            yield chunk.top + first, _integers(part, bits, chunk.width, predictor, directory.order)


def _integers(lines: np.ndarray, bits: int, width: int, predictor: int, order: str) -> np.ndarray:
    if bits == 16:
        values = lines.view(np.dtype(f'{order}u2')).astype(np.uint16)
    elif bits == 8:
        values = lines
    else:
        return _unpack(lines, bits, width)
    back = _INTEGER_STEPS.get(predictor)
    return (values if back is None else _sums(values, back)).astype(np.uint16)


def _unpack(lines: np.ndarray, bits: int, width: int) -> np.ndarray:
    """Packed samples, the highest bit first; rows begin on whole bytes."""
    together = 8 // math.gcd(bits, 8)  # samples that fill whole bytes
    size = together * bits // 8
    groups = -(-width // together)
    padded = np.zeros((len(lines), groups * size + 2), np.uint8)
    padded[:, :lines.shape[1]] = lines
    result = np.empty((len(lines), groups, together), np.uint16)
    for number in range(together):
        byte, bit = divmod(number * bits, 8)
        first, second, third = (padded[:, byte + k:byte + k + (groups - 1) * size + 1:size].astype(np.uint32) for k in range(3))
        word = first << 16 | second << 8 | third
        result[:, :, number] = word >> (24 - bit - bits) & (2 ** bits - 1)
    return result.reshape(len(lines), -1)[:, :width]


def _sums(values: np.ndarray, back: int) -> np.ndarray:
    """Undo differences to the sample ``back`` places before, along rows; values run over as their type does."""
    result = values.copy()
    for start in range(min(back, result.shape[1])):
        np.cumsum(result[:, start::back], axis=1, dtype=result.dtype, out=result[:, start::back])
    return result


def _floats(lines: np.ndarray, bits: int, predictor: int, order: str) -> np.ndarray:
    """Rows of bytes -> float32. With a predictor the bytes of a row lie sorted by their weight, the highest first."""
    size = bits // 8
    back = _FLOAT_STEPS.get(predictor)
    if back is not None:
        lines = _sums(lines, back).reshape(len(lines), size, -1).transpose(0, 2, 1)
        order = '>'
    parts = np.ascontiguousarray(lines).reshape(len(lines), -1, size)
    if size == 3:
        return _float24(parts if order == '>' else parts[:, :, ::-1])
    return parts.view(np.dtype(f'{order}f{size}'))[:, :, 0].astype(np.float32)


def _float24(parts: np.ndarray) -> np.ndarray:
    """Bytes [..., 3], the highest first, of a sign, 7 bits of exponent (bias 63) and 16 bits of fraction -> float32."""
    first, second, third = (parts[..., k].astype(np.uint32) for k in range(3))
    word = first << 16 | second << 8 | third
    exponent, fraction = (word >> 16 & 0x7F).astype(np.int32), (word & 0xFFFF).astype(np.float64) / 65536
    values = np.where(exponent == 0, np.ldexp(fraction, -62), np.ldexp(1 + fraction, exponent - 63))
    values = np.where(exponent == 127, np.where(fraction == 0, np.inf, np.nan), values)
    return np.where(word >> 23, -values, values).astype(np.float32)
