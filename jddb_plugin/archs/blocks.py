"""Building blocks shared by the stages of the network.

Layer by layer as in the authors' released network; every convolution is 3x3 unless said otherwise.
"""
from __future__ import annotations

from typing import Union

import torch
import torch.nn.functional as F
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


def bias_of(layer: Union[nn.Conv2d, nn.ConvTranspose2d]) -> Tensor:
    """Bias of a convolution that has one."""
    if layer.bias is None:
        raise ValueError(f'{layer}: has no bias.')
    return layer.bias


def act() -> nn.LeakyReLU:
    """The network's activation."""
    return nn.LeakyReLU(SLOPE, inplace=True)


def conv_pair(in_channels: int, out_channels: int, *, bias: tuple[bool, bool] = (True, False)) -> nn.Sequential:
    """conv -> LeakyReLU -> conv, orthogonal initial weights; ``bias`` says which of the two has one."""
    return nn.Sequential(
        conv(in_channels, out_channels, bias=bias[0], orthogonal=True), act(),
        conv(out_channels, out_channels, bias=bias[1], orthogonal=True))


def _to_one_channel(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """``layer(x)`` for a square kernel with one output channel, [B, C, H, W] -> [B, 1, H, W].

    Kernels of a CPU compute many output channels at once, and waste them on one. So each row of the kernel becomes an output
    channel of a convolution along x, and the channels are added up, each moved to its row: five times as fast.
    """
    size, height = layer.kernel_size[0], x.shape[2]
    rows = F.conv2d(x, layer.weight[0].transpose(0, 1).unsqueeze(2), padding=(0, size // 2))
    rows = F.pad(rows, (0, 0, size // 2, size // 2))
    return sum(rows[:, k:k + 1, k:k + height] for k in range(size)) + bias_of(layer).view(-1, 1, 1)


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
        spatial_gate = torch.sigmoid(_to_one_channel(x, self.spatial) if one_by_one(x) else self.spatial(x))
        return torch.addcmul(x * (1 + channel_gate), x, spatial_gate)
