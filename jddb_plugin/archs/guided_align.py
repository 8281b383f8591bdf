"""Alignment by a pyramid of deformable convolutions whose offsets come from other features than those that move.

After EDVR's PCD with its cascade. GCP-Net takes the offsets from the green channels and keeps a memory of them from frame to
frame; RViDeNet takes them from frames that were denoised before.
"""
from __future__ import annotations

from typing import Optional, Sequence, cast

import torch
import torch.nn.functional as F
from basicsr.archs.arch_util import DCNv2Pack
from torch import Tensor, nn

from jddb_plugin.archs.blocks import act, conv

#: Hidden state and cell of a :class:`ConvLSTM`.
State = tuple[Tensor, Tensor]


class ConvLSTM(nn.Module):
    """Convolutional LSTM cell: gates i, f, o and candidate g of a 3x3 convolution of (x, hidden).

    Args:
        channels: of the input.
        hidden: of the state.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = conv(channels + hidden, 4 * hidden)

    def forward(self, x: Tensor, state: Optional[State]) -> State:
        """New (hidden, cell), each [B, hidden, H, W], from x [B, C, H, W]; None is a state of zeros."""
        if state is None:
            zeros = x.new_zeros(x.shape[0], self.hidden, *x.shape[2:])
            state = (zeros, zeros)
        i, f, o, g = self.gates(torch.cat((x, state[0]), dim=1)).chunk(4, dim=1)
        cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell


class _Level(nn.Module):
    """One level: offset features from the guides of (frame, reference), and a deformable convolution.

    Args:
        channels: C.
        groups: deformable groups.
        memory: hidden channels of a ConvLSTM of the offset features; 0 for none.
        coarsest: there is no level above.
        activate: the first convolution has an activation.
    """

    def __init__(self, channels: int, groups: int, memory: int, *, coarsest: bool, activate: bool) -> None:
        super().__init__()
        self.offset1 = conv(2 * channels, channels)
        if memory:
            self.memory = ConvLSTM(channels, memory)
            self.recall = conv(channels + memory, channels)
        if not coarsest:
            self.offset2 = conv(2 * channels, channels)
            self.join = conv(2 * channels, channels)
        self.offset3 = conv(channels, channels)
        self.dcn = DCNv2Pack(channels, channels, 3, padding=1, deformable_groups=groups)
        self.act = act()
        self.has_memory, self.activate = bool(memory), activate

    def offsets(self, guide: Tensor, reference: Tensor, above: Optional[Tensor],
                state: Optional[State]) -> tuple[Tensor, Optional[State]]:
        """Offset features [B, C, H, W] and the new state; ``above`` are those of the coarser level."""
        x = self.offset1(torch.cat((guide, reference), dim=1))
        if self.activate:
            x = self.act(x)
        if self.has_memory:
            hidden, cell = self.memory(x, state)
            state = hidden, cell
            x = self.act(self.recall(torch.cat((x, hidden), dim=1)))
        if above is not None:
            # Offsets are in pixels of their own level, so they double with the resolution.
            x = self.act(self.offset2(torch.cat((x, 2 * _double(above)), dim=1)))
        return self.act(self.offset3(x)), state

    def move(self, features: Tensor, offsets: Tensor, above: Optional[Tensor]) -> Tensor:
        """Features moved by the offsets, joined with those of the coarser level; no activation."""
        moved = self.dcn(features, offsets)
        return moved if above is None else self.join(torch.cat((moved, _double(above)), dim=1))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)


class GuidedAlign(nn.Module):
    """Align features to the reference by offsets that are predicted from a guide.

    Args:
        channels: of features and guides, C.
        groups: deformable groups, must divide C.
        memory: hidden channels of the ConvLSTM at each level; 0 for none.
        guided_cascade: the last stage takes its offsets from the aligned guide and the reference's guide; otherwise from the
            aligned features and the reference's.
        activate_finest: the first convolution of the finest level has an activation, as those of the others have.
    """

    def __init__(self, channels: int, groups: int, memory: int = 0, *, guided_cascade: bool, activate_finest: bool) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            _Level(channels, groups, memory, coarsest=k == 2, activate=k > 0 or activate_finest) for k in range(3))
        self.cascade_offset = nn.Sequential(conv(2 * channels, channels), act(), conv(channels, channels), act())
        self.cascade = DCNv2Pack(channels, channels, 3, padding=1, deformable_groups=groups)
        self.guided_cascade = guided_cascade
        self.act = act()

    @property
    def finest(self) -> _Level:
        """The level of full resolution."""
        return cast(_Level, self.levels[0])

    def forward(self, features: Sequence[Tensor], guides: Sequence[Tensor], reference: Tensor, reference_guides: Sequence[Tensor],
                states: Optional[Sequence[Optional[State]]] = None) -> tuple[Tensor, list[Optional[State]]]:
        """Align one frame.

        Args:
            features, guides: of the frame, from the finest level to the coarsest: [B, C, H, W], half and a quarter of it.
            reference: features of the reference at the finest level.
            reference_guides: its guides at all levels.
            states: of the memories after the frame before; None for the first frame.

        Returns:
            The aligned features [B, C, H, W], and the states for the next frame.
        """
        states = list(states or [None] * 3)
        offsets: Optional[Tensor] = None
        aligned: list[Tensor] = []
        aligned_guides: list[Tensor] = []
        for k in (2, 1, 0):
            level = cast(_Level, self.levels[k])
            offsets, states[k] = level.offsets(guides[k], reference_guides[k], offsets, states[k])
            aligned.append(level.move(features[k], offsets, self.act(aligned[-1]) if aligned else None))
            if self.guided_cascade:
                above = self.act(aligned_guides[-1]) if aligned_guides else None
                aligned_guides.append(level.move(guides[k], offsets, above))
        pair = (aligned_guides[-1], reference_guides[0]) if self.guided_cascade else (aligned[-1], reference)
        return self.act(self.cascade(aligned[-1], self.cascade_offset(torch.cat(pair, dim=1)))), states
