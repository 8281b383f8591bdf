"""Rows of linear camera RGB become rows of the picture: brightness, lens shading, color, and the lines that were cropped."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jddb_plugin.checks import DataError
from jddb_plugin.ops.bayer import demosaic_bilinear
from jddb_plugin.ops.camera import exposure_stride
from jddb_plugin.ops.cfa import red_position
from jddb_plugin.restoration.frames import Frames
from jddb_plugin.restoration.picture import FORMATS, Format, quantize
from jddb_plugin.restoration.shading import without_shading


def auto_exposure(frames: Frames) -> float:
    """Gain that makes 1 % of the samples of the noisy, white balanced reference white; at least 1."""
    height, width = frames.packed_size
    stride = exposure_stride(height, width)
    rows = [frames.raw(frames.ref_idx, row, row + 1)[..., ::stride] for row in range(0, height, stride)]
    return frames.reference.camera().auto_exposure(torch.cat(rows, dim=1))


class Developer:
    """Linear camera RGB of the cropped mosaic -> rows of the picture of the whole frame.

    Args:
        frames: of the burst.
        gain: brightness.
        kind: what the picture holds.
    """

    def __init__(self, frames: Frames, gain: float, kind: Format) -> None:
        self.frames, self.kind = frames, kind
        self.camera = frames.reference.camera().with_gain(gain)
        self.size = frames.size
        self.origin = red_position(frames.reference.cfa)
        self.last = self.origin[0] + 2 * frames.packed_size[0]

    def __call__(self, first: int, linear: Tensor) -> list[tuple[int, np.ndarray]]:
        """Develop rows ``first``, ... of the cropped mosaic.

        Args:
            first: number of the first row.
            linear: linear camera RGB [3, rows, W].

        Returns:
            (row, values [rows, W, 3]) of parts of the picture: lines that were cropped to reach rggb repeat the nearest one.

        Raises:
            DataError: a value is not finite.
        """
        if not bool(torch.isfinite(linear).all()):
            raise DataError('the network gave values that are not finite; use precision float32, or other weights.')
        values = self.rgb(without_shading(self.frames, first, linear))
        left = self.origin[1]
        values = np.pad(values, ((0, 0), (left, self.size[1] - left - values.shape[1]), (0, 0)), mode='edge')
        first += self.origin[0]
        parts = [(first, values)]
        if first == self.origin[0] == 1:
            parts.append((0, values[:1]))
        if first + len(values) == self.last < self.size[0]:
            parts.append((self.last, values[-1:]))
        return parts

    def rgb(self, linear: Tensor) -> np.ndarray:
        """[3, h, w] -> [h, w, 3] as the picture holds it."""
        if self.kind.camera:
            image = (linear * self.camera.rgb_gain.to(linear)).clamp(0, 1)
        elif self.kind.linear:
            image = self.camera.develop_linear(linear)
        else:
            image = self.camera.develop(linear, tone_curve=True)
        return quantize(image.permute(1, 2, 0).numpy(), self.kind.dtype)


def develop_srgb(frames: Frames, gain: float, linear: Tensor) -> np.ndarray:
    """Linear camera RGB [3, h, w] of a burst's camera -> sRGB uint8 [h, w, 3] to look at."""
    return Developer(frames, gain, FORMATS['png']).rgb(linear)


def noisy_rows(frames: Frames, first: int, last: int) -> Tensor:
    """Linear camera RGB [3, 2 rows, 2 W] of the noisy reference's packed rows, demosaicked bilinearly."""
    above, below = max(first - 2, 0), min(last + 2, frames.packed_size[0])
    rgb = demosaic_bilinear(frames.raw(frames.ref_idx, above, below))
    return rgb[:, 2 * (first - above):2 * (last - above)]
