"""The contract of every network that restores a raw burst."""
from __future__ import annotations

from typing import Optional

import torch.nn.functional as F
from torch import Tensor, nn

from jddb_plugin.checks import ShapeError


class BurstNetwork(nn.Module):
    """A network from noisy packed raw frames and their noise maps to linear camera RGB.

    Attributes:
        upscale: pixels of the result per packed pixel, on each axis.
        multiple: height and width of a tile must be multiples of it.
        context: receptive field in packed px on each side of a pixel; None where it is unbounded.
        num_frame: number of frames; None where any number goes.
        aligned_input: whether it expects frames that were aligned before.
        coarse: its coarse alignment stage, if it has one.
    """

    upscale: int = 2
    multiple: int = 4
    context: Optional[int] = None
    num_frame: Optional[int] = None
    aligned_input: bool = True
    coarse: Optional[nn.Module] = None

    def restore(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """Restore the reference frame of tiles [T, N, 8, h, w]: linear camera RGB [T, 3, 2h, 2w]."""
        raise NotImplementedError

    def forward(self, lq: Tensor) -> Tensor:
        """Restore the middle frame of whole bursts [B, N, 8, H, W] of any size: linear camera RGB [B, 3, 2H, 2W]."""
        if lq.ndim != 5 or lq.shape[2] != 8:
            raise ShapeError(f'lq: expected [B, N, 8, H, W] (4 raw planes, 4 noise map planes), got {list(lq.shape)}.')
        height, width = lq.shape[-2:]
        padding = (0, -width % self.multiple, 0, -height % self.multiple)
        padded = F.pad(lq.flatten(0, 1), padding, mode='replicate').unflatten(0, lq.shape[:2])
        restored = self.restore(padded, lq.shape[1] // 2)
        return restored[..., :self.upscale * height, :self.upscale * width]
