"""Reconstruction: a three-scale UNet from fused features to a linear RGB image of twice the size."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from jddb_plugin.archs.blocks import AttentionBlock, act, conv, conv_pair


class Reconstruction(nn.Module):
    """Maps [B, C, H, W] (H and W even) to linear camera RGB [B, 3, 2H, 2W].

    There is no skip from the input and no final activation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        c1, c2, c4 = channels, 2 * channels, 4 * channels
        self.up_input: nn.Module = nn.ConvTranspose2d(c1, c1, 2, 2)
        self.encode1 = nn.Sequential(conv_pair(c1, c1), AttentionBlock(c1))
        self.down1 = conv(c1, c2, stride=2)
        self.encode2 = nn.Sequential(conv_pair(c2, c2), AttentionBlock(c2))
        self.down2 = conv(c2, c4, stride=2)
        self.middle = nn.Sequential(conv_pair(c4, c4), AttentionBlock(c4), conv_pair(c4, c4))
        self.up2 = nn.ConvTranspose2d(c4, c2, 2, 2)
        self.decode2 = nn.Sequential(conv_pair(c4, c2), AttentionBlock(c2))
        self.up1 = nn.ConvTranspose2d(c2, c1, 2, 2)
        self.output = nn.Sequential(
            conv(c2, c1, orthogonal=True), act(),
            conv(c1, c1, bias=False, orthogonal=True), act(),
            conv(c1, 3, bias=False, orthogonal=True))

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct the image."""
        skip1 = self.encode1(self.up_input(x))
        skip2 = self.encode2(self.down1(skip1))
        x = self.middle(self.down2(skip2))
        x = self.decode2(torch.cat((self.up2(x), skip2), dim=1))
        return self.output(torch.cat((self.up1(x), skip1), dim=1))
