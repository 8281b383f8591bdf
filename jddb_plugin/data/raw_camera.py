"""Camera files: DNG and what else LibRaw opens.

LibRaw (through rawpy) gives the samples of the visible area, the pattern, levels and orientation. A DNG's own tags are read
besides, as LibRaw does not pass on the noise profile and not every colour matrix.

Not supported: Quad-Bayer and X-Trans sensors (their cell is not 2x2), files without a mosaic (Foveon, linear DNG,
monochrome sensors). Black levels that differ by row or column (BlackLevelDeltaH, BlackLevelDeltaV) are left out, as are
AnalogBalance and CameraCalibration.
"""
from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Sequence

import numpy as np
import tifffile

from jddb_plugin.checks import DataError, optional_package
from jddb_plugin.data.metadata import CFA_PATTERNS, CameraMetadata

# Tags of a DNG by their number (DNG specification 1.7).
_PLANE_COLOR, _BLACK_REPEAT, _BLACK, _NEUTRAL, _ACTIVE_AREA, _NOISE_PROFILE = 50710, 50713, 50714, 50728, 50829, 51041
_MATRICES = ((50721, 50778), (50722, 50779))  # ColorMatrix and CalibrationIlluminant, 1 and 2
_D65 = 21
_MOST_PAGES = 64
_PERIOD = 12  # a multiple of all patterns' periods: 2 (Bayer), 4 (Quad-Bayer), 6 (X-Trans)
# LibRaw's "flip" -> EXIF orientation.
_ORIENTATION = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7, 90: 6, 180: 3, 270: 8}


def read_camera_file(path: Path) -> tuple[np.ndarray, CameraMetadata]:
    """Visible mosaic [H, W] uint16 and metadata, not yet checked.

    Noise is that of a DNG's NoiseProfile, else None. White balance is the camera's, else that for daylight. The colour
    matrix is a DNG's for D65, else its second or first one, else LibRaw's for this camera.

    Raises:
        DataError: LibRaw cannot read it, it is not a Bayer mosaic, or colour is unknown.
    """
    rawpy = optional_package('rawpy', str(path))
    try:
        with rawpy.imread(str(path)) as raw:
            return _read(rawpy, raw, path)
    except rawpy.LibRawError as error:
        raise DataError(f'{path}: LibRaw cannot read it ({_reason(error)}); replace it or convert it to DNG.') from error
    except DataError:
        raise
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:  # what tags of no sense lead to
        raise DataError(f'{path}: its tags make no sense ({type(error).__name__}: {error}); replace it.') from error


def _reason(error: Exception) -> str:
    text = error.args[0] if error.args else type(error).__name__
    return text.decode(errors='replace') if isinstance(text, bytes) else str(text)


def _read(rawpy: ModuleType, raw: Any, path: Path) -> tuple[np.ndarray, CameraMetadata]:
    where = str(path)
    if raw.raw_type != rawpy.RawType.Flat or raw.raw_pattern is None:
        raise DataError(f'{where}: it holds no mosaic (linear DNG, Foveon or monochrome sensor); '
                        'expected samples of a Bayer sensor.')
    channels, cfa = _cell(raw, where)
    mosaic = raw.raw_image_visible
    white = [float(_white(raw, channel)) for channel in channels]
    bits = min(max(int(max(white)).bit_length(), 8), 16)
    tags = _dng_tags(path)
    black = _black_cell(raw, tags) or [float(raw.black_level_per_channel[channel]) for channel in channels]
    colors = tags.get(_PLANE_COLOR, (0, 1, 2))
    planes = [colors.index(color) if color in colors else color for color in range(3)]  # place of R, G, B in the tags
    noise = _noise(tags.get(_NOISE_PROFILE), ['rgb'.index(letter) for letter in cfa], planes)
    metadata = CameraMetadata(
        cfa=cfa, bits=bits, black_level=tuple(black), white_level=tuple(white),
        white_balance=_white_balance(raw, tags.get(_NEUTRAL), planes, where),
        color_matrix=_color_matrix(raw, tags, planes, where),
        noise_shot=noise and noise[0], noise_read=noise and noise[1],
        orientation=_ORIENTATION.get(raw.sizes.flip, 1))
    # Samples above white are clipped by whoever normalises; here they only may not exceed the bits.
    return np.minimum(mosaic, np.uint16(2 ** bits - 1)), metadata


def _cell(raw: Any, where: str) -> tuple[list[int], str]:
    """LibRaw's channel of each position of the cell of the visible area, and the pattern."""
    channels = np.asarray(raw.raw_colors_visible[:_PERIOD, :_PERIOD])
    letters = raw.color_desc.decode(errors='replace').lower()
    cell = channels[:2, :2]
    rows, columns = np.indices(channels.shape) % 2
    cfa = ''.join(letters[channel] if channel < len(letters) else '?' for channel in cell.flat)
    if channels.shape != (_PERIOD, _PERIOD) or not np.array_equal(channels, cell[rows, columns]) or cfa not in CFA_PATTERNS:
        height, width = np.shape(raw.raw_pattern)
        raise DataError(f'{where}: its colour pattern ({height} x {width}, colours {letters}) is not a Bayer pattern '
                        f"({', '.join(CFA_PATTERNS)}); Quad-Bayer and X-Trans sensors are not supported, convert the file "
                        'to a Bayer mosaic first.')
    return [int(channel) for channel in cell.flat], cfa


def _black_cell(raw: Any, tags: dict[int, tuple]) -> Optional[list[float]]:
    """A DNG's black levels of the visible cell where they differ by position, else None.

    They count from the active area; where LibRaw leaves out its first row or column, it does not move them along.
    """
    values, repeat = tags.get(_BLACK, ()), tags.get(_BLACK_REPEAT, (1, 1))
    if repeat not in ((1, 2), (2, 1), (2, 2)) or len(values) != repeat[0] * repeat[1] or len(set(values)) == 1:
        return None
    top, left = tags.get(_ACTIVE_AREA, (0, 0))[:2]
    y, x = raw.sizes.top_margin - top, raw.sizes.left_margin - left
    return [float(values[(y + i) % repeat[0] * repeat[1] + (x + j) % repeat[1]]) for i in (0, 1) for j in (0, 1)]


def _white(raw: Any, channel: int) -> int:
    per_channel = raw.camera_white_level_per_channel
    return per_channel[channel] if per_channel and per_channel[channel] > 0 else raw.white_level


def _white_balance(raw: Any, neutral: Optional[Sequence[float]], planes: Sequence[int], where: str) -> tuple[float, ...]:
    """Gains with green 1: the inverse of a DNG's AsShotNeutral, else LibRaw's."""
    if neutral is not None and len(neutral) == 3 and all(math.isfinite(value) and value > 0 for value in neutral):
        gains = [1 / neutral[plane] for plane in planes]
    else:
        known = [list(gains)[:3] for gains in (raw.camera_whitebalance, raw.daylight_whitebalance)]
        known = [gains for gains in known if all(math.isfinite(gain) and gain > 0 for gain in gains)]
        if not known:
            raise DataError(f'{where}: it states no white balance; expected AsShotNeutral, convert it to a DNG that has it.')
        gains = known[0]
    return tuple(float(gain / gains[1]) for gain in gains)


def _color_matrix(raw: Any, tags: dict[int, tuple], planes: Sequence[int], where: str) -> tuple[tuple[float, ...], ...]:
    """XYZ -> camera RGB."""
    known = [(tags.get(illuminant, (0,))[0] == _D65, tags[matrix]) for matrix, illuminant in _MATRICES
             if len(tags.get(matrix, ())) == 9]
    if known:
        rows = np.reshape(max(reversed(known), key=lambda pair: pair[0])[1], (3, 3))[list(planes)]
    else:
        rows = np.asarray(raw.rgb_xyz_matrix, dtype=float)[:3]
    if not np.isfinite(rows).all() or not np.any(rows):
        raise DataError(f'{where}: it states no colour matrix and LibRaw does not know the camera; '
                        'convert it to a DNG that has ColorMatrix1.')
    return tuple(tuple(float(value) for value in row) for row in rows)


def _noise(profile: Optional[Sequence[float]], colors: Sequence[int],
           planes: Sequence[int]) -> Optional[tuple[tuple[float, ...], tuple[float, ...]]]:
    """NoiseProfile, pairs (S, O) with variance S x + O for all planes or for each -> shot and read of the cell."""
    if profile is None or len(profile) not in (2, 6) or not all(math.isfinite(value) for value in profile):
        return None
    pairs = np.reshape(profile, (-1, 2))
    pairs = [pairs[planes[color]] if len(pairs) == 3 else pairs[0] for color in colors]
    # Fitted offsets may lie a little below zero.
    return tuple(float(shot) for shot, _ in pairs), tuple(math.sqrt(max(float(offset), 0)) for _, offset in pairs)


def _dng_tags(path: Path) -> dict[int, tuple]:
    """A DNG's tags of colour and noise, as numbers, from all its directories; empty for other files.

    Raises:
        DataError: it is a DNG, but its tags cannot be read.
    """
    if path.suffix.lower() != '.dng':
        return {}
    wanted = {_PLANE_COLOR, _BLACK_REPEAT, _BLACK, _NEUTRAL, _ACTIVE_AREA, _NOISE_PROFILE,
              *(tag for pair in _MATRICES for tag in pair)}
    tags: dict[int, tuple] = {}
    try:
        with tifffile.TiffFile(str(path)) as tiff:
            for page in _pages(tiff.pages, set()):
                for tag in page.tags.values():
                    if tag.code in wanted:
                        tags.setdefault(tag.code, _numbers(tag))
    except Exception as error:  # tifffile raises whatever a damaged file makes it stumble over
        reason = ' '.join(str(error).split())[:160] or type(error).__name__
        raise DataError(f'{path}: its DNG tags cannot be read ({reason}); replace it.') from error
    return tags


def _pages(pages: Any, seen: set[int]) -> list:
    """Pages of a TIFF and those below them (SubIFDs), each once: in damaged files they go in circles, or on and on."""
    found = []
    for page in pages:
        if page.offset in seen or len(seen) >= _MOST_PAGES:
            break
        seen.add(page.offset)
        found += [page, *_pages(page.pages or (), seen)]
    return found


def _numbers(tag: tifffile.TiffTag) -> tuple:
    """A tag's values; rational numbers, stored as numerators and denominators in turn, as quotients."""
    values = tag.value
    values = tuple(values) if isinstance(values, (tuple, list, bytes, np.ndarray)) else (values,)
    if tag.dtype in (tifffile.DATATYPE.RATIONAL, tifffile.DATATYPE.SRATIONAL):
        return tuple(top / bottom if bottom else math.nan for top, bottom in zip(values[::2], values[1::2]))
    return values
