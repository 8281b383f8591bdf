"""Initial weights for short training: start as a demosaicked reference frame instead of as noise.

Deviation:
    The released code starts from orthogonal weights (``init: paper``), from which color takes tens of thousands of
    iterations to appear. ``init: passthrough`` keeps the architecture and sets its initial weights so that the packed
    planes of the reference reach the output, as in nearest-neighbor demosaicking; every other path starts small and
    random.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Sequence, Union

import torch
from torch import nn

from jddb_plugin.archs.blocks import AttentionBlock, bias_of
from jddb_plugin.checks import check_choice

if TYPE_CHECKING:
    from basicsr.archs.edvr_arch import TSAFusion

    from jddb_plugin.archs.edvr_burst_arch import RgbHead
    from jddb_plugin.archs.guided_align import GuidedAlign
    from jddb_plugin.archs.jddb_arch import RefinedStage
    from jddb_plugin.archs.pixel_align import DeformConvPack
    from jddb_plugin.archs.reconstruction import Reconstruction

_NOISE = 0.1
_CLOSED_GATE = -3.0
_OPEN_GATE = 1.5


def check_init(init: str) -> None:
    """Check the option ``init`` of a network.

    Raises:
        OptionError: it is neither 'paper' nor 'passthrough'.
    """
    check_choice(init, ('paper', 'passthrough'), 'network_g.init')


def carry(layer: Union[nn.Conv2d, DeformConvPack], *, first: int = 0, gain: float = 1.0) -> None:
    """Make a convolution copy input channels ``first``, ``first + 1``, ... to outputs 0, 1, ..., plus a little noise."""
    layer.weight.mul_(_NOISE)
    if layer.bias is not None:
        layer.bias.zero_()
    row, col = layer.weight.shape[2] // 2, layer.weight.shape[3] // 2
    for channel in range(min(layer.weight.shape[0], layer.weight.shape[1] - first)):
        layer.weight[channel, first + channel, row, col] += gain


def carry_enlarged(layer: nn.ConvTranspose2d) -> None:
    """Make a transposed convolution repeat each channel's pixels, plus a little noise."""
    layer.weight.mul_(_NOISE)
    bias_of(layer).zero_()
    for channel in range(layer.in_channels):
        layer.weight[channel, channel] += 1.0


def convolution(network: nn.Module, path: str) -> nn.Conv2d:
    """The convolution at ``path`` below a network."""
    layer = network.get_submodule(path)
    if not isinstance(layer, nn.Conv2d):
        raise TypeError(f'{path}: is {type(layer).__name__}, expected Conv2d.')
    return layer


def quiet_attention(network: nn.Module) -> None:
    """Let every attention block pass its input on: residuals small, gates nearly closed."""
    for block in network.modules():
        if isinstance(block, AttentionBlock):
            for k in range(len(block.residuals)):
                convolution(block, f'residuals.{k}.2').weight.mul_(_NOISE)
            for gate in (block.excite, block.spatial):
                gate.weight.mul_(_NOISE)
                bias_of(gate).fill_(_CLOSED_GATE)


def carry_reconstruction(unet: Reconstruction, channels: int) -> None:
    """Let a :class:`Reconstruction` pass the packed planes, its first four features, on as RGB."""
    for path in ('encode1.0.0', 'encode1.0.2', 'output.2'):
        carry(convolution(unet, path))
    carry(convolution(unet, 'output.0'), first=channels)  # the skip comes second
    last = convolution(unet, 'output.4').weight
    last.mul_(_NOISE)
    for color, planes in enumerate(((0,), (1, 2), (3,))):
        for plane in planes:
            last[color, plane, 1, 1] += 1.0 / len(planes)


def carry_alignment(align: GuidedAlign) -> None:
    """Let a :class:`GuidedAlign` pass the features on as they are."""
    finest = align.finest
    carry(finest.dcn, gain=2.0)  # the mask starts at one half
    carry(finest.join)
    carry(align.cascade, gain=2.0)


def carry_fusion(fuse: TSAFusion) -> None:
    """Let the toolbox's TSA begin as half of the middle frame's features, and their means over all frames.

    All attention is at one half, and nothing is added.
    """
    for layer in (fuse.temporal_attn1, fuse.temporal_attn2, fuse.spatial_attn5, fuse.spatial_attn_add2):
        carry_nothing(layer)
    features, total = fuse.feat_fusion.weight.shape[:2]
    frames = range(0, total, features)
    carry_frame_and_mean(fuse.feat_fusion, frames[len(frames) // 2], frames, features // 2, gain=2.0)  # attention halves


def carry_frame_and_mean(layer: nn.Conv2d, frame: int, frames: Sequence[int], count: int, *, gain: float = 1.0) -> None:
    """Make a 1x1 convolution copy some channels of a frame, and average them over several frames.

    With the frame alone a short training hardly learns to use the others, with the mean alone it does not learn to doubt them.

    Args:
        layer: its input holds the features of all frames.
        frame: first channel of the frame that is copied.
        frames: first channels of those that are averaged.
        count: of channels. Outputs 0 .. count - 1 are the copies, the next ``count`` are the means; plus a little noise.
        gain: of both.
    """
    carry_nothing(layer)
    for channel in range(count):
        layer.weight[channel, frame + channel] += gain
        for first in frames:
            layer.weight[count + channel, first + channel] += gain / len(frames)


def carry_head(head: Union[RgbHead, nn.Conv2d]) -> None:
    """Let a head keep the planes up to its last layer, and add nearly nothing to the demosaicked reference."""
    if isinstance(head, nn.Conv2d):
        carry_nothing(head)
        return
    carry_nothing(head.enlarge)
    step = head.enlarge.in_channels // head.refine.in_channels  # RViDeNet's features come plane by plane
    for channel in range(head.refine.in_channels):
        head.enlarge.weight[4 * channel:4 * channel + 4, step * channel, 1, 1] += 1.0  # the four pixels of a packed one
    carry(head.refine)
    carry_nothing(head.output)


def carry_nothing(layer: nn.Conv2d) -> None:
    """Make a convolution's outputs small, around zero."""
    layer.weight.mul_(_NOISE)
    bias_of(layer).zero_()


@torch.no_grad()
def init_passthrough(stage: RefinedStage) -> None:
    """Set the initial weights of a :class:`RefinedStage` in place."""
    quiet_attention(stage)
    for layer in stage.extract[0].modules():
        if isinstance(layer, nn.Conv2d):
            carry(layer)
    if stage.align is not None:
        carry(stage.align.level1.dcn, gain=2.0)  # the mask starts at one half
        carry(stage.align.level1.join)
    cell = stage.fuse.cell
    channels = cell.candidate.out_channels
    carry(cell.candidate, first=channels)  # after the state comes the frame
    cell.update.weight.mul_(_NOISE)
    bias_of(cell.update).fill_(_OPEN_GATE)
    carry(stage.fuse.join, gain=0.5)
    for channel in range(channels):
        stage.fuse.join.weight[channel, channels + channel] += 0.5
    if isinstance(stage.reconstruct.up_input, nn.ConvTranspose2d):
        carry_enlarged(stage.reconstruct.up_input)
    carry_reconstruction(stage.reconstruct, channels)
