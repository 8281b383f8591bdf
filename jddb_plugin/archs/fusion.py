"""Fusion of aligned features by a bidirectional convolutional GRU (section 3.4, eq. 4)."""
from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jddb_plugin.archs.blocks import conv


class ConvGRU(nn.Module):
    """One recurrent cell: update gate z, reset gate r, candidate q."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.update = conv(2 * channels, channels)
        self.reset = conv(2 * channels, channels)
        self.candidate = conv(2 * channels, channels)

    def look(self, x: Tensor) -> Tensor:
        """What the inputs x [B, C, H, W] add to update gate, reset gate and candidate, [B, 3 C, H, W].

        A convolution of (state, x) is the sum of one of the state and one of x, which does not wait for the state: one call
        serves all frames, and the reference counts once for both directions.
        """
        layers = (self.update, self.reset, self.candidate)
        weight = torch.cat([layer.weight[:, self.channels:] for layer in layers])
        return F.conv2d(x, weight, torch.cat([layer.bias for layer in layers]), padding=1)

    def forward(self, state: Optional[Tensor], seen: Tensor) -> Tensor:
        """New state [B, C, H, W].

        Args:
            state: [B, C, H, W]; None is the state of zeros that a walk begins with.
            seen: of the input, from :meth:`look`.
        """
        z, r, q = seen.chunk(3, dim=1)
        if state is None:
            return torch.sigmoid(z) * torch.tanh(q)
        gates = torch.cat([layer.weight[:, :self.channels] for layer in (self.update, self.reset)])
        more_z, more_r = F.conv2d(state, gates, padding=1).chunk(2, dim=1)
        z, r = torch.sigmoid(z + more_z), torch.sigmoid(r + more_r)
        q = torch.tanh(q + F.conv2d(r * state, self.candidate.weight[:, :self.channels], padding=1))
        return torch.lerp(state, q, z)


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
        seen = self.cell.look(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        before = []
        states = []
        for walk in (range(ref_idx), range(num_frames - 1, ref_idx, -1)):
            state = None
            for t in walk:
                state = self.cell(state, seen[:, t])
            before.append(torch.zeros_like(features[:, 0]) if state is None else state)
            states.append(self.cell(state, seen[:, ref_idx]))
        fused = self.join(torch.cat(states, dim=1))
        return fused, self.join(torch.cat(before, dim=1)) if interpolate else None
