"""Training and validation of joint denoising and demosaicking of bursts."""
from __future__ import annotations

from collections import OrderedDict
from typing import Any, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY
from torch import Tensor

from jddb_plugin.archs.dpbm_arch import DPBM, SCALE
from jddb_plugin.archs.jddb_arch import UPSCALE, TileOutput, TwoStageJDDB
from jddb_plugin.checks import OptionError, ShapeError
from jddb_plugin.models.burst_model import TrainedModel
from jddb_plugin.models.hooked_model import HookMixin
from jddb_plugin.ops.block_matching import distances_along, match_entropy
from jddb_plugin.options import check_call


class _TwoStageStep(TrainedModel):
    """What the two-stage network's step adds; hooks are added by :class:`JDDBModel`."""

    extra_losses = ('interpolation_opt', 'one_hot_opt', 'bm_opt')
    extra_keys = ('tile',)

    def init_training_settings(self) -> None:
        """Build the loss terms, if the network can serve them."""
        super().init_training_settings()
        self.tile = tile_of(self.opt)
        if (self.cri_one_hot or self.cri_bm) and not self.get_bare_model(self.net_g).coarse_parameters():
            raise OptionError("train: one_hot_opt and bm_opt train the matching of 'coarse: dpbm'; remove them for "
                              "'coarse: block_matching' and 'none'.")

    def tile_positions(self, current_iter: int) -> Tensor:
        """Tile corner of every sample [B, 2]: the data set's, or drawn from seed, rank and iteration alone."""
        if 'positions' in self.batch:
            return self.batch['positions']
        batch, height, width = self.lq.shape[0], *self.lq.shape[-2:]
        tile = self.tile
        if height < tile or width < tile:
            raise ShapeError(f'lq: {height} x {width} packed px are smaller than a training tile of {tile}.')
        entropy = [self.opt['manual_seed'], self.opt['rank'], current_iter]
        generator = np.random.default_rng(np.random.SeedSequence(entropy))
        choices = [(height - tile) // SCALE + 1, (width - tile) // SCALE + 1]
        return torch.from_numpy(generator.integers(0, choices, size=(batch, 2)) * SCALE).to(self.device)

    def training_output(self, current_iter: int) -> tuple[TileOutput, Tensor]:
        """Result for one random tile per sample, and the tiles' corners."""
        positions = self.tile_positions(current_iter)
        output = self.net_g(self.lq, positions, tile=self.tile, ref_idx=self.ref_idx)
        return output._replace(restored=output.restored.float(), interpolated=output.interpolated.float()), positions

    def observations(self, output: tuple[TileOutput, Tensor]) -> dict[str, Tensor]:
        """What shows whether the alignment works: mean size of the offsets (px of their level), entropy of the match."""
        result, _ = output
        values = {f'dcn_offset_l{level}': size for level, size in enumerate(result.offset_size, start=1)}
        if result.match is not None and result.match.coarse.weight is not None:
            values['match_entropy'] = match_entropy(result.match.coarse)
            values['match_entropy_fine'] = match_entropy(result.match.fine)
        return values

    def losses(self, output: tuple[TileOutput, Tensor]) -> OrderedDict[str, Tensor]:
        """The terms of eq. (9) by their names in the log."""
        result, positions = output
        side = result.restored.shape[-1]
        gt = torch.stack([image[:, y:y + side, x:x + side] for image, (y, x) in zip(self.truth, (positions * UPSCALE).tolist())])
        terms: OrderedDict[str, Tensor] = OrderedDict()
        terms['l_pix'] = self.pixel_loss(result.restored, gt)
        terms.update(self.perceptual_losses(result.restored, gt))
        if self.cri_interpolation:
            terms['l_interpolation'] = self.cri_interpolation(result.interpolated, gt)
        match = result.match
        if match is not None and self.cri_one_hot:
            terms['l_one_hot'] = self.cri_one_hot(match.coarse, match.fine)
        if match is not None and self.cri_bm:
            found = match.coarse.distance, match.fine.distance
            # With weight 0 the term stays in the graph, for gradients of 0, but the clean burst need not be searched.
            target = self._clean_distances(match, positions) if self.cri_bm.loss_weight else found
            terms['l_bm'] = self.cri_bm(found, target)
        return terms

    @torch.no_grad()
    def _clean_distances(self, match: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Distances of the clean burst, downsampled bilinearly, for the candidates that were searched (eq. 6)."""
        net = self.get_bare_model(self.net_g)
        clean = self.batch['clean']
        height, width = (side // SCALE * SCALE for side in clean.shape[-2:])
        small = F.interpolate(clean[..., :height, :width].flatten(0, 1), scale_factor=1 / SCALE, mode='bilinear',
                              align_corners=False)
        side = self.tile // SCALE
        return distances_along(small.unflatten(0, clean.shape[:2]), positions[:, None] // SCALE, (side, side), match,
                               ref_idx=self.ref_idx, window=net.coarse.window)


def tile_of(opt: Mapping[str, Any]) -> int:
    """Side of the training tile in packed px, ``train.tile``.

    Raises:
        OptionError: not a multiple of what the matching works on.
    """
    tile = opt['train'].get('tile', 64)
    if not isinstance(tile, int) or isinstance(tile, bool) or tile < SCALE or tile % SCALE:
        raise OptionError(f'train.tile: expected a multiple of the matching scale {SCALE}, got {tile!r}.')
    return tile


def search_reach(network: Mapping[str, Any], num_frame: int, ref_idx: int) -> int:
    """Packed px around a training tile that the coarse alignment of ``network_g`` can see."""
    if network.get('coarse', 'dpbm') == 'none':
        return 0
    options = network.get('dpbm') or {}
    check_call(DPBM, options, 'network_g.dpbm')
    window = DPBM(features='bicubic', **{key: options[key] for key in ('radius', 'stride', 'window') if key in options}).window
    return SCALE * window.max_displacement(num_frame, ref_idx)


def _complete_region(opt: Mapping[str, Any]) -> None:
    """Fill in what is ``auto`` of the training set's ``tile`` and ``reach``, and check what is not.

    Raises:
        OptionError: the tile is not the model's, or the search would leave the region.
    """
    data = (opt.get('datasets') or {}).get('train') or {}
    network = opt.get('network_g') or {}
    if data.get('tile') is None:
        return
    tile = tile_of(opt)
    if data['tile'] == 'auto':
        data['tile'] = tile
    if data['tile'] != tile:
        raise OptionError(f"datasets.train.tile: is {data['tile']}, but train.tile is {tile}; use tile: auto.")
    frames, ref_idx, reach = data.get('num_frame', 5), data.get('ref_idx'), data.get('reach', 'auto')
    if not all(value is None or isinstance(value, int) for value in (frames, ref_idx)):
        return  # the data set refuses them
    needed = search_reach(network, frames, frames // 2 if ref_idx is None else ref_idx)
    if reach == 'auto':
        data['reach'] = reach = needed
    if isinstance(reach, int) and reach < needed:
        raise OptionError(f'datasets.train.reach: is {reach}, but the search spans {needed} packed px; use reach: {needed}, '
                          'or auto.')


@MODEL_REGISTRY.register()
class JDDBModel(HookMixin, _TwoStageStep):
    """Model of the two-stage network, with two learning rates, the losses of eq. (9) and hooks.

    Options: the toolbox's, and ``channels_last`` (default: false); under ``train`` the toolbox's, and

    * ``optim_g.lr_coarse``: learning rate of the coarse stage. Default: ``lr``.
    * ``tile``: side of the training tile in packed px (default: 64). The data set cuts its region around it with ``tile: auto``.
    * ``pixel_opt``, ``perceptual_opt`` (the toolbox's PerceptualLoss, of developed pictures), ``interpolation_opt``,
      ``one_hot_opt``, ``bm_opt``: the loss terms; all but the first may be left out.
    * ``precision``, ``compile``, ``max_grad_norm``, ``max_skipped``: see :class:`StepOptions`.
    * ``hooks``: list of hooks.

    Under ``val`` the toolbox's, those of :class:`jddb_plugin.models.evaluation.ValidationOptions`, and ``pictures: true``
    (restored frames in TensorBoard), ``matching_figure: true`` (what the matching sees) and ``save_best: true`` (keeps the
    network that scores best on each set by the first metric).
    """

    @classmethod
    def check_options(cls, opt: Mapping[str, Any]) -> None:
        """Check the sections that this model reads, before anything is built.

        Raises:
            OptionError: a key is unknown, the network is another one, or the pixel loss is missing.
        """
        network = (opt.get('network_g') or {}).get('type')
        if network in ARCH_REGISTRY and not issubclass(ARCH_REGISTRY.get(network), TwoStageJDDB):
            raise OptionError(f"model_type: JDDBModel trains TwoStageJDDB, but network_g is '{network}'; use model_type: "
                              'BurstModel.')
        super().check_options(opt)
        if opt.get('train') is not None:
            _complete_region(opt)

    @classmethod
    def smallest_frame(cls, opt: Mapping[str, Any], phase: str) -> int:
        """Side in RGB px that frames of a phase need at least: that of a tile."""
        if phase == 'train':
            return 2 * tile_of(opt)
        return 2 * ((opt.get('val') or {}).get('tile') or 0)
