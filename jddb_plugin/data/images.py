"""Image files: find them, read their headers, decode and encode them."""
from __future__ import annotations

import io
import re
import struct
from pathlib import Path
from typing import IO, Iterable, Optional, Union

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jddb_plugin.checks import DataError

PNG_LEVEL = 1
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by color type; a palette counts as 0
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')


def _imdecode(content: bytes, flags: int) -> Optional[np.ndarray]:
    """Decoded image, or None: OpenCV reports some damage by None and some by an exception."""
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error:
        return None


def decode_srgb(content: Optional[bytes], where: str, *, size: Optional[tuple[int, int]] = None,
                window: Optional[tuple[int, int, int, int]] = None) -> np.ndarray:
    """Decode an image file's bytes to RGB [H, W, 3], uint8 or uint16.

    Args:
        content: of the file.
        where: its name, for messages.
        size: (height, width) that is expected, if known.
        window: (y, x, height, width) of the part to return; all of it if None.

    Raises:
        DataError: ``content`` is empty, not an image, not of 8 or 16 bits, of one channel of 16 bits, or of another size.
    """
    if not content:
        raise DataError(f'{where}: empty or missing; rebuild the data set.')
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION  # not turned by EXIF
    image = _imdecode(content, flags)
    if image is None:
        image = _imdecode(content, cv2.IMREAD_UNCHANGED)  # reads floating point of one channel, too, which cannot become RGB
        if image is None or image.dtype in (np.uint8, np.uint16):
            raise DataError(f'{where}: not a readable image; remove or replace it.')
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f'{where}: expected 8 or 16 bits per channel, got {image.dtype}. A Bayer mosaic must be stored as 16 '
                        'bits, with a metadata.json beside it.')
    if image.dtype == np.uint16 and _is_gray(content):
        raise DataError(f'{where}: has one channel of 16 bits, as Bayer mosaics have, which are no pictures. A mosaic must be a '
                        'TIFF with a metadata.json beside it, see docs/data.md; a gray picture must be stored as RGB.')
    return cv2.cvtColor(_part(image, where, size, window), cv2.COLOR_BGR2RGB)


def _is_gray(content: bytes) -> bool:
    """Whether an image of 16 bits has one channel."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.mode.startswith('I')
    except (OSError, ValueError, SyntaxError):  # Pillow does not read RGB of 16 bits from every kind of file
        return False


def decode_mosaic(content: Optional[bytes], where: str, *, size: Optional[tuple[int, int]] = None,
                  window: Optional[tuple[int, int, int, int]] = None) -> np.ndarray:
    """Decode a single-channel 16-bit image to a Bayer mosaic [H, W], uint16, samples as they were stored.

    Args:
        content, where, size, window: as in :func:`decode_srgb`.

    Raises:
        DataError: ``content`` is empty, not an image, not of one channel of 16 bits, or of another size.
    """
    if not content:
        raise DataError(f'{where}: empty or missing; rebuild the data set.')
    image = _imdecode(content, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DataError(f'{where}: not a readable image; rebuild the data set.')
    if image.ndim != 2 or image.dtype != np.uint16:
        raise DataError(f'{where}: expected a Bayer mosaic (one channel of 16 bits), got {image.dtype} {list(image.shape)}; '
                        'rebuild the data set.')
    return _part(image, where, size, window)


def _part(image: np.ndarray, where: str, size: Optional[tuple[int, int]],
          window: Optional[tuple[int, int, int, int]]) -> np.ndarray:
    if size is not None and image.shape[:2] != size:
        raise DataError(f'{where}: is {image.shape[1]} x {image.shape[0]}, expected {size[1]} x {size[0]}.')
    if window is None:
        return image
    y, x, height, width = window
    return image[y:y + height, x:x + width]


def encode_png(image: np.ndarray, where: str) -> bytes:
    """PNG of RGB [H, W, 3] (uint8 or uint16) or of a Bayer mosaic [H, W] (uint16).

    Raises:
        DataError: an image of another shape or type.
    """
    good = image.dtype in (np.uint8, np.uint16) if image.ndim == 3 else image.dtype == np.uint16
    if image.ndim not in (2, 3) or image.ndim == 3 and image.shape[2] != 3 or not good:
        raise DataError(f'{where}: expected uint8 or uint16 RGB [H, W, 3] or a uint16 mosaic [H, W], '
                        f'got {image.dtype} {list(image.shape)}.')
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    ok, png = cv2.imencode('.png', pixels, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])
    if not ok:
        raise DataError(f'{where}: the frame could not be encoded.')
    return png.tobytes()


def to_tiff(png: bytes, where: str) -> bytes:
    """The same pixels as an uncompressed TIFF: larger, and decoded many times faster.

    Raises:
        DataError: not a readable image.
    """
    image = _imdecode(png, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DataError(f'{where}: not a readable image; remove or replace it.')
    return cv2.imencode('.tiff', image, [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1].tobytes()


def image_suffix(content: bytes) -> str:
    """'.png', or '.tiff' for what :func:`to_tiff` makes."""
    return '.tiff' if content[:4] in (b'II*\0', b'MM\0*') else '.png'


def image_header(content: bytes, where: str) -> tuple[tuple[int, int, int], int]:
    """((height, width, channels), bits per channel) of a PNG's or an uncompressed TIFF's bytes.

    Raises:
        DataError: it is neither.
    """
    if image_suffix(content) == '.tiff':
        image = _imdecode(content, cv2.IMREAD_UNCHANGED)
        if image is None or image.dtype not in (np.uint8, np.uint16):
            raise DataError(f'{where}: not a readable TIFF of 8 or 16 bits; rebuild the data set.')
        return (image.shape[0], image.shape[1], 1 if image.ndim == 2 else image.shape[2]), 8 * image.dtype.itemsize
    if len(content) < 33 or content[:8] != b'\x89PNG\r\n\x1a\n' or content[12:16] != b'IHDR':
        raise DataError(f'{where}: neither a PNG nor a TIFF; rebuild the data set.')
    width, height, bits, color = struct.unpack('>IIBB', content[16:26])
    return (height, width, _PNG_CHANNELS.get(color, 0)), bits


def to_float(image: np.ndarray) -> Tensor:
    """RGB [H, W, 3] of 8 or 16 bit -> float32 tensor [3, H, W] in [0, 1]."""
    scaled = image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))


def natural_key(name: str) -> list[tuple[int, str]]:
    """Key to sort names in natural order, numbers in them by value: 2.png before 10.png."""
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in re.split(r'(\d+)', name)]


def in_order(files: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """Files with one of the suffixes, without hidden ones, in natural order of their names."""
    chosen = [p for p in files if p.suffix.lower() in suffixes and not p.name.startswith('.')]
    return sorted(chosen, key=lambda p: natural_key(p.name))


def list_images(folder: Path) -> list[Path]:
    """Images of a folder in natural order of their names: 2.png before 10.png."""
    return in_order((file for file in folder.iterdir() if file.is_file()), IMAGE_SUFFIXES)


def image_size(file: Union[Path, IO[bytes]], where: str = '') -> tuple[int, int]:
    """(height, width) from the file's header, without decoding it.

    Args:
        file: its path, or an open file.
        where: its name in messages; the path if empty.

    Raises:
        DataError: it is not an image.
    """
    try:
        with Image.open(file) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f'{where or file}: not a readable image; remove or replace it.') from error
