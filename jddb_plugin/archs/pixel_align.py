"""Refined alignment: pyramid of deformable convolutions (section 3.3, eq. 3).

After the pyramid of EDVR (Wang et al., CVPRW 2019), with an offset chain of its own at each level and without
EDVR's cascading stage. Every frame, the reference included, is aligned to the reference.
"""
from __future__ import annotations

from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from basicsr.ops.dcn import ModulatedDeformConvPack
from torch import Tensor, nn

from jddb_plugin.archs.blocks import act, conv, one_by_one
from jddb_plugin.checks import check_choice
from jddb_plugin.ops.deform_conv import BACKENDS, deform_conv2d


class DeformConvPack(ModulatedDeformConvPack):
    """DCNv2 whose offsets come from other features than those it convolves.

    Parameters and names are the toolbox's (``weight``, ``bias``, ``conv_offset``), so state dicts are
    interchangeable; the arithmetic is :func:`jddb_plugin.ops.deform_conv.deform_conv2d`.
    """

    def __init__(self, channels: int, deformable_groups: int, backend: str) -> None:
        check_choice(backend, BACKENDS, 'dcn_backend')
        super().__init__(channels, channels, 3, stride=1, padding=1, deformable_groups=deformable_groups)
        self.backend = backend

    def forward(self, x: Tensor, feat: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve ``x`` [B, C, H, W] with offsets and mask predicted from ``feat`` of the same shape.

        Returns:
            The result, and the mean absolute offset in pixels (without gradient).
        """
        first, second, mask = self.conv_offset(feat).chunk(3, dim=1)
        offset = torch.cat((first, second), dim=1)
        result = deform_conv2d(
            x, offset, torch.sigmoid(mask), self.weight, self.bias, stride=self.stride, padding=self.padding,
            dilation=self.dilation, deformable_groups=self.deformable_groups, backend=self.backend)
        return result, offset.detach().abs().mean(dtype=torch.float32)


class _Level(nn.Module):
    """One level of the pyramid: offset features from (frame, reference), then a deformable convolution."""

    def __init__(self, channels: int, deformable_groups: int, backend: str, *, coarsest: bool) -> None:
        super().__init__()
        self.offset1 = conv(2 * channels, channels)
        if not coarsest:
            self.offset2 = conv(2 * channels, channels)
            self.join = conv(2 * channels, channels)
        self.offset3 = conv(channels, channels)
        self.dcn = DeformConvPack(channels, deformable_groups, backend)
        self.act = act()

    def forward(self, frames: Tensor, reference: Tensor,
                above: Optional[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """Return (offset features, aligned features before the activation, mean absolute offset).

        Args:
            frames: [B * n, C, H, W].
            reference: [B * n, C, H, W], repeated for each frame.
            above: offset features and aligned features of the coarser level; None at the coarsest.
        """
        offset = self.act(self.offset1(torch.cat((frames, reference), dim=1)))
        if above is None:
            offset = self.act(self.offset3(offset))
            return (offset, *self.dcn(frames, offset))
        # Offsets are in pixels of their own level, so they double with the resolution.
        offset = self.act(self.offset2(torch.cat((offset, _double(above[0]) * 2), dim=1)))
        offset = self.act(self.offset3(offset))
        aligned, size = self.dcn(frames, offset)
        return offset, self.join(torch.cat((aligned, _double(above[1])), dim=1)), size


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)


class PyramidAlign(nn.Module):
    """Align the features of all frames to the reference.

    Args:
        channels: number of features C.
        deformable_groups: groups of offsets, must divide C.
        backend: of the deformable convolutions.
    """

    def __init__(self, channels: int, deformable_groups: int, backend: str) -> None:
        super().__init__()
        self.down2 = nn.Sequential(conv(channels, channels, stride=2), act(), conv(channels, channels), act())
        self.down3 = nn.Sequential(conv(channels, channels, stride=2), act(), conv(channels, channels), act())
        self.level3 = _Level(channels, deformable_groups, backend, coarsest=True)
        self.level2 = _Level(channels, deformable_groups, backend, coarsest=False)
        self.level1 = _Level(channels, deformable_groups, backend, coarsest=False)
        self.act = act()

    def forward(self, features: Tensor, ref_idx: int) -> tuple[Tensor, Tensor]:
        """Align ``features`` [B, N, C, H, W] (H and W multiples of 4) to frame ``ref_idx``.

        Returns:
            Aligned features of the same shape, and the mean absolute offset of levels 1, 2 and 3 in their pixels.
        """
        reference = self._pyramid(features[:, ref_idx])
        if not one_by_one(features):
            return self._align(features, reference)
        aligned = torch.empty_like(features)
        sizes = []
        for t in range(features.shape[1]):
            aligned[:, t:t + 1], size = self._align(features[:, t:t + 1], reference)
            sizes.append(size)
        return aligned, torch.stack(sizes).mean(dim=0)

    def _pyramid(self, frames1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        frames2 = self.down2(frames1)
        return frames1, frames2, self.down3(frames2)

    def _align(self, features: Tensor, reference: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Align some frames [B, n, C, H, W] to the levels of the reference, [B, C, H, W] at level 1."""
        frames1, frames2, frames3 = self._pyramid(features.flatten(0, 1))
        ref1, ref2, ref3 = (level.repeat_interleave(features.shape[1], dim=0) for level in reference)
        offset, aligned, size3 = self.level3(frames3, ref3, None)
        offset, aligned, size2 = self.level2(frames2, ref2, (offset, self.act(aligned)))
        _, aligned, size1 = self.level1(frames1, ref1, (offset, self.act(aligned)))
        return aligned.unflatten(0, features.shape[:2]), torch.stack((size1, size2, size3))
