"""Initial weights for short training: start as a demosaicked reference frame instead of as noise.

Deviation:
    The released code starts from orthogonal weights (``init: paper``), from which colour takes tens of thousands of
    iterations to appear. ``init: passthrough`` keeps the architecture and sets its initial weights so that the packed
    planes of the reference reach the output, as in nearest-neighbour demosaicking; every other path starts small and
    random.
"""
from __future__ import annotations

import torch
from torch import nn

from jddb_plugin.archs.blocks import AttentionBlock

_NOISE = 0.1
_CLOSED_GATE = -3.0
_OPEN_GATE = 1.5


def carry(layer: nn.Module, *, first: int = 0, gain: float = 1.0) -> None:
    """Make a convolution copy input channels ``first``, ``first + 1``, ... to outputs 0, 1, ..., plus a little noise."""
    layer.weight.mul_(_NOISE)
    if layer.bias is not None:
        layer.bias.zero_()
    row, col = layer.weight.shape[2] // 2, layer.weight.shape[3] // 2
    for channel in range(min(layer.weight.shape[0], layer.weight.shape[1] - first)):
        layer.weight[channel, first + channel, row, col] += gain


def quiet_attention(network: nn.Module) -> None:
    """Let every attention block pass its input on: residuals small, gates nearly closed."""
    for block in network.modules():
        if isinstance(block, AttentionBlock):
            for residual in block.residuals:
                residual[2].weight.mul_(_NOISE)
            for gate in (block.excite, block.spatial):
                gate.weight.mul_(_NOISE)
                gate.bias.fill_(_CLOSED_GATE)


def carry_reconstruction(unet: nn.Module, channels: int) -> None:
    """Let a :class:`Reconstruction` pass the packed planes, its first four features, on as RGB."""
    for layer in (unet.encode1[0][0], unet.encode1[0][2], unet.output[2]):
        carry(layer)
    carry(unet.output[0], first=channels)  # the skip comes second
    last = unet.output[4].weight
    last.mul_(_NOISE)
    for colour, planes in enumerate(((0,), (1, 2), (3,))):
        for plane in planes:
            last[colour, plane, 1, 1] += 1.0 / len(planes)


@torch.no_grad()
def init_passthrough(stage: nn.Module) -> None:
    """Set the initial weights of a :class:`RefinedStage` in place."""
    quiet_attention(stage)
    for layer in stage.extract[0]:
        if isinstance(layer, nn.Conv2d):
            carry(layer)
    if stage.align is not None:
        carry(stage.align.level1.dcn, gain=2.0)  # the mask starts at one half
        carry(stage.align.level1.join)
    channels = stage.fuse.cell.candidate.weight.shape[0]
    carry(stage.fuse.cell.candidate, first=channels)  # after the state comes the frame
    stage.fuse.cell.update.weight.mul_(_NOISE)
    stage.fuse.cell.update.bias.fill_(_OPEN_GATE)
    carry(stage.fuse.join, gain=0.5)
    for channel in range(channels):
        stage.fuse.join.weight[channel, channels + channel] += 0.5
    unet = stage.reconstruct
    unet.up_input.weight.mul_(_NOISE)
    unet.up_input.bias.zero_()
    for channel in range(channels):
        unet.up_input.weight[channel, channel] += 1.0
    carry_reconstruction(unet, channels)
