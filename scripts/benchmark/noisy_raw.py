"""Noisy raw bursts for the benchmarks of restoration: a photograph that moves, never zeros or noise alone."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import tifffile
import torch

from jddb_plugin.checks import DataError
from jddb_plugin.data.images import to_float
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.data.photographs import PHOTOGRAPHS, moving_camera, photograph
from jddb_plugin.noise_option import TEST_LEVELS
from jddb_plugin.ops.bayer import mosaic_rgb, unpack
from jddb_plugin.ops.camera import REFERENCE_XYZ_TO_CAM, reference_camera
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.restoration import Burst

#: Noise of all bursts, the paper's high level.
LEVEL = TEST_LEVELS['high']
#: Motion from frame to frame of bursts that are written, in samples of the mosaic (x, y).
STEP = (14, -9)
#: Rows of a mosaic that are made at once.
STRIP = 256
_WHITE = 65535


def some_photograph() -> np.ndarray:
    """The first photograph that this version of scikit-image carries."""
    found = next((image for image in map(photograph, PHOTOGRAPHS) if image is not None), None)
    if found is None:
        raise DataError(f'scikit-image carries none of {", ".join(PHOTOGRAPHS)}; install another version of it.')
    return found


def camera() -> CameraMetadata:
    """Of the released test protocol."""
    reference = reference_camera()
    return CameraMetadata(
        cfa='rggb', bits=16, black_level=(0.0,) * 4, white_level=(float(_WHITE),) * 4,
        white_balance=(float(reference.red_gain), 1.0, float(reference.blue_gain)), color_matrix=REFERENCE_XYZ_TO_CAM,
        noise_shot=(LEVEL[0],) * 4, noise_read=(LEVEL[1],) * 4, source='benchmark')


def _samples(packed: torch.Tensor) -> np.ndarray:
    return (unpack(packed) * _WHITE).round().numpy().astype(np.uint16)


def moving_burst(size: tuple[int, int], frames: int) -> Burst:
    """A burst in memory, of (height, width): a camera that pans over an enlarged photograph, noise by the test protocol."""
    image = some_photograph()
    scale = 1.1 * max(size[0] / image.shape[0], size[1] / image.shape[1])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    clip = moving_camera(image, np.random.default_rng(0), size=size, frames=frames, speed=(size[1] / 160, size[1] / 80))
    clean = (mosaic_rgb(reference_camera().unprocess(to_float(frame))) for frame in clip)
    noisy = (NoiseModel.of(*LEVEL).sample_test_frame(packed, frame_number=k) for k, packed in enumerate(clean, 1))
    return Burst.from_arrays([_samples(packed) for packed in noisy], camera())


def write_burst(folder: Path, size: tuple[int, int], frames: int) -> None:
    """Write TIFF mosaics of (height, width), both even, and their metadata; holds a strip of rows at a time."""
    image = some_photograph()
    height, width = size
    scale = 1.1 * max(height / image.shape[0], width / image.shape[1])
    folder.mkdir(parents=True)
    (folder / 'metadata.json').write_text(camera().to_json())
    for t in range(frames):
        generator = torch.Generator().manual_seed(t)
        mosaic = tifffile.memmap(folder / f'{t}.tif', shape=size, dtype=np.uint16, photometric='minisblack')
        for first in range(0, height, STRIP):
            rows = min(STRIP, height - first)
            matrix = np.array([[scale, 0, t * STEP[0]], [0, scale, t * STEP[1] - first]])
            strip = cv2.warpAffine(image, matrix, (width, rows), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
            packed = mosaic_rgb(reference_camera().unprocess(to_float(strip)))
            mosaic[first:first + rows] = _samples(NoiseModel.of(*LEVEL).sample(packed, generator=generator))
        mosaic.flush()
        del mosaic
