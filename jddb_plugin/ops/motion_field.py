"""A smooth field of motion through the matches of a grid of windows.

Not of the paper, which moves every tile as a whole by a multiple of four pixels. Here matches are refined to fractions of a
pixel and interpolated between the windows' centers, so that motion which changes within a tile is followed, and nothing
depends on where tiles lie.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jddb_plugin.ops.patch_distance import extract_patches, patch_distances

#: Pixels around a match among which a finer one is looked for: what lies between two positions of a search with step 4, and one.
FINER = 3


def _vertex(before: Tensor, at: Tensor, after: Tensor) -> Tensor:
    """Place of the minimum of a parabola through three neighboring values, of which the middle one is the least."""
    bend = before - 2 * at + after
    return torch.where(bend > 0, (before - after) / (2 * bend).clamp(min=torch.finfo(at.dtype).tiny), 0.0).clamp(-0.5, 0.5)


def refine_offsets(reference: Tensor, frame: Tensor, corners: Tensor, offsets: Tensor, size: tuple[int, int]) -> Tensor:
    """Fractions of a pixel by which windows were moved.

    The mean absolute difference is computed for all displacements up to :data:`FINER` pixels around each offset; a parabola
    through the least one and its neighbors gives the fraction, along each axis. At the end of that range there is none.

    Args:
        reference, frame: [H, W, C], float32 or float64, of variance that does not depend on brightness.
        corners: [S, 2], int64, of the windows in the reference; they lie inside it.
        offsets: [S, 2], int64, where they were found.
        size: of a window.

    Returns:
        [S, 2] in pixels.

    Examples:
        >>> line = torch.linspace(0, 1, 24, dtype=torch.float64)
        >>> frame = torch.stack((line[:, None] + line, line[:, None] * line), dim=-1)
        >>> corners = torch.tensor([[8, 8]])
        >>> refine_offsets(frame, frame, corners, torch.zeros_like(corners), (8, 8)).abs().max().item() < 0.5
        True
    """
    images = torch.stack((reference, frame))
    index = torch.zeros(len(corners), dtype=torch.int64, device=corners.device)
    windows = extract_patches(images, index, corners, size)
    side = 2 * FINER + 1
    distance = patch_distances(images, index + 1, corners + offsets, windows, (-FINER, FINER, 1)).view(-1, side, side)
    best = distance.flatten(1).argmin(dim=1)
    y, x = best // side, best % side
    every = torch.arange(len(best), device=best.device)
    fraction = []
    for place, step in ((y, (1, 0)), (x, (0, 1))):
        inside = (place > 0) & (place < side - 1)
        dy, dx = (inside.long() * one for one in step)
        vertex = _vertex(distance[every, y - dy, x - dx], distance[every, y, x], distance[every, y + dy, x + dx])
        fraction.append(place - FINER + torch.where(inside, vertex, 0.0))
    return offsets + torch.stack(fraction, dim=1)


def replace_outliers(offsets: Tensor, jump: float) -> Tensor:
    """Motion that fewer than a quarter of the windows around share becomes their median.

    Windows overlap, so what moves on its own lies in several of them; a window whose motion stands alone was matched in
    the wrong place.

    Args:
        offsets: [N, R, C, 2], floating point.
        jump: what differs by at most so many pixels along both axes is shared.

    Examples:
        >>> offsets = torch.zeros(1, 3, 3, 2)
        >>> offsets[0, 1, 1] = 40
        >>> replace_outliers(offsets, jump=2)[0, 1, 1].tolist()
        [0.0, 0.0]
    """
    padded = F.pad(offsets.permute(0, 3, 1, 2), (1, 1, 1, 1), value=torch.nan)
    around = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
    around = torch.cat((around[..., :4], around[..., 5:]), dim=-1).permute(0, 2, 3, 4, 1)  # the eight, [N, R, C, 8, 2]
    there = ~around.isnan().any(dim=-1)
    shared = ((around - offsets[..., None, :]).abs().amax(dim=-1) <= jump) & there
    outlier = (shared.sum(dim=-1) < there.sum(dim=-1) / 4) & there.any(dim=-1)
    return torch.where(outlier[..., None], around.nanmedian(dim=-2).values, offsets)


def _neighbors(centers: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """(index of the last center before each place, how far towards the next one it lies in 0 .. 1)."""
    if len(centers) == 1:
        return torch.zeros_like(places, dtype=torch.int64), torch.zeros_like(places)
    index = (torch.searchsorted(centers, places, right=True) - 1).clamp(0, len(centers) - 2)
    return index, ((places - centers[index]) / (centers[index + 1] - centers[index])).clamp(0, 1)


@dataclass(frozen=True)
class MotionField:
    """Where pixels of the reference lie in the other frames.

    Attributes:
        rows, cols: [R], [C], centers of the windows, ascending, in pixels from the frame's corner.
        offsets: [N, R, C, 2], motion at the centers, 0 for the reference.
        jump: of the four windows around a pixel those count whose motion differs from the nearest one's by at most so many
            pixels along both axes; the others move with something else.
    """

    rows: Tensor
    cols: Tensor
    offsets: Tensor
    jump: float

    def at(self, frame: int, first: int, last: int, width: int) -> Tensor:
        """Motion of rows ``first`` to ``last - 1``, [rows, width, 2]: bilinear between the centers, constant beyond them."""
        device = self.offsets.device
        row, down = _neighbors(self.rows, torch.arange(first, last, device=device) + 0.5)
        col, right = _neighbors(self.cols, torch.arange(width, device=device) + 0.5)
        motion = self.offsets[frame]
        below, beside = (row + 1).clamp(max=len(self.rows) - 1), (col + 1).clamp(max=len(self.cols) - 1)
        corners = torch.stack([motion[r][:, c] for r in (row, below) for c in (col, beside)])
        weights = torch.stack([v[:, None] * h for v in (1 - down, down) for h in (1 - right, right)])
        nearest = weights.argmax(dim=0)
        base = corners.gather(0, nearest[None, ..., None].expand(1, *corners.shape[1:]))
        weights = weights * ((corners - base).abs().amax(dim=-1) <= self.jump)
        return (weights[..., None] * corners).sum(dim=0) / weights.sum(dim=0)[..., None]
