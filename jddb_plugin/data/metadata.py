"""Camera metadata of a clip: how the numbers of a mosaic become normalized raw, and normalized raw a picture.

It is stored as JSON under the key ``clip/metadata`` of a burst LMDB, see docs/data.md. Values of the sensor (levels,
noise) belong to the 2x2 cell at the top left of the stored mosaic, row by row, whatever its colors are.
"""
from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from jddb_plugin.checks import DataError, nearest
from jddb_plugin.ops.bayer import demosaic_bilinear, pack
from jddb_plugin.ops.camera import Camera, camera_matrix, exposure_stride
from jddb_plugin.ops.cfa import CFA_PATTERNS, cell_to_rggb, normalize, orient, restore_frame, to_rggb
from jddb_plugin.ops.noise import NoiseModel

FORMAT_VERSION = 1
_LARGEST = 1e6  # no gain or matrix entry of a camera comes near
_WHITE = np.array((0.9505, 1.0, 1.0888))  # XYZ of D65


@dataclass(frozen=True)
class CameraMetadata:
    """What the camera of a clip of Bayer mosaics states.

    Attributes:
        cfa: pattern of the stored mosaic, one of :data:`CFA_PATTERNS`.
        bits: bits per sample, 8 to 16; samples are stored as they are, not scaled up.
        black_level, white_level: of the four samples of a cell, in sample values; black < white < 2 ** bits.
        white_balance: gains of red, green and blue that make gray neutral, green usually 1.
        color_matrix: 3 x 3, from XYZ to the camera's RGB, as a DNG's ColorMatrix.
        noise_shot, noise_read: noise of the four samples of a cell on the scale where black is 0 and white is 1:
            variance = shot * x + read ** 2. None if the source does not state it.
        orientation: as in EXIF, 1 to 8; 1 is upright. Frames are stored as the sensor read them out, not turned.
        source: file or data set that the clip was made from.
        pixel_aspect: width of a pixel by its height; a picture is stretched by it.
        crop: (top, left, height, width) of the final picture in the mosaic, before it is stretched and turned; None is the whole
            mosaic.
    """

    cfa: str
    bits: int
    black_level: tuple[float, ...]
    white_level: tuple[float, ...]
    white_balance: tuple[float, ...]
    color_matrix: tuple[tuple[float, ...], ...]
    noise_shot: Optional[tuple[float, ...]] = None
    noise_read: Optional[tuple[float, ...]] = None
    orientation: int = 1
    source: str = ''
    pixel_aspect: float = 1.0
    crop: Optional[tuple[int, ...]] = None

    def to_json(self) -> str:
        """JSON text, as it is stored."""
        return json.dumps({'format_version': FORMAT_VERSION, 'kind': 'bayer', **dataclasses.asdict(self)})

    def camera(self) -> Camera:
        """Gains relative to green, scalars, and cam2rgb [3, 3], all float32; the brightness gain is 1."""
        red, green, blue = self.white_balance
        return Camera(torch.tensor(1.0), torch.tensor(red / green), torch.tensor(blue / green),
                      camera_matrix(torch.tensor(self.color_matrix, dtype=torch.float64)))

    def noise(self) -> Optional[NoiseModel]:
        """Noise of the planes R, Gr, Gb, B: levels [4], float32; None if it is not stated."""
        if self.noise_shot is None or self.noise_read is None:
            return None
        return NoiseModel(*(torch.tensor(cell_to_rggb(level, self.cfa)) for level in (self.noise_shot, self.noise_read)))

    def normalize(self, mosaic: Tensor) -> Tensor:
        """Mosaics [..., H, W] of pattern rggb, even sides, in sample values -> packed raw [..., 4, H / 2, W / 2] in [0, 1]."""
        black, white = (cell_to_rggb(level, self.cfa) for level in (self.black_level, self.white_level))
        return normalize(pack(mosaic), black, white)

    def crop_within(self, height: int, width: int) -> Optional[tuple[int, ...]]:
        """``crop`` if a mosaic of that size holds it."""
        crop = self.crop
        return crop if crop is not None and crop[0] + crop[2] <= height and crop[1] + crop[3] <= width else None

    def preview(self, mosaic: Tensor) -> Tensor:
        """A picture of a mosaic as it is: demosaicked bilinearly, not denoised.

        Args:
            mosaic: [H, W], as stored, in sample values.

        Returns:
            sRGB with tone curve [3, H, W] in [0, 1], upright (height and width may be swapped); its brightness is chosen so
            that 1 % of the samples are white.
        """
        cropped, origin = to_rggb(mosaic, self.cfa)
        raw = self.normalize(cropped)
        stride = exposure_stride(*raw.shape[-2:])
        camera = self.camera()
        camera = camera.with_gain(camera.auto_exposure(raw[:, ::stride, ::stride]))
        picture = camera.develop(demosaic_bilinear(raw), tone_curve=True)
        return orient(restore_frame(picture, origin, (mosaic.shape[0], mosaic.shape[1])), self.orientation)

    def check(self, where: str) -> CameraMetadata:
        """Return itself.

        Raises:
            DataError: a value is out of range, naming ``where``, the field, what was expected and what to do.
        """
        def fail(field: str, expected: str) -> None:
            raise DataError(f'{where}: metadata field {field}: expected {expected}, got {_short(getattr(self, field))}; '
                            'correct it at the source and rebuild the clip.')

        if self.cfa not in CFA_PATTERNS:
            fail('cfa', f"one of {', '.join(CFA_PATTERNS)}")
        if not _is_whole(self.bits) or not 8 <= self.bits <= 16:
            fail('bits', '8 to 16')
        for field in ('black_level', 'white_level'):
            if not _are_numbers(getattr(self, field), 4) or min(getattr(self, field)) < 0:
                fail(field, 'four numbers, at least 0')
        if any(black >= white for black, white in zip(self.black_level, self.white_level)):
            fail('white_level', f'values above the black level {list(self.black_level)}')
        if max(self.white_level) >= 2 ** self.bits:
            fail('white_level', f'values below {2 ** self.bits}, as there are {self.bits} bits')
        if not _are_numbers(self.white_balance, 3) or min(self.white_balance) < 1 / _LARGEST:
            fail('white_balance', 'three numbers, at least 1e-6')
        if not _is_sequence(self.color_matrix, 3) or not all(_are_numbers(row, 3) for row in self.color_matrix):
            fail('color_matrix', '3 x 3 numbers')
        if not np.linalg.cond(np.array(self.color_matrix, dtype=float)) <= 1e4:  # refuses NaN, too
            fail('color_matrix', 'a matrix that can be inverted')
        if not (np.array(self.color_matrix, dtype=float) @ _WHITE > 1e-6).all():
            fail('color_matrix', 'a matrix that makes white positive red, green and blue')
        if (self.noise_shot is None) != (self.noise_read is None):
            fail('noise_shot', 'both noise_shot and noise_read, or neither')
        for field in ('noise_shot', 'noise_read'):
            value = getattr(self, field)
            if value is not None and (not _are_numbers(value, 4) or min(value) < 0 or max(value) > 1):
                fail(field, 'four numbers in 0 .. 1')
        if not _is_whole(self.orientation) or not 1 <= self.orientation <= 8:
            fail('orientation', '1 to 8')
        if not isinstance(self.source, str):
            fail('source', 'text')
        if not _are_numbers((self.pixel_aspect,), 1) or not 1 / 16 <= self.pixel_aspect <= 16:
            fail('pixel_aspect', 'a number in 1/16 .. 16')
        if self.crop is not None and not (_is_sequence(self.crop, 4) and all(map(_is_whole, self.crop))
                                          and min(self.crop) >= 0 and min(self.crop[2:]) > 0):
            fail('crop', 'top, left, height and width of a part of the mosaic, in whole samples')
        return self


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_sequence(values: Any, count: int) -> bool:
    return isinstance(values, (tuple, list)) and len(values) == count


def _are_numbers(values: Any, count: int) -> bool:
    return _is_sequence(values, count) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST for value in values)


def _short(value: Any) -> str:
    """A value as messages show it: on one line and not long."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # thousands of digits, or of nested lists
        text = type(value).__name__
    return text if len(text) <= 120 else text[:117] + '...'


def parse_metadata(text: str, where: str) -> CameraMetadata:
    """Read JSON that :meth:`CameraMetadata.to_json` or a person wrote.

    Args:
        text: JSON.
        where: file or key, for messages.

    Raises:
        DataError: not JSON, of another version or kind, a field is missing, unknown, of the wrong type or out of range.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f'{where}: not valid JSON ({error}); expected camera metadata, see docs/data.md.') from error
    if not isinstance(content, dict):
        raise DataError(f'{where}: expected a JSON object with camera metadata, got {type(content).__name__}.')
    content = dict(content)
    version, kind = content.pop('format_version', FORMAT_VERSION), content.pop('kind', 'bayer')
    if version != FORMAT_VERSION or kind != 'bayer':
        raise DataError(f'{where}: metadata of version {_short(version)} and kind {_short(kind)}; '
                        f"expected {FORMAT_VERSION} and 'bayer'.")
    fields = {field.name: field for field in dataclasses.fields(CameraMetadata)}
    for name in content:
        if name not in fields:
            raise DataError(f"{where}: unknown metadata field {_short(name)}; {nearest(name, fields)}")
    for name, field in fields.items():
        if name not in content and field.default is dataclasses.MISSING:
            raise DataError(f"{where}: metadata field '{name}' is missing; see docs/data.md.")
    values = {name: _convert(name, value, where) for name, value in content.items()}
    return CameraMetadata(**values).check(where)


def _convert(name: str, value: Any, where: str) -> Any:
    """JSON value -> the field's type."""
    def is_number(x: Any) -> bool:  # JSON's whole numbers may be too large for a float
        return isinstance(x, (int, float)) and not isinstance(x, bool) and -_LARGEST <= x <= _LARGEST

    if name in ('cfa', 'source'):
        good, result = isinstance(value, str), value
    elif name == 'pixel_aspect':
        good, result = is_number(value), value
    elif name == 'crop':
        good = value is None or isinstance(value, list) and all(map(_is_whole, value))
        result = tuple(value) if good and value is not None else None
    elif name in ('bits', 'orientation'):
        good, result = _is_whole(value), value
    elif name == 'color_matrix':
        good = isinstance(value, list) and all(isinstance(row, list) and all(map(is_number, row)) for row in value)
        result = tuple(tuple(map(float, row)) for row in value) if good else None
    elif value is None and name.startswith('noise_'):
        good, result = True, None
    else:
        good = isinstance(value, list) and all(map(is_number, value))
        result = tuple(map(float, value)) if good else None
    if not good:
        kinds = {'cfa': 'text', 'source': 'text', 'bits': 'a whole number', 'orientation': 'a whole number',
                 'color_matrix': 'three lists of three numbers up to 1e6', 'pixel_aspect': 'a number',
                 'crop': 'four whole numbers'}
        kind = kinds.get(name, 'a list of numbers up to 1e6')
        raise DataError(f'{where}: metadata field {name}: expected {kind}, got {_short(value)}.')
    return result
