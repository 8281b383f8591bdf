"""Camera files: DNG by its own tags (:mod:`jddb_plugin.data.dng_reader`), all else that LibRaw opens by LibRaw.

Not supported: Quad-Bayer and X-Trans sensors (their cell is not 2 x 2), and files without a mosaic (Foveon, linear DNG,
monochrome sensors); they are refused by name.
"""
from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from jddb_plugin.checks import DataError
from jddb_plugin.data.dng_reader import DngFrame, count_mosaics, read_dng
from jddb_plugin.data.dng_tags import is_dng
from jddb_plugin.data.libraw import open_raw
from jddb_plugin.data.metadata import CFA_PATTERNS, CameraMetadata
from jddb_plugin.data.raw_damage import check_tail, check_whole
from jddb_plugin.data.raw_shots import count_shots
from jddb_plugin.data.tiff_tags import FileContent, parse_tiff

_PERIOD = 12  # a multiple of all patterns' periods: 2 (Bayer), 4 (Quad-Bayer), 6 (X-Trans)
# LibRaw's "flip" -> EXIF orientation.
_ORIENTATION = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7, 90: 6, 180: 3, 270: 8}


def count_frames(path: Path) -> int:
    """How many mosaics a camera file holds; 1 if the file does not state it.

    Raises:
        DataError: it cannot be read.
    """
    with _one_line(path):
        content = FileContent(path)
        directories = parse_tiff(content)
        return max(count_mosaics(directories), 1) if is_dng(directories) else count_shots(content)


def read_camera_file(path: Path, number: Optional[int] = None) -> DngFrame:
    """Visible mosaic and metadata, not yet checked.

    Args:
        path: the file.
        number: which of several mosaics; None is the only one.

    Raises:
        DataError: it cannot be read, is damaged, is not a Bayer mosaic, holds several where one is expected, or its colors are
            unknown.
    """
    with _one_line(path):
        content = FileContent(path)
        if content[:4] == b'FOVb':
            raise DataError(f'{path}: is a Foveon file (.x3f): its sensor measures all colors at every pixel, so it holds no '
                            'mosaic.')
        directories = parse_tiff(content)
        check_whole(path, content, directories)
        if is_dng(directories):
            check_number(path, number, count_mosaics(directories))
            frame = read_dng(path, directories, number or 0)
        else:
            check_number(path, number, count_shots(content))
            with open_raw(path, shot=number or 0) as raw:
                frame = _read(raw, path)
        levels = min(frame.metadata.black_level), min(frame.metadata.white_level)
        check_tail(path, frame.mosaic, *levels, by_libraw=not frame.is_plain)
        return frame


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn errors of the system, and those that invalid tags cause, into one line."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror or error}).') from error
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f'{path}: its tags are invalid ({type(error).__name__}: {error}); replace it.') from error


def check_number(path: Path, number: Optional[int], total: int) -> None:
    """Raise DataError if there are several mosaics and none is chosen, or one that is not there."""
    if number is None and total > 1:
        raise DataError(f'{path}: holds {total} mosaics (a roll, pixel shift, or several exposures); restore '
                        'them as one burst with --frames-of-file, or convert it to one file for each.')
    if number is not None and not 0 <= number < max(total, 1):
        raise DataError(f'{path}: holds {max(total, 1)} mosaics, counted from 0; number {number} does not exist.')


def _read(raw: Any, path: Path) -> DngFrame:
    where = str(path)
    if raw.raw_type.name != 'Flat' or raw.raw_pattern is None:
        raise DataError(f'{where}: it holds no mosaic (linear DNG, Foveon or monochrome sensor); '
                        'expected samples of a Bayer sensor.')
    channels, cfa = _cell(raw, where)
    notes: list[str] = []
    white = [float(_white(raw, channel)) for channel in channels]
    bits = min(max(int(max(white)).bit_length(), 8), 16)
    matrix = np.asarray(raw.rgb_xyz_matrix, dtype=float)[:3]
    if not np.isfinite(matrix).all() or not np.any(matrix):
        raise DataError(f'{where}: it states no color matrix and LibRaw does not know the camera; '
                        'convert it to a DNG that has ColorMatrix1.')
    metadata = CameraMetadata(
        cfa=cfa, bits=bits, black_level=tuple(float(raw.black_level_per_channel[channel]) for channel in channels),
        white_level=tuple(white), white_balance=_white_balance(raw, where, notes),
        color_matrix=tuple(tuple(float(value) for value in row) for row in matrix),
        orientation=_ORIENTATION.get(raw.sizes.flip, 1), pixel_aspect=_pixel_aspect(raw))
    # Normalization clips samples above white; here they only must not exceed the bits.
    return DngFrame(np.minimum(raw.raw_image_visible, np.uint16(2 ** bits - 1)), metadata, tuple(notes), is_plain=False)


def _cell(raw: Any, where: str) -> tuple[list[int], str]:
    """LibRaw's channel of each position of the cell of the visible area, and the pattern."""
    channels = np.asarray(raw.raw_colors_visible[:_PERIOD, :_PERIOD])
    letters = raw.color_desc.decode(errors='replace').lower()
    cell = channels[:2, :2]
    rows, columns = np.indices(channels.shape) % 2
    cfa = ''.join(letters[channel] if channel < len(letters) else '?' for channel in cell.flat)
    if channels.shape != (_PERIOD, _PERIOD) or not np.array_equal(channels, cell[rows, columns]) or cfa not in CFA_PATTERNS:
        height, width = np.shape(raw.raw_pattern)
        kind = {(4, 4): 'a Quad-Bayer pattern', (6, 6): 'an X-Trans pattern'}.get((height, width), 'not a Bayer pattern')
        raise DataError(f'{where}: its color pattern ({height} x {width}, colors {letters}) is {kind}; expected a Bayer '
                        f"pattern ({', '.join(CFA_PATTERNS)}). Quad-Bayer and X-Trans sensors are not supported, convert the "
                        'file to a Bayer mosaic first.')
    return [int(channel) for channel in cell.flat], cfa


def _white(raw: Any, channel: int) -> int:
    per_channel = raw.camera_white_level_per_channel
    return per_channel[channel] if per_channel and per_channel[channel] > 0 else raw.white_level


def _white_balance(raw: Any, where: str, notes: list[str]) -> tuple[float, ...]:
    """Gains with green 1: the camera's, else those for daylight, which is noted."""
    for gains, is_shot in ((raw.camera_whitebalance, True), (raw.daylight_whitebalance, False)):
        gains = list(gains)[:3]
        if len(gains) == 3 and all(math.isfinite(gain) and gain > 0 for gain in gains):
            if not is_shot:
                notes.append("LibRaw finds no white balance of the shot; developed for daylight")
            return tuple(float(gain / gains[1]) for gain in gains)
    raise DataError(f'{where}: it states no white balance; expected AsShotNeutral, convert it to a DNG that has it.')


def _pixel_aspect(raw: Any) -> float:
    aspect = float(raw.sizes.pixel_aspect)
    return aspect if math.isfinite(aspect) and 1 / 16 <= aspect <= 16 else 1.0
