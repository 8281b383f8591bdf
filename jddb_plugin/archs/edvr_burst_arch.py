"""EDVR* of the paper's tables: EDVR (Wang et al., CVPRW 2019, arXiv 1905.02716) on raw bursts.

Built of the toolbox's own pyramid alignment (PCD) and fusion (TSA).

Deviations from EDVR:
    The input has 8 channels at half of the output's resolution, so one PixelShuffle follows the trunk in place of two.
    EDVR adds the bilinearly enlarged center frame to its output; here that is the bilinearly demosaicked reference.
    The paper gives 6.28 M parameters and no depth. No integer depth gives that: 5 + 52 residual blocks have 6.257 M.
    ``init: passthrough`` starts as the demosaicked reference, with its planes in the features up to the last layer, and is
    for short trainings: the toolbox's initial weights make a signal smaller in every layer, until biases outweigh it.
"""
from __future__ import annotations

from typing import Any, Mapping

import torch
import torch.nn.functional as F
from basicsr.archs.arch_util import ResidualBlockNoBN, make_layer
from basicsr.archs.edvr_arch import PCDAlignment, TSAFusion
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from jddb_plugin.archs.burst_denoiser import BurstDenoiser
from jddb_plugin.archs.passthrough import carry, carry_fusion, carry_head, check_init
from jddb_plugin.archs.state_shapes import blocks_of, features_of, groups_of, quotient, shape_of
from jddb_plugin.checks import OptionError
from jddb_plugin.ops.bayer import demosaic_bilinear

_SLOPE = 0.1


class ReferenceFusion(TSAFusion):
    """The toolbox's TSA with the reference as an argument."""

    def forward(self, aligned: Tensor, ref_idx: int) -> Tensor:
        """Fuse [B, N, C, H, W] into [B, C, H, W]; ``ref_idx`` is what the other frames are compared with."""
        self.center_frame_idx = ref_idx
        return super().forward(aligned)


class FeaturePyramid(nn.Module):
    """Features at three scales, as EDVR computes them: full size, 1/2 and 1/4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down2 = nn.ModuleList([nn.Conv2d(channels, channels, 3, 2, 1), nn.Conv2d(channels, channels, 3, 1, 1)])
        self.down3 = nn.ModuleList([nn.Conv2d(channels, channels, 3, 2, 1), nn.Conv2d(channels, channels, 3, 1, 1)])

    def forward(self, features: Tensor) -> list[Tensor]:
        """[B, C, H, W], H and W multiples of 4 -> that, [B, C, H / 2, W / 2] and [B, C, H / 4, W / 4]."""
        levels = [features]
        for stage in (self.down2, self.down3):
            x = levels[-1]
            for layer in stage:
                x = F.leaky_relu(layer(x), _SLOPE)
            levels.append(x)
        return levels


class RgbHead(nn.Module):
    """From features at packed resolution to RGB of twice the size.

    Args:
        in_channels: of the features.
        channels: at full resolution.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.enlarge = nn.Conv2d(in_channels, 4 * channels, 3, 1, 1)
        self.refine = nn.Conv2d(channels, channels, 3, 1, 1)
        self.output = nn.Conv2d(channels, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 3, 2H, 2W]."""
        x = F.leaky_relu(F.pixel_shuffle(self.enlarge(x), 2), _SLOPE)
        return self.output(F.leaky_relu(self.refine(x), _SLOPE))


def check_sizes(num_feat: int, num_frame: int, deformable_groups: int, num_extract_block: int, num_reconstruct_block: int, *,
                multiple: int = 1) -> None:
    """Check the options that EDVR and RViDeNet have in common.

    Raises:
        OptionError: a value is out of range, or ``num_feat`` no multiple of ``deformable_groups`` and of ``multiple``.
    """
    if num_feat < multiple or deformable_groups < 1 or num_feat % multiple or num_feat % deformable_groups:
        multiples = 'deformable_groups' if multiple == 1 else f'{multiple} and of deformable_groups'
        raise OptionError(f'network_g: num_feat must be a multiple of {multiples}, got {num_feat} and {deformable_groups}.')
    if num_frame < 1 or num_extract_block < 0 or num_reconstruct_block < 0:
        raise OptionError('network_g: num_frame must be at least 1, num_extract_block and num_reconstruct_block at least 0, '
                          f'got {num_frame}, {num_extract_block} and {num_reconstruct_block}.')


def fusion_options(state: Mapping[str, Tensor], alignment: str, where: str) -> dict[str, Any]:
    """Options of EDVR or RViDeNet that a state dict shows.

    Args:
        state: the state dict.
        alignment: prefix of a deformable convolution's keys.
        where: names the file in errors.

    Raises:
        CheckpointError: a tensor is missing, or has a shape that no such network has.
    """
    features, key = features_of(state, 'first.weight', where), 'fuse.feat_fusion.weight'
    return {'num_feat': features, 'num_frame': quotient(shape_of(state, key, where)[1], features, key, where),
            'deformable_groups': groups_of(state, alignment, where), 'num_extract_block': blocks_of(state, 'extract'),
            'num_reconstruct_block': blocks_of(state, 'trunk'), 'output': 'rgb' if 'head.enlarge.weight' in state else 'raw'}


def frame_at(levels: list[Tensor], index: int, count: int) -> list[Tensor]:
    """Frame ``index`` of each level [B * count, C, h, w]."""
    return [level.unflatten(0, (-1, count))[:, index] for level in levels]


@ARCH_REGISTRY.register()
class EDVRBurst(BurstDenoiser):
    """EDVR on raw bursts; with ``output: raw`` the denoiser of EDVR+DMN.

    Args:
        num_feat: features C, a multiple of ``deformable_groups``.
        num_frame: frames of a burst.
        deformable_groups: of the deformable convolutions.
        num_extract_block, num_reconstruct_block: residual blocks on each frame, and after the fusion.
        output: 'rgb', or 'raw' for the clean mosaic of the reference.
        init: 'paper' (the toolbox's), or 'passthrough'.
    """

    multiple = 4

    def __init__(self, num_feat: int = 64, num_frame: int = 5, deformable_groups: int = 8, num_extract_block: int = 5,
                 num_reconstruct_block: int = 52, output: str = 'rgb', init: str = 'paper') -> None:
        super().__init__(output)
        check_sizes(num_feat, num_frame, deformable_groups, num_extract_block, num_reconstruct_block)
        check_init(init)
        self.num_frame = num_frame
        # Through convolutions; offsets of the deformable ones come on top.
        self.context = 2 * (num_extract_block + num_reconstruct_block) + 55
        self.first = nn.Conv2d(8, num_feat, 3, 1, 1)
        self.extract = make_layer(ResidualBlockNoBN, num_extract_block, num_feat=num_feat)
        self.pyramid = FeaturePyramid(num_feat)
        self.align = PCDAlignment(num_feat, deformable_groups)
        self.fuse = ReferenceFusion(num_feat, num_frame, num_frame // 2)
        self.trunk = make_layer(ResidualBlockNoBN, num_reconstruct_block, num_feat=num_feat)
        self.head = RgbHead(num_feat, num_feat) if output == 'rgb' else nn.Conv2d(num_feat, 4, 3, 1, 1)
        if init == 'passthrough':
            self._pass_through()

    @torch.no_grad()
    def _pass_through(self) -> None:
        carry(self.first)
        carry(self.align.dcn_pack['l1'], gain=2.0)  # the mask starts at one half
        carry(self.align.feat_conv['l1'])
        carry(self.align.cas_dcnpack, gain=2.0)
        carry_fusion(self.fuse)
        carry_head(self.head)

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of this network."""
        return {'align.cas_dcnpack.weight', 'first.weight', 'fuse.feat_fusion.weight'} <= state.keys()

    @classmethod
    def options_of(cls, state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
        """Options that a state dict shows; ``where`` names the file in errors."""
        return fusion_options(state, 'align.cas_dcnpack', where)

    def predict(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """See :meth:`BurstDenoiser.predict`."""
        self.check_tiles(tiles, ref_idx)
        count = tiles.shape[1]
        features = self.extract(F.leaky_relu(self.first(tiles.flatten(0, 1)), _SLOPE))
        levels = self.pyramid(features)
        reference = frame_at(levels, ref_idx, count)
        aligned = torch.stack([self.align(frame_at(levels, k, count), reference) for k in range(count)], dim=1)
        result = self.head(self.trunk(self.fuse(aligned, ref_idx)))
        base = tiles[:, ref_idx, :4]
        return result + (demosaic_bilinear(base) if self.output == 'rgb' else base)
