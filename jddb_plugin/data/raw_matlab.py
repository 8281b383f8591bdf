"""Bursts of the SC_burst data set: MATLAB 7.3 files, which are HDF5.

Layout:
    ``im``: the Bayer mosaic in [0, 1], black already subtracted. MATLAB stores by columns, so HDF5 shows it transposed.
    ``meta``: a struct, here a group, of the tags of the DNG that the frame was: ``ColorMatrix2`` (9 numbers, row by row),
    ``AsShotNeutral`` (3), ``UnknownTags/Value`` (noise profile: shot and read^2, for all planes or for R, G and B), and
    perhaps ``Orientation``. A pattern is looked for as ``cfa`` or ``CFAPattern`` in ``meta`` and beside it.

Verified: files written in this layout are read, with the noise profile as plain numbers or among references to several
unknown tags (as MATLAB stores an array of structs). Not verified: a file of the data set itself, which was not available;
in particular whether it states a pattern, and under which name.
"""
from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Optional

import numpy as np

from jddb_plugin.checks import DataError, optional_package
from jddb_plugin.data.metadata import CFA_PATTERNS, CameraMetadata

_WHITE = 65535
_NOISE_PROFILE = 51041


def read_matlab(path: Path, cfa: Optional[str]) -> tuple[np.ndarray, CameraMetadata]:
    """Mosaic [H, W] uint16, the values of ``im`` times 65535, and metadata, not yet checked.

    Raises:
        DataError: not HDF5, a field is missing or has another shape or range, or the pattern is not known.
    """
    where = str(path)
    h5py = optional_package('h5py', where)
    try:
        with h5py.File(where, 'r') as file:
            return _read(file, where, cfa)
    except DataError:
        raise
    except (OSError, KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:  # what h5py raises
        reason = ' '.join(str(error).split())
        raise DataError(f"{where}: cannot be read as a MATLAB 7.3 file ({reason}); "
                        "replace it, or save it with '-v7.3'.") from error


def _read(file: Any, where: str, cfa: Optional[str]) -> tuple[np.ndarray, CameraMetadata]:
    image = np.asarray(_dataset(file, 'im', where)[()]).T
    if image.ndim != 2 or image.dtype.kind != 'f' or not image.size:
        raise DataError(f"{where}: 'im': expected a mosaic of floats in [0, 1], got {image.dtype} {list(image.shape)}.")
    if not (image.min() >= 0 and image.max() <= 1):  # NaN, too
        raise DataError(f"{where}: 'im': expected values in [0, 1], got {image.min():g} .. {image.max():g}; "
                        'subtract black and divide by white.')
    neutral = _vector(file, 'meta/AsShotNeutral', 3, where)
    if not min(neutral) > 0:
        raise DataError(f"{where}: 'meta/AsShotNeutral': expected three positive numbers, got {neutral}.")
    matrix = _vector(file, 'meta/ColorMatrix2', 9, where)
    cfa = cfa or _pattern(file)
    if cfa is None:
        raise DataError(f"{where}: it does not state its Bayer pattern; give cfa, one of {', '.join(CFA_PATTERNS)}.")
    noise = _noise(file, cfa)
    orientation = file.get('meta/Orientation')
    metadata = CameraMetadata(
        cfa=cfa, bits=16, black_level=(0.0,) * 4, white_level=(float(_WHITE),) * 4,
        white_balance=tuple(neutral[1] / value for value in neutral),
        color_matrix=tuple(tuple(matrix[3 * row:3 * row + 3]) for row in range(3)),
        noise_shot=noise and noise[0], noise_read=noise and noise[1],
        orientation=int(np.ravel(orientation[()])[0]) if orientation is not None else 1)
    return np.rint(image * _WHITE).astype(np.uint16), metadata


def _dataset(file: Any, name: str, where: str) -> Any:
    found = file.get(name)
    if found is None or not hasattr(found, 'dtype'):
        raise DataError(f"{where}: '{name}' is missing; expected a frame of the SC_burst layout, with im and meta.")
    return found


def _vector(file: Any, name: str, count: int, where: str) -> list[float]:
    values = np.ravel(_dataset(file, name, where)[()])
    if values.size != count or values.dtype.kind not in 'fiu':
        raise DataError(f"{where}: '{name}': expected {count} numbers, got {values.dtype} {list(values.shape)}.")
    return [float(value) for value in values]


def _pattern(file: Any) -> Optional[str]:
    """The pattern, from text or from colors 0, 1, 2 of the cell; None if it is not stated."""
    for name in ('cfa', 'CFAPattern', 'meta/cfa', 'meta/CFAPattern'):
        found = file.get(name)
        if found is None or not hasattr(found, 'dtype'):
            continue
        values = [int(value) for value in np.ravel(np.asarray(found[()]).T)] if found.dtype.kind in 'fiu' else []
        # MATLAB's text is a row of character codes.
        text = ''.join('rgb'[v] if v in (0, 1, 2) else chr(v) if 0 < v < 128 else '?' for v in values).lower()
        if text in CFA_PATTERNS:
            return text
    return None


def _noise(file: Any, cfa: str) -> Optional[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Shot and read noise of the cell, None if there is no noise profile."""
    for values in _unknown_tags(file):
        if values.size in (2, 6) and values.dtype.kind == 'f' and np.isfinite(values).all() and (np.abs(values) < 1).all():
            stated = values.reshape(-1, 2)
            pairs = [stated['rgb'.index(letter) if len(stated) == 3 else 0] for letter in cfa]
            # Fitted offsets may lie a little below zero.
            return tuple(float(shot) for shot, _ in pairs), tuple(math.sqrt(max(float(offset), 0)) for _, offset in pairs)
    return None


def _unknown_tags(file: Any) -> list[np.ndarray]:
    """Values of the unknown tags that may be the noise profile: those of that tag if the tags state their numbers."""
    found = file.get('meta/UnknownTags/Value')
    if found is None or not hasattr(found, 'dtype'):
        return []
    values = _resolve(file, found)
    stated = file.get('meta/UnknownTags/ID')
    if stated is not None and hasattr(stated, 'dtype'):
        numbers = [float(np.ravel(number)[0]) if number.size else 0.0 for number in _resolve(file, stated)]
        if _NOISE_PROFILE in numbers and len(numbers) == len(values):
            return [values[numbers.index(_NOISE_PROFILE)]]
    return values


def _resolve(file: Any, dataset: Any) -> list[np.ndarray]:
    """Values of a field of an array of structs, one for each struct; or of a single struct."""
    if dataset.dtype.kind != 'O':
        return [np.ravel(dataset[()])]
    return [np.ravel(file[reference][()]) for reference in np.ravel(dataset[()]) if hasattr(file[reference], 'dtype')]
