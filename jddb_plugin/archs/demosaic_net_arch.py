"""DMN of the paper's tables: deep joint demosaicking (Gharbi et al., SIGGRAPH Asia 2016), in its released form.

Fifteen unpadded convolutions run on the mosaic packed to four channels; the last one gives filters and masks, whose
product becomes three planes of full size that join the mosaic.

Convention:
    The network knows the pattern G R / B G. A mosaic R Gr / Gb B becomes that by one more column on the left.

Deviation:
    The released network returns a picture that is smaller than the mosaic by 31 px on each side. Here the mosaic is
    reflected at its border by as much, which keeps its pattern, so that nothing is lost.
"""
from __future__ import annotations

from typing import Any, Mapping

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.archs.state_shapes import blocks_of, features_of
from jddb_plugin.checks import OptionError, ShapeError
from jddb_plugin.ops.bayer import unpack


@ARCH_REGISTRY.register()
class DemosaicNet(BurstNetwork):
    """Demosaicking of a clean mosaic. Of a burst it uses the reference alone, without its noise map.

    Attribute names are those of the released weights, so that these load as they are.

    Args:
        num_feat: width of the convolutions.
        num_block: convolutions before the filters.
    """

    multiple = 1
    aligned_input = False

    def __init__(self, num_feat: int = 64, num_block: int = 15) -> None:
        super().__init__()
        if num_feat < 1 or num_block < 2:
            raise OptionError(f'network_g: num_feat must be at least 1 and num_block at least 2, got {num_feat} and {num_block}.')
        self.num_feat = num_feat
        self.main_processor = nn.Sequential()
        self.main_processor.add_module('pack_mosaic', nn.Conv2d(3, 4, 2, stride=2))
        for k in range(1, num_block + 1):
            outputs = 2 * num_feat if k == num_block else num_feat
            self.main_processor.add_module(f'conv{k}', nn.Conv2d(4 if k == 1 else num_feat, outputs, 3))
            self.main_processor.add_module(f'relu{k}', nn.ReLU(inplace=True))
        self.residual_predictor = nn.Conv2d(num_feat, 12, 1)
        self.upsampler = nn.ConvTranspose2d(12, 3, 2, stride=2, groups=3)
        self.fullres_processor = nn.Sequential()
        self.fullres_processor.add_module('post_conv', nn.Conv2d(6, num_feat, 3))
        self.fullres_processor.add_module('post_relu', nn.ReLU(inplace=True))
        self.fullres_processor.add_module('output', nn.Conv2d(num_feat, 3, 1))
        #: Pixels of the mosaic that are lost on each side, odd.
        self.margin = 2 * num_block + 1
        self.context = num_block + 1

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of this network; the released weights are."""
        return {'main_processor.pack_mosaic.weight', 'fullres_processor.post_conv.weight'} <= state.keys()

    @classmethod
    def options_of(cls, state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
        """Options that a state dict shows; ``where`` names the file in errors."""
        blocks = blocks_of(state, 'main_processor') - 1  # packing comes before
        return {'num_feat': features_of(state, 'fullres_processor.post_conv.weight', where), 'num_block': blocks}

    def process(self, planes: Tensor) -> Tensor:
        """The released network itself.

        Args:
            planes: mosaic as three planes [B, 3, H, W] that are zero where the color was not measured, pattern G R / B G,
                H and W even.

        Returns:
            RGB [B, 3, H - 2 margin, W - 2 margin].
        """
        filters, masks = self.main_processor(planes).split(self.num_feat, dim=1)
        residual = self.upsampler(self.residual_predictor(filters * masks))
        edge = self.margin - 1  # what the last convolution takes comes later
        inner = planes[..., edge:-edge, edge:-edge]
        return self.fullres_processor(torch.cat((inner, residual), dim=1))

    def demosaic(self, raw: Tensor) -> Tensor:
        """Clean packed raw [B, 4, h, w] (R Gr Gb B) -> RGB [B, 3, 2h, 2w].

        Raises:
            ShapeError: the mosaic is too small to be reflected.
        """
        smallest = self.margin // 2 + 2
        if raw.ndim != 4 or raw.shape[1] != 4 or min(raw.shape[-2:]) < smallest:
            raise ShapeError(f'DemosaicNet: expected packed raw [B, 4, h, w] with h and w of at least {smallest}, got '
                             f'{list(raw.shape)}; use larger tiles.')
        # One column more or less turns R Gr / Gb B into Gr R / B Gb; a row more keeps height and result even.
        left, top = self.margin, self.margin + 1
        mosaic = F.pad(unpack(raw).unsqueeze(1), (left, left, top, top), mode='reflect')
        planes = mosaic.new_zeros(len(mosaic), 3, *mosaic.shape[-2:])
        for channel, y, x in ((1, 0, 0), (0, 0, 1), (2, 1, 0), (1, 1, 1)):
            planes[:, channel, y::2, x::2] = mosaic[:, 0, y::2, x::2]
        return self.process(planes)[..., 1:-1, :]

    def restore(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """Demosaic the reference of tiles [T, N, 8, h, w]; linear camera RGB [T, 3, 2h, 2w]."""
        self.check_tiles(tiles, ref_idx)
        return self.demosaic(tiles[:, ref_idx, :4])
