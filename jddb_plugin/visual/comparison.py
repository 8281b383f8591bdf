"""Side-by-side pictures with a magnified crop."""
from __future__ import annotations

from typing import Mapping, Sequence

import cv2
import numpy as np

from jddb_plugin.checks import ShapeError

_GAP = 8
_CAPTION = 34


def busiest_crop(image: np.ndarray, side: int) -> tuple[int, int]:
    """Corner (y, x) of the ``side`` x ``side`` crop of [H, W, 3] with most detail, away from the border if possible."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = cv2.blur(np.abs(cv2.Laplacian(cv2.GaussianBlur(gray, (0, 0), 1.5), cv2.CV_32F)), (side, side))
    half = side // 2
    inner = detail[half:image.shape[0] - half, half:image.shape[1] - half]
    y, x = np.unravel_index(int(inner.argmax()), inner.shape)
    return int(y), int(x)


def _panel(image: np.ndarray, caption: str, crop: tuple[int, int], side: int) -> np.ndarray:
    """One picture above its magnified crop, with a caption."""
    y, x = crop
    width = image.shape[1]
    zoomed = cv2.resize(image[y:y + side, x:x + side], (width, width), interpolation=cv2.INTER_NEAREST)
    marked = image.copy()
    cv2.rectangle(marked, (x, y), (x + side - 1, y + side - 1), (255, 220, 0), 2)
    title = np.full((_CAPTION, width, 3), 255, np.uint8)
    (text_width, _), _ = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    scale = min(0.6, (width - 8) / max(text_width, 1))
    cv2.putText(title, caption, (4, 23), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
    gap = np.full((_GAP, width, 3), 255, np.uint8)
    return np.concatenate((title, marked, gap, zoomed))


def compare(pictures: Mapping[str, np.ndarray], *, zoom: int = 6, crop: Sequence[int] | None = None) -> np.ndarray:
    """Put pictures of one scene side by side, each above the same magnified crop.

    Args:
        pictures: caption -> RGB [H, W, 3] uint8, all of one size.
        zoom: the crop is about 1/zoom of the width.
        crop: its corner (y, x); the most detailed place of the last picture if None.

    Returns:
        RGB uint8.

    Raises:
        ShapeError: the pictures differ in size.
    """
    sizes = {picture.shape for picture in pictures.values()}
    if len(sizes) != 1:
        raise ShapeError(f'compare: pictures of different size: {sorted(sizes)}.')
    height, width, _ = sizes.pop()
    side = max(8, min(height, width // zoom))
    corner = (crop[0], crop[1]) if crop is not None else busiest_crop(list(pictures.values())[-1], side)
    panels = [_panel(picture, caption, corner, side) for caption, picture in pictures.items()]
    gap = np.full((panels[0].shape[0], _GAP, 3), 255, np.uint8)
    row = [part for panel in panels for part in (panel, gap)][:-1]
    return np.concatenate(row, axis=1)
