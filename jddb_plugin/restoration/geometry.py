"""The final picture of a frame: cropped as its metadata say, and stretched so that its pixels are square."""
from __future__ import annotations

import dataclasses
from typing import Optional

import cv2
import numpy as np

from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.restoration.rows import Rows, spool_folder

_BLOCK_ROWS = 256
#: Bytes that a second picture may take of the memory beside the first one.
_IN_MEMORY = 64 << 20


def final_size(metadata: CameraMetadata, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the picture of a mosaic of ``size``, not yet turned; the shorter direction is made longer."""
    height, width = size if metadata.crop is None else metadata.crop[2:]
    if metadata.pixel_aspect < 1:
        return max(round(height / metadata.pixel_aspect), 1), width
    return height, max(round(width * metadata.pixel_aspect), 1)


def final_picture(picture: Rows, metadata: CameraMetadata) -> Optional[Rows]:
    """The picture [h, w, 3] of ``final_size``, or None if ``picture`` [H, W, 3] needs no change.

    The result lies in a file if ``picture`` does, or if it is large. A crop that does not fit the picture is ignored. Stretching
    is linear between the centers of pixels.
    """
    height, width = picture.shape[:2]
    crop = metadata.crop_within(height, width)
    wanted = final_size(dataclasses.replace(metadata, crop=crop), (height, width))
    top, left, height, width = (0, 0, height, width) if crop is None else crop
    if crop is None and wanted == (height, width):
        return None
    size = int(np.prod((*wanted, *picture.shape[2:]))) * picture.dtype.itemsize
    in_memory = picture.bytes_in_memory and size <= _IN_MEMORY
    result = Rows((*wanted, *picture.shape[2:]), picture.dtype, folder=None if in_memory else spool_folder())
    place = np.clip((np.arange(wanted[0]) + 0.5) * height / wanted[0] - 0.5, 0, height - 1)
    for first in range(0, wanted[0], _BLOCK_ROWS):
        here = place[first:first + _BLOCK_ROWS]
        above = here.astype(int)
        low, high = int(above[0]), min(int(above[-1]) + 2, height)
        rows = picture.read(top + low, top + high)[:, left:left + width]
        if wanted[1] != width:
            rows = cv2.resize(rows, (wanted[1], len(rows)), interpolation=cv2.INTER_LINEAR).reshape(len(rows), wanted[1], -1)
        if wanted[0] != height:
            share = (here - above)[:, None, None]
            above, below = above - low, np.minimum(above + 1, height - 1) - low
            mixed = rows[above] * (1 - share) + rows[below] * share
            rows = mixed.astype(picture.dtype) if picture.dtype.kind == 'f' else np.rint(mixed).astype(picture.dtype)
        result.write(first, np.ascontiguousarray(rows))
    return result
