"""Non-local attention of RViDeNet: spatial (criss-cross), over channels, and over frames."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn

#: Scores that are computed at once where no gradient is wanted, as numbers.
_CHUNK = 1 << 25


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Optional[Tensor]) -> tuple[Tensor, Tensor]:
    """Softmax attention within sequences, and the logarithm of its denominator.

    Args:
        query, key: [L, S, D].
        value: [L, S, C].
        mask: [S, S], added to the scores.

    Returns:
        [L, S, C], and [L, S, 1].
    """
    length = query.shape[1]
    step = len(query) if torch.is_grad_enabled() else max(1, _CHUNK // (length * length))
    results = []
    for first in range(0, len(query), step):
        part = slice(first, first + step)
        scores = query[part] @ key[part].transpose(1, 2)
        if mask is not None:
            scores = scores + mask
        total = scores.logsumexp(dim=-1, keepdim=True)
        results.append(((scores - total).exp() @ value[part], total))
    values, totals = zip(*results)
    return torch.cat(values), torch.cat(totals)


def criss_cross(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of every pixel to the pixels of its row and of its column, itself counted once.

    Row and column are attended to separately and joined by their softmax's denominators, so that memory is bounded
    without a gradient.

    Args:
        query, key: [B, D, H, W], H at least 2.
        value: [B, C, H, W].

    Returns:
        [B, C, H, W].
    """
    batch, _, height, width = value.shape

    def along_rows(x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(0, 1)

    def along_columns(x: Tensor) -> Tensor:
        return x.permute(0, 3, 2, 1).flatten(0, 1)

    row, row_total = _attend(along_rows(query), along_rows(key), along_rows(value), None)
    itself = torch.full((height,), float('-inf'), device=query.device, dtype=query.dtype).diag_embed()
    itself = torch.where(torch.eye(height, device=query.device, dtype=torch.bool), itself, torch.zeros_like(itself))
    column, column_total = _attend(along_columns(query), along_columns(key), along_columns(value), itself)
    row, row_total = (x.unflatten(0, (batch, height)).permute(0, 3, 1, 2) for x in (row, row_total))
    column, column_total = (x.unflatten(0, (batch, width)).permute(0, 3, 2, 1) for x in (column, column_total))
    return torch.lerp(column, row, torch.sigmoid(row_total - column_total))


class CrissCrossAttention(nn.Module):
    """Criss-cross attention (Huang et al., ICCV 2019), added to its input with a learned weight that begins at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        return x + self.weight * criss_cross(self.query(x), self.key(x), self.value(x))


class GramAttention(nn.Module):
    """Attention of the maps of a stack to each other by how little they have in common (Fu et al., CVPR 2019).

    Over channels, or over frames; the similarity is summed over all pixels. Added with a weight that begins at zero.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, M, H, W] -> the same shape."""
        maps = x.flatten(2)
        attention = torch.softmax(-(maps @ maps.transpose(1, 2)), dim=-1)
        return x + self.weight * (attention @ maps).view_as(x)


def _around(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.ReLU())


class NonLocalAttention(nn.Module):
    """The three attentions side by side, their sum through a 1x1 convolution, added to the aligned features.

    Args:
        channels: features C, at least 8.
        num_frame: frames N.
    """

    def __init__(self, channels: int, num_frame: int) -> None:
        super().__init__()
        self.spatial = CrissCrossAttention(channels)
        self.channel, self.temporal = GramAttention(), GramAttention()
        self.before = nn.ModuleList([_around(channels), _around(channels), _around(num_frame)])
        self.after = nn.ModuleList([_around(channels), _around(channels), _around(num_frame)])
        self.join = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """[B, N, C, H, W] -> the same shape."""
        batch, count = features.shape[:2]
        frames = features.flatten(0, 1)
        spatial = self.after[0](self.spatial(self.spatial(self.before[0](frames))))
        channel = self.after[1](self.channel(self.before[1](frames)))
        stacks = features.transpose(1, 2).flatten(0, 1)
        temporal = self.after[2](self.temporal(self.before[2](stacks))).unflatten(0, (batch, -1)).transpose(1, 2)
        total = spatial + channel + temporal.flatten(0, 1)
        return features + self.join(total).unflatten(0, (batch, count))
