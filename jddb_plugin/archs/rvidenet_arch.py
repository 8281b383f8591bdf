"""RViDeNet: raw video denoising (Yue et al., CVPR 2020, arXiv 2003.14013), and RViDeNet* of the paper's tables.

Every frame is denoised by a U-Net first. The four planes then go separately through the same weights: features of the noisy
plane, aligned by offsets predicted from the denoised one, non-local attention, temporal fusion. Their fused features are
concatenated and become the picture.

Deviations:
    Each plane comes with its noise map, and so do the frames that are denoised first: RViDeNet knows no noise level.
    With ``output: rgb`` (RViDeNet*) the trunk's features are enlarged by a PixelShuffle, and the residual is added to the
    bilinearly demosaicked reference. That has 57,928,303 parameters; the paper says 57.98 M.
    ``init: passthrough`` starts as EDVRBurst's does, and is for short trainings.
"""
from __future__ import annotations

from typing import Any, Mapping

import torch
import torch.nn.functional as F
from basicsr.archs.arch_util import ResidualBlockNoBN, make_layer
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from jddb_plugin.archs.burst_denoiser import BurstDenoiser
from jddb_plugin.archs.edvr_burst_arch import FeaturePyramid, ReferenceFusion, RgbHead, check_sizes, frame_at, fusion_options
from jddb_plugin.archs.guided_align import GuidedAlign
from jddb_plugin.archs.non_local import NonLocalAttention
from jddb_plugin.archs.passthrough import carry, carry_alignment, carry_fusion, carry_head, check_init
from jddb_plugin.ops.bayer import demosaic_bilinear

_SLOPE = 0.1


class _ConvPair(nn.Sequential):
    """Two 3x3 convolutions with LeakyReLU of slope 0.2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.Conv2d(in_channels, out_channels, 3, 1, 1), nn.LeakyReLU(0.2, inplace=True),
                         nn.Conv2d(out_channels, out_channels, 3, 1, 1), nn.LeakyReLU(0.2, inplace=True))


class PreDenoiser(nn.Module):
    """U-Net on one frame: 8 channels to 4 planes; C, 2C, 4C and 8C features on four scales."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels << k for k in range(4)]
        self.encode = nn.ModuleList(_ConvPair(a, b) for a, b in zip([8, *widths], widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in widths[2::-1])
        self.decode = nn.ModuleList(_ConvPair(2 * width, width) for width in widths[2::-1])
        self.output = nn.Conv2d(channels, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 8, H, W], H and W multiples of 8 -> [B, 4, H, W]."""
        scales = []
        for index, block in enumerate(self.encode):
            x = block(F.max_pool2d(x, 2) if index else x)
            scales.append(x)
        x = scales.pop()
        for up, block in zip(self.up, self.decode):
            x = block(torch.cat((up(x), scales.pop()), dim=1))
        return self.output(x)


class BottleneckAttention(nn.Module):
    """Channel gate and then spatial gate (CBAM: Woo et al., ECCV 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = nn.Sequential(nn.Linear(channels, channels // 16), nn.ReLU(), nn.Linear(channels // 16, channels))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        gate = self.channel(x.mean(dim=(-2, -1))) + self.channel(x.amax(dim=(-2, -1)))
        x = x * torch.sigmoid(gate)[..., None, None]
        pooled = torch.cat((x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)), dim=1)
        return x * torch.sigmoid(self.spatial(pooled))


@ARCH_REGISTRY.register()
class RViDeNet(BurstDenoiser):
    """RViDeNet; with ``output: rgb`` RViDeNet*, with ``output: raw`` the denoiser of RViDeNet+DMN.

    Attention and pooling run over the whole tile, so what a tile shows changes its result everywhere.

    Args:
        num_feat: features C of a plane, a multiple of 8 and of ``deformable_groups``.
        num_frame: frames of a burst.
        deformable_groups: of the deformable convolutions.
        num_extract_block, num_reconstruct_block: residual blocks on each plane, and on the four planes together.
        output: 'rgb', or 'raw' for the clean mosaic of the reference.
        init: 'paper' (the toolbox's), or 'passthrough'.
    """

    multiple = 8
    context = None

    def __init__(self, num_feat: int = 64, num_frame: int = 5, deformable_groups: int = 8, num_extract_block: int = 5,
                 num_reconstruct_block: int = 40, output: str = 'rgb', init: str = 'paper') -> None:
        super().__init__(output)
        check_sizes(num_feat, num_frame, deformable_groups, num_extract_block, num_reconstruct_block, multiple=8)
        check_init(init)
        self.num_frame = num_frame
        self.pre_denoise = PreDenoiser(num_feat)
        self.first = nn.Conv2d(2, num_feat, 3, 1, 1)
        self.extract = make_layer(ResidualBlockNoBN, num_extract_block, num_feat=num_feat)
        self.pyramid = FeaturePyramid(num_feat)
        self.align = GuidedAlign(num_feat, deformable_groups, guided_cascade=True, activate_finest=True)
        self.attend = NonLocalAttention(num_feat, num_frame)
        self.fuse = ReferenceFusion(num_feat, num_frame, num_frame // 2)
        self.trunk = make_layer(ResidualBlockNoBN, num_reconstruct_block, num_feat=4 * num_feat)
        self.gate = BottleneckAttention(4 * num_feat)
        self.head = RgbHead(4 * num_feat, num_feat) if output == 'rgb' else nn.Conv2d(4 * num_feat, 4, 3, 1, 1)
        if init == 'passthrough':
            self._pass_through()

    @torch.no_grad()
    def _pass_through(self) -> None:
        carry(self.first)
        carry_alignment(self.align)
        carry_fusion(self.fuse)
        for name in ('channel.2.bias', 'spatial.bias'):
            self.gate.get_parameter(name).fill_(3.0)  # nearly open
        carry_head(self.head)

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of this network."""
        return 'pre_denoise.output.weight' in state and 'first.weight' in state

    @classmethod
    def options_of(cls, state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
        """Options that a state dict shows; ``where`` names the file in errors."""
        return fusion_options(state, 'align.cascade', where)

    def predict(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """See :meth:`BurstDenoiser.predict`."""
        self.check_tiles(tiles, ref_idx)
        raw, noise_map = tiles.split(4, dim=2)
        clean = self.pre_denoise(tiles.flatten(0, 1)).unflatten(0, tiles.shape[:2])
        fused = torch.cat([self._fuse_plane(raw[:, :, k], clean[:, :, k], noise_map[:, :, k], ref_idx) for k in range(4)], dim=1)
        result = self.head(self.gate(self.trunk(fused)))
        base = raw[:, ref_idx]
        return result + (demosaic_bilinear(base) if self.output == 'rgb' else base)

    def _features(self, plane: Tensor, noise_map: Tensor) -> list[Tensor]:
        """Pyramid of [T * N, C, h, w] features of one plane [T, N, h, w]."""
        x = torch.stack((plane, noise_map), dim=2).flatten(0, 1)
        return self.pyramid(self.extract(F.leaky_relu(self.first(x), _SLOPE)))

    def _fuse_plane(self, raw: Tensor, clean: Tensor, noise_map: Tensor, ref_idx: int) -> Tensor:
        """Fused features [T, C, h, w] of one plane of all frames, [T, N, h, w] each."""
        count = raw.shape[1]
        noisy, guides = self._features(raw, noise_map), self._features(clean, noise_map)
        reference, reference_guides = frame_at(noisy, ref_idx, count)[0], frame_at(guides, ref_idx, count)
        aligned = [self.align(frame_at(noisy, k, count), frame_at(guides, k, count), reference, reference_guides)[0]
                   for k in range(count)]
        return self.fuse(self.attend(torch.stack(aligned, dim=1)), ref_idx)
