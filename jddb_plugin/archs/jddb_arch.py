"""The paper's network: a differentiable two-stage alignment scheme for burst reconstruction (Guo et al., CVPR 2022).

Coarse alignment moves tiles (:class:`DPBM`), refined alignment moves features (:class:`PyramidAlign`), a
bidirectional GRU fuses the frames (:class:`BidirectionalFusion`) and a UNet reconstructs the picture
(:class:`Reconstruction`). Both stages live in one network; the coarse one is the submodule ``coarse``.
"""
from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional, Union, overload

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from jddb_plugin.archs.blocks import AttentionBlock, act, conv, one_by_one
from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.archs.dpbm_arch import DPBM, SCALE, middle_frame
from jddb_plugin.archs.fusion import BidirectionalFusion
from jddb_plugin.archs.passthrough import check_init, init_passthrough
from jddb_plugin.archs.pixel_align import PyramidAlign
from jddb_plugin.archs.reconstruction import Reconstruction
from jddb_plugin.archs.tiled import process_tiles, unaligned_tiles
from jddb_plugin.checks import CheckpointError, OptionError, ShapeError, check_choice
from jddb_plugin.ops.block_matching import Match
from jddb_plugin.ops.tiling import make_grid
from jddb_plugin.options import check_call, check_keys

#: Pixels of the RGB result per pixel of the packed raw.
UPSCALE = 2
#: Tensors whose shapes show the options of a checkpoint.
_FIRST, _OFFSETS = 'refine.extract.0.0.weight', 'refine.align.level1.dcn.conv_offset.weight'
#: The paper has 64. A file may claim any number of features, and they are allocated before it is compared with the rest of it.
_MOST_FEATURES = 512
#: Channels per deformable group: two offsets and a mask for each of nine taps.
_PER_GROUP = 27


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
        restored, interpolated = self.reconstruct(torch.cat((fused, between))).chunk(2)
        return Restored(restored, interpolated, size)


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
        dpbm: options of the coarse stage, see :class:`DPBM`: radius, stride, window, temperature.
        dcn_backend: see :mod:`jddb_plugin.ops.deform_conv`.
        init: 'paper', or 'passthrough' for short training, see :mod:`jddb_plugin.archs.passthrough`.
    """

    multiple = SCALE
    least_frames = 2

    def __init__(self, num_feat: int = 64, deformable_groups: int = 8, coarse: str = 'dpbm', refined: str = 'dcn',
                 dpbm: Optional[Mapping[str, object]] = None, dcn_backend: str = 'auto', init: str = 'paper') -> None:
        super().__init__()
        check_choice(coarse, ('dpbm', 'block_matching', 'none'), 'network_g.coarse')
        check_choice(refined, ('dcn', 'none'), 'network_g.refined')
        check_init(init)
        if num_feat < 2 or deformable_groups < 1 or num_feat % 2 or num_feat % deformable_groups:
            raise OptionError(f'network_g: num_feat must be even and a multiple of deformable_groups, got {num_feat} and '
                              f'{deformable_groups}.')
        options: dict[str, Any] = dict(dpbm or {})
        check_keys(options, ('radius', 'stride', 'window', 'temperature'), 'network_g.dpbm')
        check_call(DPBM, options, 'network_g.dpbm')
        if coarse != 'none':
            self.coarse = DPBM(features='learned' if coarse == 'dpbm' else 'bicubic', **options)
        self.aligned_input = coarse != 'none'
        self.num_feat = num_feat
        self.refine = RefinedStage(num_feat, deformable_groups, refined, dcn_backend)
        if init == 'passthrough':
            init_passthrough(self.refine)

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> bool:
        """See :meth:`BurstNetwork.detect`."""
        return all(key.startswith(('refine.', 'coarse.')) for key in state)

    @classmethod
    def options_of(cls, state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
        """See :meth:`BurstNetwork.options_of`; num_feat, deformable_groups, refined, and coarse: dpbm with matching features.

        Without them coarse may be 'block_matching' or 'none', which have no parameters, and is left out.
        """
        shape = _shape(state, _FIRST, where)
        if shape[1:] != [8, 3, 3] or not 2 <= shape[0] <= _MOST_FEATURES or shape[0] % 2:
            raise CheckpointError(f"{where}: '{_FIRST}' is {shape}, expected [num_feat, 8, 3, 3] with an even num_feat up to "
                                  f'{_MOST_FEATURES}.')
        options: dict[str, Any] = {'num_feat': shape[0], 'deformable_groups': 1}
        options['refined'] = 'dcn' if any(key.startswith('refine.align.') for key in state) else 'none'
        if options['refined'] == 'dcn':
            rows = _shape(state, _OFFSETS, where)[0]
            if rows == 0 or rows % _PER_GROUP or shape[0] % (rows // _PER_GROUP):
                raise CheckpointError(f"{where}: '{_OFFSETS}' has {rows} rows, expected {_PER_GROUP} for each deformable group, "
                                      f'and a number of groups that divides {shape[0]} features.')
            options['deformable_groups'] = rows // _PER_GROUP
        if _has_features(state):
            options['coarse'] = 'dpbm'
        return options

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], options: Mapping[str, Any],
                   where: str) -> tuple[BurstNetwork, Mapping[str, Tensor]]:
        """See :meth:`BurstNetwork.from_state`; learned matching features may be left unused.

        Raises:
            OptionError: the coarse stage is neither in the state dict nor among the options.
            CheckpointError: 'dpbm' is asked for, and there are no matching features.
        """
        coarse = options.get('coarse')
        if coarse is None:
            raise OptionError(f'{where}: holds no matching features, so its coarse stage is unknown; give --coarse '
                              'block_matching or --coarse none, as in its training.')
        if coarse == 'dpbm' and not _has_features(state):
            raise CheckpointError(f"{where}: holds no matching features ('coarse.downsample...'), which coarse: dpbm needs; "
                                  'give --coarse block_matching or --coarse none, as in its training.')
        net, _ = super().from_state(state, options, where)
        if coarse != 'dpbm':
            state = {key: value for key, value in state.items() if not key.startswith('coarse.downsample.')}
        return net, state

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

    def facts(self) -> dict[str, str]:
        """See :meth:`BurstNetwork.facts`."""
        return {**super().facts(), 'Features': str(self.num_feat)}

    @overload
    def forward(self, lq: Tensor, positions: None = None, *, ref_idx: Optional[int] = None, tile: int = 64, overlap: int = 4,
                layout: str = 'inside', tile_batch: int = 4) -> Tensor: ...

    @overload
    def forward(self, lq: Tensor, positions: Tensor, *, ref_idx: Optional[int] = None, tile: int = 64, overlap: int = 4,
                layout: str = 'inside', tile_batch: int = 4) -> TileOutput: ...

    def forward(self, lq: Tensor, positions: Optional[Tensor] = None, *, ref_idx: Optional[int] = None, tile: int = 64,
                overlap: int = 4, layout: str = 'inside', tile_batch: int = 4) -> Union[Tensor, TileOutput]:
        """Restore whole frames in memory, or one training tile per sample.

        For frames of any size, other alignments and a limit of memory see :mod:`jddb_plugin.inference`.

        Args:
            lq: [B, N, 8, H, W]: packed raw in [0, 1] and its noise map (standard deviation), 4 planes each.
            positions: [B, 2], corners of the training tiles in packed px, multiples of 4. The search runs over
                all of ``lq``.
            ref_idx: reference frame; the middle one if None.
            tile: side of a tile in packed px, a multiple of 4.
            overlap, layout: of the tiles of whole frames, see :func:`make_grid`.
            tile_batch: tiles that are restored at once in whole frames.

        Returns:
            Linear camera RGB [B, 3, 2H, 2W] of the reference frame; with positions a :class:`TileOutput`.

        Raises:
            ShapeError: wrong number of dimensions or channels, a frame smaller than a tile, or no such reference.
        """
        if lq.ndim != 5 or lq.shape[2] != 8:
            raise ShapeError(f'lq: expected [B, N, 8, H, W] (4 raw planes, 4 noise map planes), got {list(lq.shape)}.')
        ref_idx = middle_frame(lq, ref_idx)
        if positions is not None:
            return self._forward_tile(lq, positions, tile, ref_idx)
        grid = make_grid(*lq.shape[-2:], tile=tile, overlap=overlap, multiple=SCALE, layout=layout)
        return process_tiles(lq, grid, lambda tiles: self.refine(tiles, ref_idx).restored, coarse=self.coarse,
                          tile_batch=tile_batch, ref_idx=ref_idx)

    def _forward_tile(self, lq: Tensor, positions: Tensor, tile: int, ref_idx: int) -> TileOutput:
        aligned, match = self._align(_crop_to_scale(lq), positions[:, None], (tile, tile), ref_idx)
        result = self.refine(aligned[:, 0], ref_idx, interpolate=True)
        return TileOutput(result.restored, result.interpolated, match, result.offset_size)

    def _align(self, frames: Tensor, positions: Tensor, size: tuple[int, int], ref_idx: int) -> tuple[Tensor, Optional[Match]]:
        if self.coarse is None:
            return unaligned_tiles(frames, positions, size), None
        with torch.autocast(frames.device.type, enabled=False):  # small, and bfloat16 would blur which tile is nearest
            match = self.coarse.match(frames, positions, size, ref_idx)
            return self.coarse.align(frames, positions, size, match, ref_idx), match


def _has_features(state: Mapping[str, Tensor]) -> bool:
    return any(key.startswith('coarse.downsample.') for key in state)


def _shape(state: Mapping[str, Tensor], key: str, where: str) -> list[int]:
    if key not in state:
        raise CheckpointError(f"{where}: incomplete, '{key}' is missing.")
    if state[key].ndim != 4:
        raise CheckpointError(f"{where}: '{key}' is {list(state[key].shape)}, expected four dimensions.")
    return list(state[key].shape)


def _crop_to_scale(lq: Tensor) -> Tensor:
    """Drop the last rows and columns that do not fill a feature pixel."""
    return lq[..., :lq.shape[-2] // SCALE * SCALE, :lq.shape[-1] // SCALE * SCALE]
