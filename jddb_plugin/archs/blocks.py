"""Building blocks shared by the stages of the network.

Layer by layer as in the authors' released network; every convolution is 3x3 unless said otherwise.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

#: Negative slope of every LeakyReLU in the network.
SLOPE = 0.1


def one_by_one(frames: Tensor) -> bool:
    """Whether frames are better processed one after another: on a CPU without gradients, where that saves memory and time."""
    return frames.device.type == 'cpu' and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def conv(in_channels: int, out_channels: int, *, stride: int = 1, bias: bool = True, orthogonal: bool = False) -> nn.Conv2d:
    """3x3 convolution with padding 1, on request with orthogonal initial weights."""
    layer = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=bias)
    if orthogonal:
        nn.init.orthogonal_(layer.weight)
    return layer


def act() -> nn.LeakyReLU:
    """The network's activation."""
    return nn.LeakyReLU(SLOPE, inplace=True)


def conv_pair(in_channels: int, out_channels: int, *, bias: tuple[bool, bool] = (True, False)) -> nn.Sequential:
    """conv -> LeakyReLU -> conv, orthogonal initial weights; ``bias`` says which of the two has one."""
    return nn.Sequential(
        conv(in_channels, out_channels, bias=bias[0], orthogonal=True), act(),
        conv(out_channels, out_channels, bias=bias[1], orthogonal=True))


class AttentionBlock(nn.Module):
    """Three residual pairs, then a channel gate and a spatial gate added to their input.

    Maps [B, C, H, W] to the same shape; C must be even.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residuals = nn.ModuleList([
            conv_pair(channels, channels, bias=(False, True)),
            conv_pair(channels, channels),
            conv_pair(channels, channels),
        ])
        self.squeeze = nn.Conv2d(channels, channels // 2, 1)
        self.excite = nn.Conv2d(channels // 2, channels, 1)
        self.spatial = nn.Conv2d(channels, 1, 7, padding=3)
        self.act = act()
        for layer in (self.squeeze, self.excite, self.spatial):
            nn.init.orthogonal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        for residual in self.residuals:
            x = x + residual(x)
        channel_gate = torch.sigmoid(self.excite(self.act(self.squeeze(x.mean(dim=(-2, -1), keepdim=True)))))
        spatial_gate = torch.sigmoid(self.spatial(x))
        return torch.addcmul(x * (1 + channel_gate), x, spatial_gate)
