"""GCP-Net: joint denoising and demosaicking with the green channel prior (Guo, Liang, Zhang, 2021, arXiv 2101.09870).

The green planes are sampled twice as densely as the others and are less noisy. A branch of their own guides everything else:
it scales and shifts the features within each frame, predicts the offsets between frames, and modulates the merged features.

Deviation:
    ``init: passthrough`` starts as a demosaicked reference, as that of TwoStageJDDB does, and is for short trainings.
"""
from __future__ import annotations

from typing import Any, Mapping

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from jddb_plugin.archs.blocks import AttentionBlock, act, bias_of, conv
from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.archs.edvr_burst_arch import FeaturePyramid, frame_at
from jddb_plugin.archs.guided_align import GuidedAlign
from jddb_plugin.archs.passthrough import (
    carry,
    carry_alignment,
    carry_enlarged,
    carry_reconstruction,
    check_init,
    quiet_attention,
)
from jddb_plugin.archs.reconstruction import Reconstruction
from jddb_plugin.archs.state_shapes import features_of, groups_of, quotient, shape_of
from jddb_plugin.checks import OptionError

#: Stages of the green branch that guide the features within a frame.
_GUIDED = 4


def _convs(in_channels: int, channels: int, depth: int) -> nn.Sequential:
    """``depth`` convolutions with activations between them; the first alone has a bias."""
    layers: list[nn.Module] = [conv(in_channels, channels, orthogonal=True)]
    for _ in range(depth - 1):
        layers += [act(), conv(channels, channels, bias=False, orthogonal=True)]
    return nn.Sequential(*layers)


class Modulation(nn.Module):
    """Scale and shift of features, each by a 3x3 convolution of the guide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = conv(channels, channels)
        self.shift = conv(channels, channels)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """x * scale(guide) + shift(guide), all [B, C, H, W]."""
        return x * self.scale(guide) + self.shift(guide)


class GuidedAttentionBlock(nn.Module):
    """The attention block, whose first residual is modulated by the green branch before its activation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.modulate = Modulation(channels)
        self.first = conv(channels, channels, bias=False, orthogonal=True)
        self.second = conv(channels, channels, orthogonal=True)
        self.rest = AttentionBlock(channels)
        del self.rest.residuals[0]
        self.act = act()

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """Both [B, C, H, W]; returns the same shape."""
        return self.rest(x + self.second(self.act(self.modulate(self.first(x), guide))))


class GreenBranch(nn.Module):
    """Six blocks of three convolutions on the green planes and their noise maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_convs(channels if k else 4, channels, 3) for k in range(6))
        self.up = nn.ConvTranspose2d(channels, channels, 2, 2)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Guides of the first five blocks, [B, C, H, W] each, from frames [B, 8, H, W]."""
        x = torch.cat((frames[:, 1:3], frames[:, 5:7]), dim=1)
        guides = []
        for block in self.blocks[:-1]:
            x = block(x)
            guides.append(x)
        return guides

    def reference(self, guide: Tensor) -> Tensor:
        """Guide of the merged features at full resolution, [B, C, 2H, 2W], from the reference's last guide."""
        return self.up(self.blocks[-1](guide))


@ARCH_REGISTRY.register()
class GCPNet(BurstNetwork):
    """GCP-Net.

    Args:
        num_feat: features C; even, and a multiple of ``deformable_groups``.
        num_frame: frames of a burst.
        deformable_groups: of the deformable convolutions.
        init: 'paper' (orthogonal), or 'passthrough'.
    """

    multiple = 4
    aligned_input = False
    #: Through convolutions; the channel gates average over the whole tile besides.
    context = 128

    def __init__(self, num_feat: int = 64, num_frame: int = 5, deformable_groups: int = 8, init: str = 'paper') -> None:
        super().__init__()
        check_init(init)
        if num_feat < 2 or deformable_groups < 1 or num_feat % 2 or num_feat % deformable_groups:
            raise OptionError(f'network_g: num_feat must be even and a multiple of deformable_groups, got {num_feat} and '
                              f'{deformable_groups}.')
        if num_frame < 1:
            raise OptionError(f'network_g.num_frame: must be at least 1, got {num_frame}.')
        self.num_frame = num_frame
        self.green = GreenBranch(num_feat)
        self.extract = _convs(8, num_feat, 5)
        self.refine = nn.ModuleList(GuidedAttentionBlock(num_feat) for _ in range(_GUIDED))
        self.pyramid = FeaturePyramid(num_feat)
        # The released network has no activation after the first convolution of the finest level.
        self.align = GuidedAlign(num_feat, deformable_groups, num_feat // 2, guided_cascade=False, activate_finest=False)
        self.merge = conv(num_frame * num_feat, num_feat)
        self.up = nn.ConvTranspose2d(num_feat, num_feat, 2, 2)
        self.modulate = Modulation(num_feat)
        self.reconstruct = Reconstruction(num_feat)
        self.reconstruct.up_input = nn.Identity()  # enlarged here, since the green branch modulates in between
        if init == 'passthrough':
            self._pass_through()

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of this network."""
        return 'green.up.weight' in state and 'merge.weight' in state

    @classmethod
    def options_of(cls, state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
        """Options that a state dict shows; ``where`` names the file in errors."""
        features = features_of(state, 'extract.0.weight', where)
        frames = quotient(shape_of(state, 'merge.weight', where)[1], features, 'merge.weight', where)
        return {'num_feat': features, 'num_frame': frames, 'deformable_groups': groups_of(state, 'align.cascade', where)}

    def restore(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """Linear camera RGB [T, 3, 2h, 2w] of the reference of tiles [T, N, 8, h, w]."""
        self.check_tiles(tiles, ref_idx)
        count = tiles.shape[1]
        frames = tiles.flatten(0, 1)
        *guides, green = self.green(frames)
        features = self.extract(frames)
        for block, guide in zip(self.refine, guides):
            features = block(features, guide)
        aligned = self._align(self.pyramid(features), self.pyramid(green), ref_idx, count)
        green = self.green.reference(frame_at([green], ref_idx, count)[0])
        return self.reconstruct(self.modulate(self.up(self.merge(aligned)), green))

    def _align(self, features: list[Tensor], guides: list[Tensor], ref_idx: int, count: int) -> Tensor:
        """Features of all frames on the reference, [T, N * C, h, w]; the memory runs from the first frame to the last."""
        reference, reference_guides = frame_at(features, ref_idx, count)[0], frame_at(guides, ref_idx, count)
        aligned, states = [], None
        for k in range(count):
            moved, states = self.align(frame_at(features, k, count), frame_at(guides, k, count), reference, reference_guides,
                                       states)
            aligned.append(moved)
        return torch.cat(aligned, dim=1)

    @torch.no_grad()
    def _pass_through(self) -> None:
        """Start as a demosaicked reference; every other path starts small and random."""
        channels = self.up.in_channels
        quiet_attention(self)
        _neutral(self.modulate)
        for block in self.refine:
            if isinstance(block, GuidedAttentionBlock):
                _neutral(block.modulate)
                block.second.weight.mul_(0.1)
        for layer in self.extract:
            if isinstance(layer, nn.Conv2d):
                carry(layer)
        carry_alignment(self.align)
        carry(self.merge, first=self.merge.in_channels // channels // 2 * channels)
        carry_enlarged(self.up)
        carry_reconstruction(self.reconstruct, channels)


def _neutral(modulation: Modulation) -> None:
    """Scale 1 and shift 0, nearly."""
    for layer, bias in ((modulation.scale, 1.0), (modulation.shift, 0.0)):
        layer.weight.mul_(0.1)
        bias_of(layer).fill_(bias)
