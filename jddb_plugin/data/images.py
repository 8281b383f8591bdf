"""Image files: find them, look at their headers, decode them."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jddb_plugin.checks import DataError

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')


def decode_srgb(content: Optional[bytes], where: str, *, size: Optional[tuple[int, int]] = None,
                window: Optional[tuple[int, int, int, int]] = None) -> np.ndarray:
    """Decode an image file's bytes to RGB [H, W, 3], uint8 or uint16.

    Args:
        content: of the file.
        where: its name, for messages.
        size: (height, width) that is expected, if known.
        window: (y, x, height, width) of the part to return; all of it if None.

    Raises:
        DataError: nothing there, not an image, not 8 or 16 bit, or of another size.
    """
    if not content:
        raise DataError(f'{where}: empty or missing; build the data set anew.')
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION  # as the sensor saw it
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if image is None:
        raise DataError(f'{where}: not a readable image; remove or replace it.')
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f'{where}: expected 8 or 16 bits per channel, got {image.dtype}.')
    if size is not None and image.shape[:2] != size:
        raise DataError(f'{where}: is {image.shape[1]} x {image.shape[0]}, expected {size[1]} x {size[0]}.')
    if window is not None:
        y, x, height, width = window
        image = image[y:y + height, x:x + width]
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def to_float(image: np.ndarray) -> Tensor:
    """RGB [H, W, 3] of 8 or 16 bit -> float32 tensor [3, H, W] in [0, 1]."""
    scaled = image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))


def list_images(folder: Path) -> list[Path]:
    """Images of a folder in order of their names, numbers in them by value: 2.png before 10.png."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith('.')]
    return sorted(files, key=natural_order)


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Sort key of a file's name in which numbers count by value."""
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in re.split(r'(\d+)', path.name)]


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header, without decoding it.

    Raises:
        DataError: it is not an image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f'{path}: not a readable image; remove or replace it.') from error
