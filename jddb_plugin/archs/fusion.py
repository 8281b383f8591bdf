"""Fusion of aligned features by a bidirectional convolutional GRU (section 3.4, eq. 4)."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn

from jddb_plugin.archs.blocks import conv


class ConvGRU(nn.Module):
    """One recurrent cell: update gate z, reset gate r, candidate q."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.update = conv(2 * channels, channels)
        self.reset = conv(2 * channels, channels)
        self.candidate = conv(2 * channels, channels)

    def forward(self, state: Tensor, x: Tensor) -> Tensor:
        """New state from ``state`` and input ``x``, all [B, C, H, W]."""
        joined = torch.cat((state, x), dim=1)
        z = torch.sigmoid(self.update(joined))
        r = torch.sigmoid(self.reset(joined))
        q = torch.tanh(self.candidate(torch.cat((r * state, x), dim=1)))
        return (1 - z) * state + z * q


class BidirectionalFusion(nn.Module):
    """Walk from both ends of the burst to the reference with one shared cell, and join the two states.

    States beyond the reference are never used, so they are not computed.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cell = ConvGRU(channels)
        self.join = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, features: Tensor, ref_idx: int, *, interpolate: bool = False) -> tuple[Tensor, Optional[Tensor]]:
        """Fuse ``features`` [B, N, C, H, W] into [B, C, H, W].

        Args:
            features: aligned features.
            ref_idx: index of the reference frame.
            interpolate: also return the fusion of the states just before the reference, which have not seen it.

        Returns:
            (fused, interpolated or None).
        """
        num_frames = features.shape[1]
        zero = torch.zeros_like(features[:, 0])
        before = []
        states = []
        for walk in (range(ref_idx), range(num_frames - 1, ref_idx, -1)):
            state = zero
            for t in walk:
                state = self.cell(state, features[:, t])
            before.append(state)
            states.append(self.cell(state, features[:, ref_idx]))
        fused = self.join(torch.cat(states, dim=1))
        return fused, self.join(torch.cat(before, dim=1)) if interpolate else None
