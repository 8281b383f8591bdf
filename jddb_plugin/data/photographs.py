"""Photographs that scikit-image carries, for demos and benchmarks that need nothing else."""
from __future__ import annotations

from pathlib import Path
from typing import Optional

import cv2
import numpy as np
import skimage

from jddb_plugin.data.images import decode_srgb

#: Colour photographs in scikit-image's wheels (not all are in every version).
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
