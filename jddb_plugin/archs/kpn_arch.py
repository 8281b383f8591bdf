"""Kernel prediction network for burst denoising (Mildenhall et al., CVPR 2018, arXiv 1712.02327).

A U-Net sees all frames and the noise of the reference, and predicts a kernel for every pixel of every frame. The estimate
is the mean of the frames, each filtered by its kernels.

Deviations:
    Frames are packed raw, whose four planes share a pixel's kernel.
    ``init: passthrough`` is for short trainings. It starts with kernels that give half of the reference and half of the mean of
    all frames, and with the weights of He et al. (ICCV 2015): Xavier's halve the signal's variance in each of 24 layers.
"""
from __future__ import annotations

import math
from typing import Any, Mapping

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from jddb_plugin.archs.blocks import bias_of
from jddb_plugin.archs.burst_denoiser import BurstDenoiser
from jddb_plugin.archs.passthrough import check_init
from jddb_plugin.archs.state_shapes import features_of, quotient, shape_of
from jddb_plugin.checks import OptionError


def apply_kernels(frames: Tensor, kernels: Tensor) -> Tensor:
    """Filter every pixel by its own kernel.

    Args:
        frames: [B, N, C, H, W]; outside they are zero.
        kernels: [B, N, K * K, H, W], row by row, K odd.

    Returns:
        [B, N, C, H, W].
    """
    size = round(kernels.shape[2] ** 0.5)
    height, width = frames.shape[-2:]
    padded = F.pad(frames, (size // 2,) * 4)
    result = torch.zeros_like(frames)
    for tap in range(size * size):
        y, x = divmod(tap, size)
        result = torch.addcmul(result, padded[..., y:y + height, x:x + width], kernels[:, :, tap:tap + 1])
    return result


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels, out_channels):
        layers += [nn.Conv2d(channels, out_channels, 3, 1, 1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


@ARCH_REGISTRY.register()
class KPN(BurstDenoiser):
    """The denoiser of KPN+DMN.

    Args:
        num_feat: channels of the U-Net's first scale: it has num_feat times 1, 2, 4, 8 and 8.
        num_frame: frames of a burst.
        kernel_size: side of the kernels, odd.
        init: 'paper' (Xavier), or 'passthrough'.
    """

    multiple = 16

    def __init__(self, num_feat: int = 64, num_frame: int = 5, kernel_size: int = 5, init: str = 'paper') -> None:
        super().__init__('raw')
        check_init(init)
        if num_feat < 1 or num_frame < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise OptionError('network_g: num_feat and num_frame must be at least 1 and kernel_size odd, got '
                              f'{num_feat}, {num_frame} and {kernel_size}.')
        self.num_frame = num_frame
        self.kernel_size = kernel_size
        channels = [num_feat * factor for factor in (1, 2, 4, 8, 8)]
        kernels = num_frame * kernel_size * kernel_size
        self.encode = nn.ModuleList(_block(a, b) for a, b in zip([4 * num_frame + 4, *channels], channels))
        # From the coarsest scale up; the last block already has one channel for each tap, and the finest scale none.
        outputs = (channels[3], channels[2], kernels)
        self.decode = nn.ModuleList(
            _block(below + skip, out) for below, skip, out in zip((channels[4], *outputs), channels[3:0:-1], outputs))
        self.to_kernels = nn.Conv2d(kernels, kernels, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(bias_of(layer))
        if init == 'passthrough':
            self._pass_through(num_frame)
        self.context = 166

    @torch.no_grad()
    def _pass_through(self, num_frame: int) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')
        taps = self.kernel_size * self.kernel_size
        self.to_kernels.weight.mul_(0.1)
        centers = bias_of(self.to_kernels)[taps // 2::taps]
        centers.fill_(0.5)
        centers[num_frame // 2] += 0.5 * num_frame

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of this network."""
        return 'to_kernels.weight' in state

    @classmethod
    def options_of(cls, state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
        """Options that a state dict shows; ``where`` names the file in errors."""
        first, last = 'encode.0.0.weight', 'to_kernels.weight'
        frames = quotient(shape_of(state, first, where)[1] - 4, 4, first, where)
        taps = quotient(shape_of(state, last, where)[0], frames, last, where)
        return {'num_feat': features_of(state, first, where), 'num_frame': frames, 'kernel_size': math.isqrt(taps)}

    def kernels(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """Kernels [T, N, K * K, h, w] of tiles [T, N, 8, h, w]."""
        x = torch.cat((tiles[:, :, :4].flatten(1, 2), tiles[:, ref_idx, 4:]), dim=1)
        scales = []
        for index, block in enumerate(self.encode):
            x = block(F.avg_pool2d(x, 2) if index else x)
            scales.append(x)
        x = scales.pop()
        for block in self.decode:
            x = block(torch.cat((scales.pop(), _double(x)), dim=1))
        return self.to_kernels(_double(x)).unflatten(1, (self.num_frame, -1))

    def frames(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """Every frame's own estimate of the clean reference, packed raw [T, N, 4, h, w]."""
        self.check_tiles(tiles, ref_idx)
        return apply_kernels(tiles[:, :, :4], self.kernels(tiles, ref_idx))

    def predict(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """See :meth:`BurstDenoiser.predict`."""
        return self.frames(tiles, ref_idx).mean(dim=1)

    def training_output(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """The frames' own estimates [T, N, 4, h, w], for the annealed loss; their mean is the result."""
        return self.frames(tiles, ref_idx)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)
