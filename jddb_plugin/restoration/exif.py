"""Exif tags of a camera's file that its picture keeps."""
from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, Optional

from PIL import ExifTags, Image, TiffImagePlugin

from jddb_plugin.data.raw_exif import exif_directories
from jddb_plugin.data.tiff_tags import Directory, FileContent

_BASE, _SHOT = ExifTags.Base, ExifTags.IFD.Exif
#: Tags to keep, and TIFF's type of their values: 2 text, 3 and 4 whole numbers, 5 and 10 fractions.
_KEPT = {_BASE.Make: 2, _BASE.Model: 2, _BASE.DateTime: 2, _BASE.Artist: 2, _BASE.Copyright: 2}
_KEPT_OF_SHOT = {
    _BASE.ExposureTime: 5, _BASE.FNumber: 5, _BASE.ISOSpeedRatings: 3, _BASE.DateTimeOriginal: 2, _BASE.OffsetTimeOriginal: 2,
    _BASE.ExposureBiasValue: 10, _BASE.FocalLength: 5, _BASE.FocalLengthIn35mmFilm: 3, _BASE.LensMake: 2, _BASE.LensModel: 2,
}
_LONGEST = 200
#: Tags of Panasonic's files: their version, and ISO.
_PANASONIC_VERSION, _PANASONIC_ISO = 1, 23


def read_exif(path: Optional[Path]) -> Image.Exif:
    """The tags of a camera's file that are kept: camera, lens, time and exposure; not the place.

    Files are not trusted: tags that are damaged, too long or of another type are skipped. Empty for other files.
    """
    kept = Image.Exif()
    if path is None:
        return kept
    try:
        parts = exif_directories(FileContent(path))
    except (OSError, ValueError, struct.error, RecursionError):  # the picture does not depend on it
        return kept
    for tags, target in ((_KEPT, kept), (_KEPT_OF_SHOT, kept.get_ifd(_SHOT))):
        for tag, kind in tags.items():
            for part in parts:
                value = _clean(_value(part, int(tag), kind), kind)
                if value is None and tag == _BASE.ISOSpeedRatings:
                    value = _clean(part.numbers(_PANASONIC_ISO)[:1], kind) if _PANASONIC_VERSION in part else None
                if value is not None:
                    target[int(tag)] = value
                    break
    return kept


def _value(part: Directory, tag: int, kind: int) -> Any:
    return part.text(tag) if kind == 2 else part.numbers(tag)[:1]


def _clean(value: Any, kind: int) -> Any:
    """A value of the type that the tag has, or None."""
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    try:
        if kind == 2:
            text = value.decode('ascii', 'replace') if isinstance(value, bytes) else str(value or '')
            text = ''.join(letter for letter in text.split('\0')[0] if letter.isascii() and letter.isprintable()).strip()
            return text[:_LONGEST] or None
        number = float(value)
        if not math.isfinite(number) or abs(number) > 1e6 or number <= 0 and kind != 10:  # 0 stands for "not known"
            return None
        if kind == 3:
            return int(number) if number < 65536 else None
        return TiffImagePlugin.IFDRational(round(number * 1_000_000), 1_000_000) if abs(number) < 1 else \
            TiffImagePlugin.IFDRational(round(number * 1000), 1000)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None


def tiff_tags(exif: Image.Exif) -> list[tuple[int, int, int, Any, bool]]:
    """The same tags in the form of tifffile, all in one directory, as in TIFF/EP: (code, type, count, value, once)."""
    tags = []
    for kinds, source in ((_KEPT, exif), (_KEPT_OF_SHOT, exif.get_ifd(_SHOT))):
        for tag, kind in kinds.items():
            value = source.get(int(tag))
            if value is None:
                continue
            if kind in (5, 10):
                value = (value.numerator, value.denominator)
            tags.append((int(tag), kind, 0 if kind == 2 else 1, value, True))
    return sorted(tags)


def exif_summary(exif: Image.Exif) -> dict[str, str]:
    """The tags as text for people, by their names."""
    shot = exif.get_ifd(_SHOT)
    make, model = (str(exif.get(tag, '')) for tag in (_BASE.Make, _BASE.Model))
    result = {'Camera': model if model.startswith(make) else f'{make} {model}'.strip(),
              'Lens': str(shot.get(_BASE.LensModel, '')), 'Taken': str(shot.get(_BASE.DateTimeOriginal, ''))}
    exposure, number, length = (shot.get(tag) for tag in (_BASE.ExposureTime, _BASE.FNumber, _BASE.FocalLength))
    if exposure:
        result['Exposure'] = f'1/{1 / float(exposure):.0f} s' if exposure < 0.5 else f'{float(exposure):g} s'
    if number:
        result['Aperture'] = f'f/{float(number):g}'
    if length:
        result['Focal length'] = f'{float(length):g} mm'
    if shot.get(_BASE.ISOSpeedRatings):
        result['ISO'] = str(shot[_BASE.ISOSpeedRatings])
    return {name: value for name, value in result.items() if value}
