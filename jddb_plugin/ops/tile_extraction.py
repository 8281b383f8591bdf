"""Tiles moved onto the reference: cut out where a match is hard, blended by its weights where it is soft (section 3.2)."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jddb_plugin.checks import OptionError
from jddb_plugin.ops.block_matching import Match, SearchWindow
from jddb_plugin.ops.patch_distance import extract_patches


def extract_tiles(frames: Tensor, positions: Tensor, offset: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the matched tiles out of full-resolution frames (hard alignment).

    Args:
        frames: [B, N, C, H, W].
        positions: [B, T, 2], corners of the tiles in pixels of ``frames``.
        offset: [B, T, N, 2], displacement in pixels of ``frames``.
        size: height and width of a tile.

    Returns:
        [B, T, N, C, height, width].

    Examples:
        >>> frames = torch.rand(1, 2, 3, 16, 16)
        >>> offset = torch.tensor([[[[0, 0], [1, 2]]]])
        >>> tiles = extract_tiles(frames, torch.tensor([[[4, 4]]]), offset, (8, 8))
        >>> torch.equal(tiles[0, 0, 1], frames[0, 1, :, 5:13, 6:14])
        True
    """
    batch, num_frames = frames.shape[:2]
    corner = (positions[:, :, None] + offset).reshape(-1, 2)
    index = torch.arange(batch * num_frames, device=corner.device).view(batch, 1, num_frames)
    index = index.expand(offset.shape[:3]).reshape(-1)
    rows = corner[:, 0, None] + torch.arange(size[0], device=corner.device)
    cols = corner[:, 1, None] + torch.arange(size[1], device=corner.device)
    tiles = frames.flatten(0, 1)[index[:, None, None], :, rows[:, :, None], cols[:, None, :]]
    return tiles.permute(0, 3, 1, 2).unflatten(0, tuple(offset.shape[:3])).contiguous()


def blend_tiles(frames: Tensor, positions: Tensor, match: Match, size: tuple[int, int], *, ref_idx: int,
                window: SearchWindow, scale: int) -> Tensor:
    """Average the candidates of the fine search by their weights (soft alignment).

    The sum over shifted tiles is a correlation of one region with the weights as its kernel, dilated by
    ``scale``: no stack of candidates is ever made.

    Args:
        frames: [B, N, C, H, W].
        positions: [B, T, 2], corners of the tiles in pixels of ``frames``.
        match: soft match, found on features ``scale`` times smaller than ``frames``.
        size: height and width of a tile in pixels of ``frames``.
        ref_idx, window: as given to :func:`match_tiles`.
        scale: pixels of ``frames`` per feature pixel.

    Returns:
        [B, T, N, C, height, width]; the reference's tile is cut as it is.

    Reference:
        Section 3.2: P_BM = sum_i w_i P_i.

    Examples:
        >>> from jddb_plugin.ops import match_tiles
        >>> burst, corner, window = torch.rand(1, 3, 2, 16, 16), torch.tensor([[[4, 4]]]), SearchWindow(radius=2, stride=1)
        >>> match = match_tiles(burst, corner, (4, 4), ref_idx=1, window=window, temperature=0.01)
        >>> blend_tiles(burst, corner, match, (4, 4), ref_idx=1, window=window, scale=1).shape
        torch.Size([1, 1, 3, 2, 4, 4])
    """
    if match.fine.weight is None:
        raise OptionError('blend_tiles needs a soft match: give match_tiles a temperature.')
    batch, num_frames, channels = frames.shape[:3]
    tiles = positions.shape[1]
    others = torch.tensor([t for t in range(num_frames) if t != ref_idx], device=frames.device)
    index = torch.arange(batch, device=frames.device)[:, None, None] * num_frames + others
    index = index.expand(batch, tiles, -1).reshape(-1)
    first, last, _ = window.fine
    count = last - first + 1
    corner = match.fine.center.reshape(-1, 2) * scale + first * scale
    region_size = (size[0] + (count - 1) * scale, size[1] + (count - 1) * scale)
    region = extract_patches(frames.flatten(0, 1).permute(0, 2, 3, 1), index, corner, region_size).permute(0, 3, 1, 2)
    kernel = match.fine.weight.reshape(-1, 1, count, count).to(region.dtype)
    blended = F.conv2d(region.reshape(1, -1, *region_size), kernel.repeat_interleave(channels, dim=0),
                       dilation=scale, groups=region.shape[0] * channels)
    blended = blended.view(batch, tiles, num_frames - 1, channels, *size)
    reference = extract_tiles(frames[:, ref_idx:ref_idx + 1], positions, torch.zeros_like(match.offset[:, :, :1]), size)
    return torch.cat((blended[:, :, :ref_idx], reference, blended[:, :, ref_idx:]), dim=2)
