"""Training and validation of joint denoising and demosaicking of bursts."""
from __future__ import annotations

import inspect
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


class _TwoStageStep(TrainedModel):
    """What the two-stage network's step adds; hooks are added by :class:`JDDBModel`."""

    extra_losses = ('interpolation_opt', 'one_hot_opt', 'bm_opt')

    def init_training_settings(self) -> None:
        """Build the loss terms, if the network can serve them."""
        super().init_training_settings()
        if (self.cri_one_hot or self.cri_bm) and not self.get_bare_model(self.net_g).coarse_parameters():
            raise OptionError("train: one_hot_opt and bm_opt train the matching of 'coarse: dpbm'; remove them for "
                              "'coarse: block_matching' and 'none'.")

    def tile_positions(self, current_iter: int) -> Tensor:
        """Tile corner of every sample [B, 2]: the data set's, or drawn from seed, rank and iteration alone."""
        if 'positions' in self.batch:
            return self.batch['positions']
        batch, height, width = self.lq.shape[0], *self.lq.shape[-2:]
        tile = self.get_bare_model(self.net_g).tile
        if height < tile or width < tile:
            raise ShapeError(f'lq: {height} x {width} packed px are smaller than a training tile of {tile}.')
        entropy = [self.opt['manual_seed'], self.opt['rank'], current_iter]
        generator = np.random.default_rng(np.random.SeedSequence(entropy))
        choices = [(height - tile) // SCALE + 1, (width - tile) // SCALE + 1]
        return torch.from_numpy(generator.integers(0, choices, size=(batch, 2)) * SCALE).to(self.device)

    def training_output(self, current_iter: int) -> tuple[TileOutput, Tensor]:
        """Result for one random tile per sample, and the tiles' corners."""
        positions = self.tile_positions(current_iter)
        output = self.net_g(self.lq, positions)
        return output._replace(restored=output.restored.float(), interpolated=output.interpolated.float()), positions

    def observations(self, output: tuple[TileOutput, Tensor]) -> dict[str, Tensor]:
        """What tells whether the alignment goes well: mean size of the offsets (px of their level), entropy of the match."""
        output, _ = output
        seen = {f'dcn_offset_l{level}': size for level, size in enumerate(output.offset_size, start=1)}
        if output.match is not None and output.match.coarse.weight is not None:
            seen['match_entropy'] = match_entropy(output.match.coarse)
            seen['match_entropy_fine'] = match_entropy(output.match.fine)
        return seen

    def losses(self, output: tuple[TileOutput, Tensor]) -> OrderedDict[str, Tensor]:
        """The terms of eq. (9) by their names in the log."""
        output, positions = output
        side = output.restored.shape[-1]
        gt = torch.stack([image[:, y:y + side, x:x + side] for image, (y, x) in zip(self.gt, (positions * UPSCALE).tolist())])
        terms: OrderedDict[str, Tensor] = OrderedDict()
        terms['l_pix'] = self.pixel_loss(output.restored, gt)
        if self.cri_interpolation:
            terms['l_interpolation'] = self.cri_interpolation(output.interpolated, gt)
        if self.cri_one_hot:
            terms['l_one_hot'] = self.cri_one_hot(output.match.coarse, output.match.fine)
        if self.cri_bm:
            match = output.match
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
        side = net.tile // SCALE
        return distances_along(small.unflatten(0, clean.shape[:2]), positions[:, None] // SCALE, (side, side), match,
                               ref_idx=net.coarse.reference(clean), window=net.coarse.window)


def _check_region(opt: Mapping[str, Any]) -> None:
    """The tile of the training set is the network's, and its region holds what the search can reach.

    Raises:
        OptionError: naming both values.
    """
    data = (opt.get('datasets') or {}).get('train') or {}
    network = opt.get('network_g') or {}
    if data.get('tile') is None or network.get('type') != 'TwoStageJDDB':
        return
    defaults = {name: p.default for name, p in inspect.signature(DPBM).parameters.items()}
    dpbm = {**defaults, **(network.get('dpbm') or {})}
    if data['tile'] != dpbm['tile']:
        raise OptionError(f"datasets.train.tile: is {data['tile']}, but network_g.dpbm.tile is {dpbm['tile']}; they must be the "
                          'same.')
    steps = data.get('num_frame', 5) // 2 if network.get('coarse', 'dpbm') != 'none' else 0
    needed = SCALE * steps * (dpbm['radius'] // dpbm['stride'] + 1) * dpbm['stride']
    if data.get('reach', 0) < needed:
        raise OptionError(f"datasets.train.reach: is {data.get('reach', 0)}, but the search goes {needed} packed px far (radius "
                          f"{dpbm['radius']}, {steps} frames to each side); use reach: {needed}.")


@MODEL_REGISTRY.register()
class JDDBModel(HookMixin, _TwoStageStep):
    """Model of the two-stage network, with two learning rates, the losses of eq. (9) and hooks.

    Options: the toolbox's, and ``channels_last`` (default: false); under ``train`` the toolbox's, and

    * ``optim_g.lr_coarse``: learning rate of the coarse stage. Default: ``lr``.
    * ``pixel_opt``, ``interpolation_opt``, ``one_hot_opt``, ``bm_opt``: the loss terms; all but the first may be left out.
    * ``precision``, ``compile``, ``max_grad_norm``, ``max_skipped``: see :class:`StepOptions`.
    * ``hooks``: list of hooks.

    Under ``val`` the toolbox's, and ``pictures: true`` (restored frames in TensorBoard), ``matching_figure: true`` (what
    the matching sees) and ``save_best: true`` (keeps the network that scores best on each set by the first metric).
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
        ref_idx = (opt.get('network_g') or {}).get('ref_idx')
        for phase, section in (opt.get('datasets') or {}).items():
            middle = section.get('num_frame', 5) // 2
            truth = middle if section.get('ref_idx') is None else section['ref_idx']
            if (middle if ref_idx is None else ref_idx) != truth:
                raise OptionError(f'network_g.ref_idx: is {ref_idx}, but the truth of datasets.{phase} is frame {truth} of a '
                                  'burst; they must be the same.')
        _check_region(opt)
        super().check_options(opt)
