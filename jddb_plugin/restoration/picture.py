"""Picture files: strips of rows become PNG or TIFF, upright, with the camera's Exif data.

OpenCV and Pillow encode whole pictures only; a picture of 100 megapixels is written here in strips. PNG is written directly, TIFF
by tifffile.
"""
from __future__ import annotations

import contextlib
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Mapping, Optional

import numpy as np
import tifffile
from PIL import Image, ImageCms

import jddb_plugin
from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.dng_writer import write_linear_dng
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.files import atomic_write
from jddb_plugin.ops.cfa import TURNS
from jddb_plugin.restoration.exif import tiff_tags
from jddb_plugin.restoration.rows import Rows

_STRIP_BYTES = 8 << 20
_LEVEL = 3
_SOFTWARE = f'jddb_plugin {jddb_plugin.__version__}'


@dataclass(frozen=True)
class Format:
    """What a picture file holds.

    Attributes:
        suffix: '.png' or '.tif'.
        dtype: of its samples; integers hold 0 .. 1 as 0 .. their largest value.
        linear: linear sRGB, without tone curve and gamma.
        camera: linear camera RGB, not white balanced: a DNG.
    """

    suffix: str
    dtype: type
    linear: bool = False
    camera: bool = False

    @property
    def values(self) -> str:
        """The color space of the samples, in words."""
        if self.camera:
            return 'linear camera RGB, not white balanced'
        return 'linear sRGB, white balanced' if self.linear else 'sRGB'


#: Formats by their name.
FORMATS = {
    'png': Format('.png', np.uint8), 'png16': Format('.png', np.uint16),
    'tiff': Format('.tif', np.uint8), 'tiff16': Format('.tif', np.uint16),
    'linear16': Format('.tif', np.uint16, linear=True), 'linear32': Format('.tif', np.float32, linear=True),
    'dng': Format('.dng', np.uint16, linear=True, camera=True),
}


def check_suffix(path: Path, name: str) -> None:
    """Raise OptionError unless a file of this name holds the format of that name in :data:`FORMATS`."""
    suffix = FORMATS[name].suffix
    if path.suffix.lower() not in (suffix, suffix.replace('tif', 'tiff')):
        raise OptionError(f'{path}: has the wrong suffix; format {name} needs {suffix}.')


def quantize(image: np.ndarray, dtype: type) -> np.ndarray:
    """Values in [0, 1] as ``dtype``: rounded integers, or floats as they are."""
    if np.dtype(dtype).kind == 'f':
        return image.astype(dtype)
    return np.rint(image * np.iinfo(dtype).max).astype(dtype)


def picture_size(picture: Rows) -> tuple[int, int]:
    """(height, width) of a picture [H, W, 3]."""
    height, width, _ = picture.shape
    return height, width


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(height, width) of a picture of ``size`` when it is turned upright."""
    height, width = size
    return (width, height) if TURNS[orientation][0] else size


def write_picture(path: Path, picture: Rows, kind: Format, *, orientation: int, exif: Image.Exif,
                  description: Mapping[str, object]) -> None:
    """Write a picture, upright; the file is written completely or not at all.

    Args:
        path: file to write; replaced if it exists.
        picture: [H, W, 3] of ``kind.dtype``, not turned.
        kind: format of the file.
        orientation: of the sensor, as in EXIF.
        exif: tags to keep.
        description: stored in the file as JSON.

    Raises:
        DataError: the file cannot be written.
    """
    text = json.dumps({'software': _SOFTWARE, **description})
    size = upright_size(picture_size(picture), orientation)
    with _complete_file(path) as file:
        if kind.suffix == '.png':
            _write_png(file, size, kind, _strips(picture, orientation), exif, text)
        else:
            _write_tiff(file, size, kind, _strips(picture, orientation), exif, text)


def write_dng(path: Path, picture: Rows, metadata: CameraMetadata, *, exif: Image.Exif, description: Mapping[str, object],
              source: Optional[Path] = None) -> None:
    """Write linear camera RGB [H, W, 3], uint16, as a linear DNG; the file is written completely or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    rows = _strip_rows(picture.shape[1], np.uint16)
    with _complete_file(path) as file:
        write_linear_dng(file, _strips(picture, 1), picture_size(picture), rows, metadata, exif=tiff_tags(exif),
                         description=json.dumps({'software': _SOFTWARE, **description}), software=_SOFTWARE, source=source)


@contextlib.contextmanager
def _complete_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which gets its name when the block ends."""
    try:
        with atomic_write(path, durable=True) as partial, open(partial, 'wb') as file:
            yield file
    except OSError as error:
        raise DataError(f'{path}: cannot be written ({error.strerror or error}); free some space or choose another --output.'
                        ) from error


def _strip_rows(width: int, dtype: type) -> int:
    return max(1, _STRIP_BYTES // (width * 3 * np.dtype(dtype).itemsize))


def _strips(picture: Rows, orientation: int) -> Iterator[np.ndarray]:
    """Rows of the upright picture from top to bottom, some at a time."""
    swap, reverse_rows, reverse_columns = TURNS[orientation]
    height, width = upright_size(picture_size(picture), orientation)
    step = _strip_rows(width, picture.dtype.type)
    read = picture.read_columns if swap else picture.read
    for first in range(0, height, step):
        last = min(first + step, height)
        strip = read(height - last, height - first) if reverse_rows else read(first, last)
        if swap:
            strip = strip.transpose(1, 0, 2)
        if reverse_rows:
            strip = strip[::-1]
        yield np.ascontiguousarray(strip[:, ::-1] if reverse_columns else strip)


def _write_png(file: BinaryIO, size: tuple[int, int], kind: Format, strips: Iterator[np.ndarray], exif: Image.Exif,
               text: str) -> None:
    bits = 8 * np.dtype(kind.dtype).itemsize

    def chunk(name: bytes, content: bytes) -> None:
        file.write(struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content)))

    file.write(b'\x89PNG\r\n\x1a\n')
    chunk(b'IHDR', struct.pack('>IIBBBBB', size[1], size[0], bits, 2, 0, 0, 0))
    chunk(b'sRGB', b'\0')
    if tiff_tags(exif):  # an Exif object does not count the tags of the shot
        chunk(b'eXIf', exif.tobytes().removeprefix(b'Exif\0\0'))
    chunk(b'iTXt', b'Description\0\0\0\0\0' + text.encode())
    packer = zlib.compressobj(_LEVEL)
    above = np.zeros((1, size[1] * 3 * bits // 8), np.uint8)
    for strip in strips:
        lines = strip.astype(strip.dtype.newbyteorder('>')).reshape(len(strip), -1).view(np.uint8)
        # Filter 2, "up": each byte as its difference from the one above. Fast in numpy, and compresses well.
        filtered = np.empty((len(lines), lines.shape[1] + 1), np.uint8)
        filtered[:, 0] = 2
        np.subtract(lines, np.concatenate((above, lines[:-1])), out=filtered[:, 1:])
        above = lines[-1:]
        content = packer.compress(filtered.data)
        if content:
            chunk(b'IDAT', content)
    chunk(b'IDAT', packer.flush())
    chunk(b'IEND', b'')


def _write_tiff(file: BinaryIO, size: tuple[int, int], kind: Format, strips: Iterator[np.ndarray], exif: Image.Exif,
                text: str) -> None:
    profile = None if kind.linear else ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    is_integer = np.dtype(kind.dtype).kind == 'u'

    def packed() -> Iterator[bytes]:
        for strip in strips:
            if is_integer:  # TIFF's predictor 2: each sample as its difference from the one before of the same color
                strip = np.concatenate((strip[:, :1], np.diff(strip, axis=1)), axis=1)
            yield zlib.compress(strip.astype(strip.dtype.newbyteorder('<'), copy=False).tobytes(), _LEVEL)

    is_large = size[0] * size[1] * 3 * np.dtype(kind.dtype).itemsize > 3 << 30
    with tifffile.TiffWriter(file, byteorder='<', bigtiff=is_large) as writer:
        writer.write(packed(), shape=(*size, 3), dtype=kind.dtype, photometric='rgb', compression='zlib', predictor=is_integer,
                     rowsperstrip=_strip_rows(size[1], kind.dtype), software=_SOFTWARE, metadata=None,
                     description=text, iccprofile=profile, extratags=tiff_tags(exif))
