"""Coarse alignment of a burst by differentiable progressive block matching (section 3.2).

Usable alone: ``network_g: {type: DPBM, ...}`` aligns whole frames; as a part of a network its methods work on
single tiles.
"""
from __future__ import annotations

from typing import Optional, cast

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from jddb_plugin.archs.blocks import act, conv
from jddb_plugin.archs.tiled import process_tiles
from jddb_plugin.checks import OptionError, ShapeError, check_choice, check_ndim
from jddb_plugin.ops.block_matching import Match, SearchWindow, match_tiles
from jddb_plugin.ops.patch_distance import slices
from jddb_plugin.ops.tile_extraction import blend_tiles, extract_tiles
from jddb_plugin.ops.tiling import make_grid

#: Pixels of the packed raw per feature pixel.
SCALE = 4
#: Pixels around a feature pixel that it depends on, a multiple of :data:`SCALE`: 13 of the downsampler, 8 of the bicubic filter.
CONTEXT = 16
#: Tiles of whole frames that are aligned at once.
_TILE_BATCH = 16


def _downsampler(in_channels: int, channels: int) -> nn.Sequential:
    """Lightweight network to 1/4 size. Its instance norm runs over all that is fed in."""
    return nn.Sequential(
        conv(in_channels, channels, stride=2, bias=False), conv(channels, channels), act(),
        conv(channels, channels, stride=2, bias=False), conv(channels, channels), act(),
        conv(channels, channels), nn.InstanceNorm2d(channels))


@ARCH_REGISTRY.register()
class DPBM(nn.Module):
    """Differentiable progressive block matching.

    Args:
        match_channels: the first channels of a frame that are matched: 4 for packed raw (what follows, such as a
            noise map, only moves along), 3 for RGB.
        num_feat: features of the downsampler.
        features: 'learned' for the paper's downsampler; 'bicubic' for plain block matching on a bicubically
            downsampled burst (the paper's "w/o E2E"), which has no parameters and is always hard.
        radius: largest displacement of the first search in feature pixels (1/4 of the input's).
        stride: its step.
        window: 'symmetric' or 'released', see :class:`SearchWindow`.
        temperature: T of eq. (2) while training; evaluation is always hard. State of the module that a hook
            changes through :attr:`temperature`.

    Methods take the index of the reference frame, by default that of the middle one.
    """

    #: Pixels of a frame per feature pixel.
    scale = SCALE

    def __init__(self, match_channels: int = 4, num_feat: int = 16, features: str = 'learned', radius: int = 6,
                 stride: int = 2, window: str = 'symmetric', temperature: float = 1e-2) -> None:
        super().__init__()
        check_choice(features, ('learned', 'bicubic'), 'features')
        if temperature <= 0:
            raise OptionError(f'temperature: must be positive, got {temperature}.')
        self.match_channels = match_channels
        self.num_feat = num_feat
        self.downsample = _downsampler(match_channels, num_feat) if features == 'learned' else None
        self.window = SearchWindow(radius, stride, window)
        self.temperature = temperature

    def extract(self, frames: Tensor) -> Tensor:
        """Features that are matched: [B, N, C, H, W] -> [B, N, F, H / 4, W / 4]; H and W multiples of 4."""
        features = self.convolve(frames)
        return features if self.downsample is None else self.downsample[-1](features.flatten(0, 1)).view_as(features)

    def normalize_features(self, features: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """The norm of :meth:`extract` for parts [B, N, F, h, w] of frames that have this mean and variance, [B, N, F]."""
        if self.downsample is None:
            return features
        norm = cast(nn.InstanceNorm2d, self.downsample[-1])
        scale = (variance + norm.eps).rsqrt()
        return (features - mean[..., None, None]) * scale[..., None, None]

    def convolve(self, frames: Tensor) -> Tensor:
        """:meth:`extract` without its last step, the norm over each whole frame. Its context is :data:`CONTEXT` pixels."""
        check_ndim(frames, 'B N C H W', 'frames')
        if frames.shape[2] < self.match_channels or frames.shape[3] % SCALE or frames.shape[4] % SCALE:
            raise ShapeError(f'DPBM: expected frames [B, N, C >= {self.match_channels}, H, W] with H and W multiples of '
                             f'{SCALE}, got {list(frames.shape)}; RGB needs match_channels: 3.')
        flat = frames[:, :, :self.match_channels].flatten(0, 1)
        # What a frame's widest layer takes; with gradients every layer is kept anyway.
        frame_bytes = self.num_feat * flat[0, 0].numel() // 4 * flat.element_size()
        parts = [slice(None)] if torch.is_grad_enabled() else slices(len(flat), frame_bytes, flat.device)
        return torch.cat([self._convolve(flat[part]) for part in parts]).unflatten(0, frames.shape[:2])

    def _convolve(self, frames: Tensor) -> Tensor:
        if self.downsample is None:
            return F.interpolate(frames, scale_factor=1 / SCALE, mode='bicubic', antialias=True, align_corners=False)
        # Channels last is what the matching wants, and more than twice as fast here on a CPU.
        return self.downsample[:-1](frames.contiguous(memory_format=torch.channels_last))

    def match(self, frames: Tensor, positions: Tensor, size: tuple[int, int], ref_idx: Optional[int] = None) -> Match:
        """Find tiles of the reference frame in the other frames.

        Soft while training on learned features, hard otherwise.

        Args:
            frames: [B, N, C, H, W], H and W multiples of 4.
            positions: [B, T, 2], corners in pixels of ``frames``, multiples of 4.
            size: of a tile in pixels of ``frames``, multiples of 4.
            ref_idx: index of the reference.

        Returns:
            The match in feature pixels.
        """
        return self.match_features(self.extract(frames), positions, size, ref_idx)

    def match_features(self, features: Tensor, positions: Tensor, size: tuple[int, int], ref_idx: Optional[int] = None,
                       window: Optional[SearchWindow] = None) -> Match:
        """:meth:`match` of what :meth:`extract` gave, within the module's search window or another one."""
        soft = self.training and self.downsample is not None
        return match_tiles(
            features, positions // SCALE, (size[0] // SCALE, size[1] // SCALE), ref_idx=middle_frame(features, ref_idx),
            window=window or self.window, temperature=self.temperature if soft else None)

    def align(self, frames: Tensor, positions: Tensor, size: tuple[int, int], match: Match,
              ref_idx: Optional[int] = None) -> Tensor:
        """Aligned tiles [B, T, N, C, *size]: blended where the match is soft, cut out where it is hard."""
        if match.fine.weight is None:
            return extract_tiles(frames, positions, match.offset * SCALE, size)
        return blend_tiles(frames, positions, match, size, ref_idx=middle_frame(frames, ref_idx), window=self.window, scale=SCALE)

    def forward(self, frames: Tensor, ref_idx: Optional[int] = None, *, tile: int = 64, overlap: int = 4) -> Tensor:
        """Align whole frames: [B, N, C, H, W] -> the same shape, every frame moved onto the reference, tile by tile."""
        grid = make_grid(*frames.shape[-2:], tile=tile, overlap=overlap, multiple=SCALE)
        aligned = process_tiles(frames, grid, lambda tiles: tiles.flatten(1, 2), coarse=self, tile_batch=_TILE_BATCH,
                             ref_idx=middle_frame(frames, ref_idx))
        return aligned.unflatten(1, frames.shape[1:3])


def middle_frame(frames: Tensor, ref_idx: Optional[int]) -> int:
    """``ref_idx``, or the index of the middle one of ``frames`` [B, N, ...].

    Raises:
        ShapeError: there is no such frame.
    """
    count = frames.shape[1]
    ref_idx = count // 2 if ref_idx is None else ref_idx
    if not 0 <= ref_idx < count:
        raise ShapeError(f'ref_idx is {ref_idx}, but the burst has {count} frames; expected 0 .. {count - 1}.')
    return ref_idx
