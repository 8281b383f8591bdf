"""Training and validation of joint denoising and demosaicking of bursts."""
from __future__ import annotations

import inspect
from collections import OrderedDict
from typing import Any, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jddb_plugin.archs.dpbm_arch import DPBM, SCALE
from jddb_plugin.archs.jddb_arch import UPSCALE, TileOutput
from jddb_plugin.checks import OptionError, ShapeError
from jddb_plugin.models.evaluation import EvaluatedModel
from jddb_plugin.models.hooked_model import HookMixin
from jddb_plugin.models.step import SkipCounter, StepOptions, clip_gradients, joined_loss, joined_values
from jddb_plugin.ops.block_matching import distances_along, match_entropy
from jddb_plugin.ops.synthesis import synthesise_batch
from jddb_plugin.options import check_keys

_TENSORS = ('lq', 'gt', 'clean', 'red_gain', 'blue_gain', 'rgb_gain', 'cam2rgb', 'positions')
#: Of samples with ``synthesis: device``.
_SYNTHESIS = ('srgb', 'shot', 'read', 'seed')
_LOSSES = ('interpolation_opt', 'one_hot_opt', 'bm_opt')


#: Keys of ``train`` that are not switches of the step.
_TRAIN = ('ema_decay', 'optim_g', 'scheduler', 'total_iter', 'warmup_iter', 'pixel_opt', *_LOSSES, 'hooks')


def _step_options(train: Mapping[str, Any]) -> StepOptions:
    """The switches of the step; other keys of the section must be known."""
    return StepOptions.read(train, 'train', ignore=_TRAIN)


class _TrainedModel(EvaluatedModel):
    """One step and its log; hooks are added by :class:`JDDBModel`."""

    #: Takes batches of data sets with ``synthesis: device``.
    synthesises = True

    # ------------------------------------------------------------------------------------- training

    def init_training_settings(self) -> None:
        """Build EMA, pixel loss, optimiser and schedulers (the toolbox's), and the other loss terms."""
        train_opt = self.opt['train']
        self.skipped = SkipCounter(self.step_options.max_skipped)
        for key in _LOSSES:
            loss_opt = train_opt.get(key)
            setattr(self, 'cri_' + key[:-len('_opt')], build_loss(loss_opt).to(self.device) if loss_opt else None)
        net = self.get_bare_model(self.net_g)
        if (self.cri_one_hot or self.cri_bm) and not net.coarse_parameters():
            raise OptionError("train: one_hot_opt and bm_opt train the matching of 'coarse: dpbm'; remove them for "
                              "'coarse: block_matching' and 'none'.")
        super().init_training_settings()

    def setup_optimizers(self) -> None:
        """Two parameter groups: the network with ``lr``, its coarse stage with ``lr_coarse``."""
        options = dict(self.opt['train']['optim_g'])
        kind, lr = options.pop('type'), options.pop('lr')
        lr_coarse = options.pop('lr_coarse', lr)
        net = self.get_bare_model(self.net_g)
        coarse = net.coarse_parameters()
        known = {id(p) for p in coarse}
        groups = [{'params': [p for p in net.parameters() if id(p) not in known], 'lr': lr}]
        if coarse:
            groups.append({'params': coarse, 'lr': lr_coarse})
        self.optimizer_g = self.get_optimizer(kind, groups, lr, **options)
        self.optimizers.append(self.optimizer_g)

    def model_to_device(self, net: torch.nn.Module) -> torch.nn.Module:
        """As the toolbox does it; ``channels_last: true`` lays convolutions out for speed, at equal results."""
        if self.opt.get('channels_last'):
            net = net.to(memory_format=torch.channels_last)
        if self.is_train:
            self.step_options = _step_options(self.opt['train'])
            if self.step_options.compile:
                net.refine.compile()  # in place: names of parameters stay as they are
        return super().model_to_device(net)

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take a batch (or one sample with a batch dimension) to the device."""
        self.batch = {key: data[key].to(self.device, non_blocking=True) for key in (*_TENSORS, *_SYNTHESIS) if key in data}
        if 'srgb' in self.batch:
            with torch.no_grad():
                self.batch.update(synthesise_batch(self.batch, int(data['ref_idx'][0]))._asdict())
            for key in _SYNTHESIS:
                del self.batch[key]
        self.lq, self.gt = self.batch['lq'], self.batch.get('gt')

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

    def optimize_parameters(self, current_iter: int) -> None:
        """One optimisation step on one random tile per sample, eq. (9); skipped if anything is not finite."""
        positions = self.tile_positions(current_iter)
        self.optimizer_g.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.step_options.precision == 'bf16'):
            output = self.net_g(self.lq, positions)
        output = output._replace(restored=output.restored.float(), interpolated=output.interpolated.float())
        terms = self.losses(output, positions)
        sums = [name for name in terms if self._criterion(name).reduction == 'sum']
        joined_loss(terms, sums).backward()
        values: OrderedDict[str, Tensor] = OrderedDict(terms)
        for name, group in zip(('grad_norm', 'grad_norm_coarse'), self.optimizer_g.param_groups):
            values[name] = clip_gradients(group['params'], self.step_options.max_grad_norm)
        values.update(self._observations(output))
        log = joined_values(values, sums)
        if self.skipped.accepts(log, current_iter):
            self.optimizer_g.step()
            if self.ema_decay > 0:
                self.model_ema(decay=self.ema_decay)
        else:
            get_root_logger().warning(f'Iteration {current_iter}: not finite, so the step is skipped '
                                      f'({self.skipped.in_a_row} in a row): {log}')
        log['l_total'] = sum(log[name] for name in terms)
        if self.skipped.in_all:
            log['skipped_steps'] = float(self.skipped.in_all)
        self.log_dict = log

    def _criterion(self, term: str) -> torch.nn.Module:
        """The loss behind a name of the log: ``l_pix`` -> ``cri_pix``."""
        return getattr(self, 'cri_' + term[len('l_'):])

    @staticmethod
    def _observations(output: TileOutput) -> dict[str, Tensor]:
        """What tells whether the alignment goes well: mean size of the offsets (px of their level), entropy of the match."""
        seen = {f'dcn_offset_l{level}': size for level, size in enumerate(output.offset_size, start=1)}
        if output.match is not None and output.match.coarse.weight is not None:
            seen['match_entropy'] = match_entropy(output.match.coarse)
            seen['match_entropy_fine'] = match_entropy(output.match.fine)
        return seen

    def model_ema(self, decay: float = 0.999) -> None:
        """Move the averaged network towards the current one; all parameters in one call."""
        with torch.no_grad():
            get_ema_multi_avg_fn(decay)(list(self.net_g_ema.parameters()), list(self.get_bare_model(self.net_g).parameters()), 0)

    def losses(self, output: TileOutput, positions: Tensor) -> OrderedDict[str, Tensor]:
        """The terms of eq. (9) by their names in the log."""
        side = output.restored.shape[-1]
        gt = torch.stack([image[:, y:y + side, x:x + side] for image, (y, x) in zip(self.gt, (positions * UPSCALE).tolist())])
        camera = {key: self.batch[key] for key in ('red_gain', 'blue_gain', 'cam2rgb')}
        terms: OrderedDict[str, Tensor] = OrderedDict()
        terms['l_pix'] = self.cri_pix(output.restored, gt, **camera)
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
class JDDBModel(HookMixin, _TrainedModel):
    """Model of the two-stage network, with two learning rates, the losses of eq. (9) and hooks.

    Options: the toolbox's, and ``channels_last`` (default: false); under ``train`` the toolbox's, and

    * ``optim_g.lr_coarse``: learning rate of the coarse stage. Default: ``lr``.
    * ``pixel_opt``, ``interpolation_opt``, ``one_hot_opt``, ``bm_opt``: the loss terms; all but the first may be left out.
    * ``precision``, ``compile``, ``max_grad_norm``, ``max_skipped``: see :class:`StepOptions`.
    * ``hooks``: list of hooks.

    Under ``val`` the toolbox's, and ``pictures: true`` (restored frames in TensorBoard), ``matching_figure: true`` (what
    the matching sees) and ``save_best: true`` (keeps the network that scores best on each set by the first metric).
    """

    @staticmethod
    def check_options(opt: Mapping[str, Any]) -> None:
        """Check the sections that this model reads, before anything is built.

        Raises:
            OptionError: a key is unknown, or the pixel loss is missing.
        """
        ref_idx = (opt.get('network_g') or {}).get('ref_idx')
        for phase, section in (opt.get('datasets') or {}).items():
            middle = section.get('num_frame', 5) // 2
            truth = middle if section.get('ref_idx') is None else section['ref_idx']
            if (middle if ref_idx is None else ref_idx) != truth:
                raise OptionError(f'network_g.ref_idx: is {ref_idx}, but the truth of datasets.{phase} is frame {truth} of a '
                                  'burst; they must be the same.')
        _check_region(opt)
        val = opt.get('val') or {}
        check_keys(val, ('val_freq', 'save_img', 'suffix', 'pbar', 'metrics', 'matching_figure', 'pictures', 'save_best'), 'val')
        train = opt.get('train')
        if train is None:
            return
        _step_options(train)
        if not train.get('pixel_opt'):
            raise OptionError("train: 'pixel_opt' is missing.")
