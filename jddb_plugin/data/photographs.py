"""Photographs that scikit-image contains, and clips made from them, for demos and benchmarks without further data."""
from __future__ import annotations

from pathlib import Path
from typing import Optional

import cv2
import numpy as np
import skimage

from jddb_plugin.data.images import decode_srgb

#: Color photographs in scikit-image's wheels (not all are in every version).
PHOTOGRAPHS = ('chelsea.png', 'coffee.png', 'motorcycle_left.png', 'rocket.jpg', 'hubble_deep_field.jpg', 'ihc.png',
               'retina.jpg')
_LONGEST_SIDE = 640


def photograph(name: str) -> Optional[np.ndarray]:
    """RGB photograph [H, W, 3], uint8, at most 640 px long; None if this version of scikit-image does not carry it."""
    file = Path(skimage.__file__).parent / 'data' / name
    if not file.is_file():
        return None
    image = decode_srgb(file.read_bytes(), str(file))
    scale = _LONGEST_SIDE / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return image


def moving_camera(image: np.ndarray, rng: np.random.Generator, *, size: tuple[int, int], frames: int,
                  speed: tuple[float, float]) -> list[np.ndarray]:
    """Frames seen by a camera that pans over ``image``, turning a little, with a shaking hand.

    The middle frame is the middle of the photograph, give or take the shake. Beyond its borders the photograph is mirrored.

    Args:
        image: RGB [H, W, 3].
        rng: draws direction, speed, turning (up to 0.4 degrees a frame) and shake (0.8 px).
        size: height and width of a frame.
        frames: how many, an odd number.
        speed: slowest and fastest pan, in pixels a frame.
    """
    height, width = size
    angle = rng.uniform(0, 2 * np.pi)
    velocity = rng.uniform(*speed) * np.array([np.cos(angle), np.sin(angle)])
    turning = rng.uniform(-0.4, 0.4)
    center = np.array(image.shape[1::-1]) / 2
    clip = []
    for t in range(frames):
        time = t - frames // 2
        x, y = center + velocity * time + rng.normal(0, 0.8, 2)
        matrix = cv2.getRotationMatrix2D((x, y), turning * time, 1.0)
        matrix[:, 2] += (width / 2 - x, height / 2 - y)
        clip.append(cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT))
    return clip
