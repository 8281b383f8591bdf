"""Lens shading, corrected in the restored picture: corrected in the raw frames, it would make their noise depend on the place."""
from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tifffile
import torch
from torch import Tensor

from jddb_plugin.checks import DataError
from jddb_plugin.data.dng_opcodes import GainMap, Shading
from jddb_plugin.data.raw_reader import RawFrame
from jddb_plugin.ops.cfa import red_position
from jddb_plugin.restoration.bursts import Burst
from jddb_plugin.restoration.frames import Frames

_MAP_NAME, _FRAME_NAME = 'lens_shading_map', 'payload'


def without_shading(frames: Frames, first: int, linear: Tensor) -> Tensor:
    """Rows of a restored picture times the factors of the reference's shading, if it has some.

    Args:
        frames: of the burst.
        first: number of the first row, in pixels of the cropped mosaic.
        linear: linear camera RGB [3, rows, W].
    """
    if frames.shading is None:
        return linear
    top, left = red_position(frames.reference.cfa)
    rows, columns = top + first + np.arange(linear.shape[-2]), left + np.arange(linear.shape[-1])
    places = (((top, left),), ((top, 1 - left), (1 - top, left)), ((1 - top, 1 - left),))
    factors = np.stack([np.mean([frames.shading.of_place(place, rows, columns) for place in color], axis=0) for color in places])
    return linear * torch.from_numpy(factors).to(linear)


def with_maps_beside(burst: Burst) -> Burst:
    """The burst with the lens shading maps beside its frames; a frame's own shading takes precedence.

    Reading a frame without a map raises DataError.
    """
    if not burst.files or burst.is_video:
        raise DataError(f'{burst.where}: --lens-shading needs camera files with lens shading maps beside them; remove it.')

    def read(index: int) -> RawFrame:
        frame = burst.read(index)
        height, width = frame.mosaic.shape
        found = map_beside(burst.files[index], frame.metadata.cfa, (height, width))
        return frame if frame.shading is not None else dataclasses.replace(frame, shading=found)

    return dataclasses.replace(burst, read=read)


def map_beside(file: Path, cfa: str, size: tuple[int, int]) -> Shading:
    """The lens shading map that lies beside a frame of the HDR+ data set: ``lens_shading_map_N000.tiff`` of ``payload_N000.dng``.

    It holds factors of red, of green in even rows, of green in odd rows and of blue, the outermost at the corners of the frame.

    Args:
        file: the frame.
        cfa: pattern of its mosaic.
        size: (height, width) of its mosaic.

    Raises:
        DataError: there is none, or the file is not such a map.
    """
    found = file.with_name(f'{file.stem.replace(_FRAME_NAME, _MAP_NAME, 1)}.tiff')
    if found.stem == file.stem or not found.is_file():
        raise DataError(f'{file}: has no lens shading map beside it; --lens-shading expects {_MAP_NAME}_N000.tiff beside '
                        f'{_FRAME_NAME}_N000.dng. Remove the option.')
    try:
        factors = np.asarray(tifffile.imread(found), dtype=float)
    except Exception as error:  # tifffile raises whatever a damaged file makes it stumble over
        raise DataError(f'{found}: not a readable TIFF ({" ".join(str(error).split())[:160]}); replace it.') from error
    good = factors.ndim == 3 and factors.shape[2] == 4 and min(factors.shape[:2]) > 1
    if not (good and np.isfinite(factors).all() and factors.min() > 0):
        raise DataError(f'{found}: expected positive factors [H, W, 4] of red, two greens and blue, got {list(factors.shape)}.')
    spacing = 1 / (factors.shape[0] - 1), 1 / (factors.shape[1] - 1)
    maps = []
    for place, letter in enumerate(cfa):
        y, x = divmod(place, 2)
        plane = {'r': 0, 'g': 1 + y, 'b': 3}[letter]
        maps.append(GainMap((y, x, *size), (2, 2), factors[:, :, plane], (0.0, 0.0), spacing, size))
    return Shading(tuple(maps))
