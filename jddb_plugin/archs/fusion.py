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
        """New state [B, C, H, W] from the previous one and the input ``x``, both of that shape."""
        state_and_input = torch.cat((state, x), dim=1)
        z = torch.sigmoid(self.update(state_and_input))
        r = torch.sigmoid(self.reset(state_and_input))
        q = torch.tanh(self.candidate(torch.cat((r * state, x), dim=1)))
        return (1 - z) * state + z * q


class BidirectionalFusion(nn.Module):
    """Run one shared cell from both ends of the burst to the reference, and join the two states.

    States start at zero. Those beyond the reference are never used, so they are not computed.
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
            interpolate: also return the fusion of the states just before the reference, which do not depend on it.

        Returns:
            (fused, interpolated or None).
        """
        last = features.shape[1] - 1
        before = []
        states = []
        for order in (range(ref_idx), range(last, ref_idx, -1)):
            state = torch.zeros_like(features[:, 0])
            for t in order:
                state = self.cell(state, features[:, t])
            before.append(state)
            states.append(self.cell(state, features[:, ref_idx]))
        fused = self.join(torch.cat(states, dim=1))
        return fused, self.join(torch.cat(before, dim=1)) if interpolate else None
