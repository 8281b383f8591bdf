"""The paper's network: a differentiable two-stage alignment scheme for burst reconstruction (Guo et al., CVPR 2022).

Coarse alignment moves tiles (:class:`DPBM`), refined alignment moves features (:class:`PyramidAlign`), a
bidirectional GRU fuses the frames (:class:`BidirectionalFusion`) and a UNet reconstructs the picture
(:class:`Reconstruction`). Both stages live in one network; the coarse one is the submodule ``coarse``.
"""
from __future__ import annotations

from typing import Mapping, NamedTuple, Optional, Union

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from jddb_plugin.archs.blocks import AttentionBlock, act, conv, one_by_one
from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.archs.dpbm_arch import DPBM, SCALE
from jddb_plugin.archs.fusion import BidirectionalFusion
from jddb_plugin.archs.passthrough import init_passthrough
from jddb_plugin.archs.pixel_align import PyramidAlign
from jddb_plugin.archs.reconstruction import Reconstruction
from jddb_plugin.archs.tile_walk import still_tiles, walk_tiles
from jddb_plugin.checks import OptionError, ShapeError, check_choice
from jddb_plugin.ops.block_matching import Match
from jddb_plugin.ops.tiling import make_grid
from jddb_plugin.options import check_call, check_keys

#: Pixels of the RGB result per pixel of the packed raw.
UPSCALE = 2


class TileOutput(NamedTuple):
    """What the losses need of one training tile per sample.

    Attributes:
        restored: linear camera RGB [B, 3, 2 tile, 2 tile].
        interpolated: the reference as reconstructed from the other frames alone (the paper's x-hat-i).
        match: what the coarse alignment saw; None without coarse alignment.
        offset_size: mean absolute offset of the deformable convolutions at levels 1 to 3, in px of the level; empty
            without refined alignment.
    """

    restored: Tensor
    interpolated: Tensor
    match: Optional[Match]
    offset_size: Tensor


class Restored(NamedTuple):
    """Result of :class:`RefinedStage`, see :class:`TileOutput`; ``interpolated`` is None unless asked for."""

    restored: Tensor
    interpolated: Optional[Tensor]
    offset_size: Tensor


class RefinedStage(nn.Module):
    """From coarsely aligned tiles to RGB.

    Args:
        num_feat: features C.
        deformable_groups: of the deformable convolutions.
        refined: 'dcn' for pyramid alignment, 'none' to fuse the features as they are.
        dcn_backend: see :mod:`jddb_plugin.ops.deform_conv`.
    """

    def __init__(self, num_feat: int, deformable_groups: int, refined: str, dcn_backend: str) -> None:
        super().__init__()
        layers = [conv(8, num_feat, orthogonal=True), act()]
        for _ in range(3):
            layers += [conv(num_feat, num_feat, bias=False, orthogonal=True), act()]
        layers.append(conv(num_feat, num_feat, bias=False, orthogonal=True))
        self.extract = nn.Sequential(nn.Sequential(*layers), *(AttentionBlock(num_feat) for _ in range(4)))
        self.align = PyramidAlign(num_feat, deformable_groups, dcn_backend) if refined == 'dcn' else None
        self.fuse = BidirectionalFusion(num_feat)
        self.reconstruct = Reconstruction(num_feat)

    def forward(self, tiles: Tensor, ref_idx: int, *, interpolate: bool = False) -> Restored:
        """Restore ``tiles`` [B, N, 8, H, W] (H and W multiples of 4) to linear camera RGB [B, 3, 2H, 2W]."""
        if one_by_one(tiles):
            features = torch.stack([self.extract(tiles[:, t]) for t in range(tiles.shape[1])], dim=1)
        else:
            features = self.extract(tiles.flatten(0, 1)).unflatten(0, tiles.shape[:2])
        size = tiles.new_zeros(0)
        if self.align is not None:
            features, size = self.align(features, ref_idx)
        fused, between = self.fuse(features, ref_idx, interpolate=interpolate)
        if between is None:
            return Restored(self.reconstruct(fused), None, size)
        return Restored(*self.reconstruct(torch.cat((fused, between))).chunk(2), size)


@ARCH_REGISTRY.register()
class TwoStageJDDB(BurstNetwork):
    """Joint denoising and demosaicking of a raw burst.

    The variants of the paper's table 4 are settings: full ``coarse=dpbm, refined=dcn``; w/o E2E
    ``coarse=block_matching, refined=dcn``; w/ CA ``dpbm, none``; w/ RA ``none, dcn``; w/o Align ``none, none``.

    Args:
        num_feat: features C; even, and a multiple of ``deformable_groups``.
        deformable_groups: groups of the deformable convolutions.
        coarse: 'dpbm', 'block_matching' (hard, on bicubic downsampling) or 'none'.
        refined: 'dcn' or 'none'.
        dpbm: options of the coarse stage, see :class:`DPBM`: tile, overlap, radius, stride, window, layout,
            temperature. Tile, overlap and layout hold without coarse alignment too.
        ref_idx: reference frame; the middle one if None.
        dcn_backend: see :mod:`jddb_plugin.ops.deform_conv`.
        tile_batch: tiles that are restored at once in whole frames.
        init: 'paper', or 'passthrough' for short training, see :mod:`jddb_plugin.archs.passthrough`.
    """

    multiple = SCALE

    def __init__(self, num_feat: int = 64, deformable_groups: int = 8, coarse: str = 'dpbm', refined: str = 'dcn',
                 dpbm: Optional[Mapping[str, object]] = None, ref_idx: Optional[int] = None, dcn_backend: str = 'auto',
                 tile_batch: int = 4, init: str = 'paper') -> None:
        super().__init__()
        check_choice(coarse, ('dpbm', 'block_matching', 'none'), 'network_g.coarse')
        check_choice(refined, ('dcn', 'none'), 'network_g.refined')
        check_choice(init, ('paper', 'passthrough'), 'network_g.init')
        if num_feat < 2 or deformable_groups < 1 or num_feat % 2 or num_feat % deformable_groups:
            raise OptionError(f'network_g: num_feat must be even and a multiple of deformable_groups, got {num_feat} and '
                              f'{deformable_groups}.')
        options = dict(dpbm or {})
        check_keys(options, ('tile', 'overlap', 'radius', 'stride', 'window', 'layout', 'temperature'), 'network_g.dpbm')
        check_call(DPBM, options, 'network_g.dpbm')
        features = 'learned' if coarse == 'dpbm' else 'bicubic'
        stage = DPBM(features=features, ref_idx=ref_idx, **options)
        self.coarse = None if coarse == 'none' else stage
        self.refine = RefinedStage(num_feat, deformable_groups, refined, dcn_backend)
        if init == 'passthrough':
            init_passthrough(self.refine)
        self.tile, self.overlap, self.layout = stage.tile, stage.overlap, stage.layout
        self.ref_idx = ref_idx
        if tile_batch < 1:
            raise OptionError(f'network_g.tile_batch: must be at least 1, got {tile_batch}.')
        self.tile_batch = tile_batch

    def coarse_parameters(self) -> list[nn.Parameter]:
        """Parameters of the coarse stage, which has its own learning rate."""
        return [] if self.coarse is None else list(self.coarse.parameters())

    def restore(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """The refined stage on coarsely aligned tiles, see :meth:`BurstNetwork.restore`."""
        self.check_tiles(tiles, ref_idx)
        return self.refine(tiles, ref_idx).restored

    def compile_restoration(self) -> None:
        """Run the refined stage through torch.compile from now on."""
        self.refine.compile()

    def forward(self, lq: Tensor, positions: Optional[Tensor] = None) -> Union[Tensor, TileOutput]:
        """Restore whole frames, or one training tile per sample.

        Args:
            lq: [B, N, 8, H, W]: packed raw in [0, 1] and its noise map (standard deviation), 4 planes each.
            positions: [B, 2], corners of the training tiles in packed px, multiples of 4. The search runs over
                all of ``lq``.

        Returns:
            Linear camera RGB [B, 3, 2H, 2W] of the reference frame; with positions a :class:`TileOutput`.

        Raises:
            ShapeError: wrong number of dimensions or channels, or a frame smaller than a tile.
        """
        if lq.ndim != 5 or lq.shape[2] != 8:
            raise ShapeError(f'lq: expected [B, N, 8, H, W] (4 raw planes, 4 noise map planes), got {list(lq.shape)}.')
        if positions is not None:
            return self._forward_tile(lq, positions)
        return self._forward_frame(lq)

    def _reference(self, lq: Tensor) -> int:
        ref_idx = lq.shape[1] // 2 if self.ref_idx is None else self.ref_idx
        if not 0 <= ref_idx < lq.shape[1]:
            raise OptionError(f'network_g.ref_idx is {ref_idx}, but the burst has {lq.shape[1]} frames.')
        return ref_idx

    def _forward_tile(self, lq: Tensor, positions: Tensor) -> TileOutput:
        size = (self.tile, self.tile)
        positions = positions[:, None]
        aligned, match = self._align(_crop_to_scale(lq), positions, size)
        result = self.refine(aligned[:, 0], self._reference(lq), interpolate=True)
        return TileOutput(result.restored, result.interpolated, match, result.offset_size)

    def _align(self, frames: Tensor, positions: Tensor, size: tuple[int, int]) -> tuple[Tensor, Optional[Match]]:
        if self.coarse is None:
            return still_tiles(frames, positions, size), None
        with torch.autocast(frames.device.type, enabled=False):  # small, and bfloat16 would blur which tile is nearest
            match = self.coarse.match(frames, positions, size)
            return self.coarse.align(frames, positions, size, match), match

    def _forward_frame(self, lq: Tensor) -> Tensor:
        grid = make_grid(*lq.shape[-2:], tile=self.tile, overlap=self.overlap, multiple=SCALE, layout=self.layout)
        ref_idx = self._reference(lq)
        return walk_tiles(lq, grid, lambda tiles: self.refine(tiles, ref_idx).restored, coarse=self.coarse,
                          tile_batch=self.tile_batch)


def _crop_to_scale(lq: Tensor) -> Tensor:
    """Drop the last rows and columns that do not fill a feature pixel."""
    return lq[..., :lq.shape[-2] // SCALE * SCALE, :lq.shape[-1] // SCALE * SCALE]
