"""BasicVSR (Chan et al., CVPR 2021, arXiv 2012.02181) on raw bursts, built of the toolbox's own parts.

Not a system of the paper's tables: a recurrent network to mix coarse alignment with.

Deviations from BasicVSR:
    The input has 8 channels at half of the output's resolution, so one PixelShuffle follows the fusion in place of two.
    Only the reference is restored, so propagation ends there: backward from the last frame, forward from the first.
    SpyNet sees square roots of half-size RGB, and learns with the rest, from pretrained weights if ``spynet_path`` is given.
    BasicVSR adds the enlarged frame to its output; here that is the bilinearly demosaicked reference.
    ``init: passthrough`` starts as EDVRBurst's does, and is for short trainings.
"""
from __future__ import annotations

from typing import Any, Iterable, Mapping, Optional

import torch
import torch.nn.functional as F
from basicsr.archs.arch_util import flow_warp
from basicsr.archs.basicvsr_arch import ConvResidualBlocks
from basicsr.archs.spynet_arch import SpyNet
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.archs.edvr_burst_arch import RgbHead
from jddb_plugin.archs.passthrough import carry, carry_frame_and_mean, carry_head, carry_nothing, check_init, convolution
from jddb_plugin.archs.state_shapes import blocks_of, features_of
from jddb_plugin.checks import OptionError
from jddb_plugin.ops.bayer import demosaic_bilinear, half_size_rgb

_SLOPE = 0.1
#: SpyNet's coarsest level, 1/32 of its input, must have two pixels.
_LEAST_SIDE = 64
#: Channels of a frame.
_PLANES = 8


@ARCH_REGISTRY.register()
class BasicVSRBurst(BurstNetwork):
    """BasicVSR on raw bursts of any length; its result depends on the whole tile.

    Args:
        num_feat: features C.
        num_block: residual blocks of each of the two branches.
        spynet_path: the toolbox's checkpoint of SpyNet to start from; None for random weights.
        init: 'paper' (the toolbox's), or 'passthrough'.
    """

    aligned_input = False

    def __init__(self, num_feat: int = 64, num_block: int = 15, spynet_path: Optional[str] = None,
                 init: str = 'paper') -> None:
        super().__init__()
        check_init(init)
        if num_feat < 1 or num_block < 0:
            raise OptionError(f'network_g: num_feat must be at least 1 and num_block at least 0, got {num_feat} and {num_block}.')
        self.num_feat = num_feat
        self.spynet = SpyNet(spynet_path)
        self.backward_trunk = ConvResidualBlocks(8 + num_feat, num_feat, num_block)
        self.forward_trunk = ConvResidualBlocks(8 + num_feat, num_feat, num_block)
        self.fusion = nn.Conv2d(2 * num_feat, num_feat, 1)
        self.head = RgbHead(num_feat, num_feat)
        if init == 'passthrough':
            self._pass_through()
            if spynet_path is None:
                self._stand_still()

    @torch.no_grad()
    def _pass_through(self) -> None:
        for trunk in (self.backward_trunk, self.forward_trunk):
            carry(convolution(trunk, 'main.0'))  # the frame's planes, then those of the frame before
        backward, forward = 0, self.num_feat
        if self.num_feat < 2 * _PLANES:
            carry(self.fusion, first=forward)
        else:
            nearest = (forward, forward + _PLANES, backward + _PLANES)
            carry_frame_and_mean(self.fusion, forward, nearest, _PLANES)
        carry_head(self.head)

    @torch.no_grad()
    def _stand_still(self) -> None:
        for level in self.spynet.basic_module:
            carry_nothing(convolution(level, 'basic_module.8'))

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of this network."""
        return {'spynet.mean', 'backward_trunk.main.0.weight', 'head.enlarge.weight'} <= state.keys()

    @classmethod
    def options_of(cls, state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
        """Options that a state dict shows; ``where`` names the file in errors."""
        return {'num_feat': features_of(state, 'fusion.weight', where), 'num_block': blocks_of(state, 'forward_trunk.main.2')}

    def restore(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """See :meth:`BurstNetwork.restore`."""
        self.check_tiles(tiles, ref_idx)
        count = tiles.shape[1]
        backward = self._propagate(self.backward_trunk, tiles, range(count - 1, ref_idx - 1, -1))
        forward = self._propagate(self.forward_trunk, tiles, range(ref_idx + 1))
        fused = F.leaky_relu(self.fusion(torch.cat((backward, forward), dim=1)), _SLOPE)
        return self.head(fused) + demosaic_bilinear(tiles[:, ref_idx, :4])

    def _propagate(self, trunk: nn.Module, tiles: Tensor, order: Iterable[int]) -> Tensor:
        """Features [T, C, h, w] of the last frame in ``order``, which have passed through all frames before."""
        features = tiles.new_zeros(len(tiles), self.num_feat, *tiles.shape[-2:])
        last: Optional[Tensor] = None
        for k in order:
            frame = tiles[:, k]
            if last is not None:
                features = flow_warp(features, self._flow(frame, last))
            features = trunk(torch.cat((frame, features), dim=1))
            last = frame
        return features

    def _flow(self, frame: Tensor, other: Tensor) -> Tensor:
        """Motion (dx, dy) [T, h, w, 2] from a frame [T, 8, h, w] to another."""
        height, width = frame.shape[-2:]
        missing = (0, max(0, _LEAST_SIDE - width), 0, max(0, _LEAST_SIDE - height))
        flow = self.spynet(*(F.pad(_visible(image), missing, mode='replicate') for image in (frame, other)))
        return flow[..., :height, :width].permute(0, 2, 3, 1)


def _visible(frame: Tensor) -> Tensor:
    """Input of SpyNet from a frame [T, 8, h, w]: RGB [T, 3, h, w], gamma-compressed."""
    return half_size_rgb(frame[:, :4]).clamp(min=0).sqrt()
