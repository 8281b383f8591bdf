"""Raw files of all kinds: the Bayer mosaic of a frame, and the metadata of its camera.

==============================  =============================================================================
camera files (.dng, .cr2, ...)  DNG by its tags, others by rawpy: :mod:`jddb_plugin.data.raw_camera`
.tif, .tiff                     the mosaic as one gray image, with the metadata as JSON beside it
.mat                            MATLAB 7.3 files of the SC_burst data set: :mod:`jddb_plugin.data.raw_matlab`
==============================  =============================================================================
"""
from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import cv2
import numpy as np

from jddb_plugin.checks import DataError
from jddb_plugin.data.dng_opcodes import Shading
from jddb_plugin.data.folders import CAMERA_SUFFIXES
from jddb_plugin.data.images import in_order
from jddb_plugin.data.metadata import CFA_PATTERNS, CameraMetadata, parse_metadata
from jddb_plugin.data.raw_camera import read_camera_file
from jddb_plugin.data.raw_matlab import read_matlab

TIFF_SUFFIXES = ('.tif', '.tiff')
RAW_SUFFIXES = (*CAMERA_SUFFIXES, *TIFF_SUFFIXES, '.mat')
_SHARED_METADATA = 'metadata.json'
_logger = logging.getLogger('jddb_plugin')


@dataclass(frozen=True)
class RawFrame:
    """One raw frame as the sensor saw it.

    Attributes:
        mosaic: [H, W] uint16, sample values, neither black-subtracted nor scaled by the reader, except that a DNG's black levels
            that differ from row to row are evened out, and its floating point is scaled; at most 2^bits - 1.
        metadata: what the sample values mean; checked.
        notes: tags that are invalid or not supported, one line each, beginning with the file's name.
        shading: lens shading that is not corrected in the samples; None if there is none, or it is corrected.
    """

    mosaic: np.ndarray
    metadata: CameraMetadata
    notes: tuple[str, ...] = ()
    shading: Optional[Shading] = None


def list_raw_files(folder: Union[str, Path]) -> list[Path]:
    """Raw files of a folder in order of their names, numbers in them by value: 2.dng before 10.dng.

    Raises:
        DataError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f'{folder}: no such folder; expected a folder of raw files.')
    return in_order((file for file in folder.iterdir() if file.is_file()), RAW_SUFFIXES)


def read_raw(path: Union[str, Path], *, cfa: Optional[str] = None, number: Optional[int] = None, shading: bool = True,
             log_notes: bool = True) -> RawFrame:
    """Read one raw frame.

    Args:
        path: a file with one of :data:`RAW_SUFFIXES`.
        cfa: pattern of a MATLAB file that does not state its own; other files state theirs and refuse another one.
        number: which mosaic of a file that holds several; None takes the only one, and refuses a file of several.
        shading: correct lens shading (GainMap) in the samples. If false, it is returned beside them, to be corrected after a
            denoiser, whose noise model it would change.
        log_notes: write the notes to the log.

    Raises:
        DataError: the file is missing, of an unknown kind, damaged, not a Bayer mosaic, or lacks metadata; or a package
            that reads it is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in RAW_SUFFIXES:
        raise DataError(f"{path}: expected a raw file ({' '.join(RAW_SUFFIXES)}); convert it to one of these.")
    if not path.is_file():
        raise DataError(f'{path}: no such file; expected a raw file.')
    try:
        str(path).encode()
    except UnicodeEncodeError as error:  # OpenCV would end the process
        raise DataError(f'{path}: its name or that of its folder is not UTF-8; rename it.') from error
    if cfa is not None and cfa not in CFA_PATTERNS:
        raise DataError(f"{path}: cfa: expected one of {', '.join(CFA_PATTERNS)}, got {cfa!r}.")
    notes: tuple[str, ...] = ()
    field = None
    if suffix == '.mat':
        mosaic, metadata = read_matlab(path, cfa)
    elif suffix in TIFF_SUFFIXES:
        mosaic, metadata = _read_tiff(path)
    else:
        frame = read_camera_file(path, number)
        mosaic, metadata, field = frame.mosaic, frame.metadata, frame.shading
        notes = tuple(f'{path}: {note}' for note in frame.notes)
    metadata = dataclasses.replace(metadata, source=metadata.source or path.name).check(str(path))
    if cfa not in (None, metadata.cfa):
        raise DataError(f'{path}: its pattern is {metadata.cfa}, not {cfa}; leave cfa out or correct it.')
    if field is not None and (shading or not field.is_smooth):
        mosaic, metadata = _shaded(mosaic, metadata, field)
        field = None
    for note in notes if log_notes else ():
        _logger.warning('%s', note)
    return RawFrame(mosaic, metadata, notes, field)


def _shaded(mosaic: np.ndarray, metadata: CameraMetadata, field: Shading) -> tuple[np.ndarray, CameraMetadata]:
    """Samples above black times the factors of lens shading; noise times their means."""
    height, width = mosaic.shape
    result = np.empty_like(mosaic)
    black, white = (np.reshape(level, (2, 2)) for level in (metadata.black_level, metadata.white_level))
    total, count = np.zeros(4), np.zeros(4)
    for first in range(0, height, 256):
        last = min(first + 256, height)
        places = np.arange(first, last)[:, None] % 2, np.arange(width) % 2
        gains, level = field.of_samples(first, last, width), black[places]
        corrected = (mosaic[first:last] - level) * gains + level
        # Clipped samples stay clipped.
        corrected = np.where(mosaic[first:last] >= white[places], np.maximum(corrected, white[places]), corrected)
        result[first:last] = np.clip(np.rint(corrected), 0, 2 ** metadata.bits - 1)
        for place in range(4):
            part = gains[(place // 2 - first) % 2::2, place % 2::2]
            total[place] += part.sum()
            count[place] += part.size
    mean = total / np.maximum(count, 1)
    shot, read = (None if level is None else tuple(min(float(value * gain), 1.0) for value, gain in zip(level, mean))
                  for level in (metadata.noise_shot, metadata.noise_read))
    return result, dataclasses.replace(metadata, noise_shot=shot, noise_read=read)


def _read_tiff(path: Path) -> tuple[np.ndarray, CameraMetadata]:
    """A mosaic stored as an ordinary TIFF, with ``<stem>.json`` or ``metadata.json`` in its folder."""
    own, shared = path.with_suffix('.json'), path.with_name(_SHARED_METADATA)
    sidecar = own if own.is_file() else shared
    if not sidecar.is_file():
        required = [field.name for field in dataclasses.fields(CameraMetadata) if field.default is dataclasses.MISSING]
        raise DataError(f"{path}: a TIFF does not state its camera; write {own} or {shared} with the fields "
                        f"{', '.join(required)}, see docs/data.md.")
    try:
        text = sidecar.read_text(encoding='utf-8')
    except (OSError, ValueError) as error:
        raise DataError(f'{sidecar}: cannot be read as text ({error}); expected camera metadata, see docs/data.md.') from error
    metadata = parse_metadata(text, str(sidecar))
    try:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DataError(f'{path}: not a readable TIFF ({error.err}); replace it.') from error
    if image is None:
        raise DataError(f'{path}: not a readable TIFF; replace it.')
    if image.ndim != 2:
        raise DataError(f'{path}: expected a mosaic with one sample per pixel, got {image.shape[2]}; '
                        'store the mosaic before demosaicking.')
    return _whole_samples(image, metadata.bits, str(path)), metadata


def _whole_samples(image: np.ndarray, bits: int, where: str) -> np.ndarray:
    """[H, W] of any type with whole numbers 0 .. 2^bits - 1 -> uint16."""
    if image.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
        raise DataError(f'{where}: expected samples of 8 or 16 bits, or floats with whole numbers, got {image.dtype}.')
    if image.dtype.kind == 'f' and not np.array_equal(image, np.rint(image)):  # NaN is not equal to itself
        raise DataError(f'{where}: expected whole numbers 0 .. {2 ** bits - 1}, got fractions or NaN; '
                        'scale the samples and round them.')
    if image.min() < 0 or image.max() >= 2 ** bits:
        raise DataError(f'{where}: expected samples 0 .. {2 ** bits - 1}, as the metadata state {bits} bits, '
                        f'got {image.min():g} .. {image.max():g}; correct bits.')
    return image.astype(np.uint16)
