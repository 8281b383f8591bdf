"""One training step of a burst network, whatever the network: losses, optimizer, averaged weights, and what the log holds."""
from __future__ import annotations

from collections import OrderedDict
from typing import Any, Mapping

import torch
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.checks import OptionError, check_choice
from jddb_plugin.inference.engine import align_frames
from jddb_plugin.models.evaluation import EvaluatedModel, ValidationOptions
from jddb_plugin.models.hooked_model import HookMixin
from jddb_plugin.models.step import SkipCounter, StepOptions, clip_gradients, joined_loss, joined_values
from jddb_plugin.ops.synthesis import synthesize

#: Entries of a batch that go to the device: tensors, and the values ``camera`` and ``noise``.
_ENTRIES = ('lq', 'gt', 'clean', 'camera', 'noise', 'positions')
#: Of samples with ``synthesis: device``.
_SYNTHESIS = ('srgb', 'seed')
#: Keys of ``train`` that are not switches of the step.
_TRAIN = ('ema_decay', 'optim_g', 'scheduler', 'total_iter', 'warmup_iter', 'pixel_opt', 'perceptual_opt', 'hooks')
#: Losses behind names of the log that are not called as the names say.
_CRITERIA = {'l_percep': 'cri_perceptual', 'l_style': 'cri_perceptual'}


class TrainedModel(EvaluatedModel):
    """The step that all models of burst networks share; subclasses say what the network returns, and add loss terms."""

    #: Takes batches of data sets with ``synthesis: device``.
    synthesizes = True
    #: Loss terms of ``train`` beside ``pixel_opt``.
    extra_losses: tuple[str, ...] = ()
    #: Further keys of ``train``.
    extra_keys: tuple[str, ...] = ()

    # ------------------------------------------------------------------------------- for subclasses

    def training_output(self, current_iter: int) -> Any:
        """What the network gives for the batch, from the averaged losses' point of view; runs under autocast."""
        raise NotImplementedError

    def losses(self, output: Any) -> OrderedDict[str, Tensor]:
        """The terms of the loss by their names in the log: ``l_pix`` for ``pixel_opt``, ``l_NAME`` for ``NAME_opt``."""
        raise NotImplementedError

    def observations(self, output: Any) -> dict[str, Tensor]:
        """Further values for the log."""
        return {}

    # ------------------------------------------------------------------------------------ the step

    @classmethod
    def step_options_of(cls, train: Mapping[str, Any]) -> StepOptions:
        """The switches of the step; other keys of the section must be known."""
        return StepOptions.read(train, 'train', ignore=(*_TRAIN, *cls.extra_losses, *cls.extra_keys))

    @classmethod
    def check_options(cls, opt: Mapping[str, Any]) -> None:
        """Check the sections that this model reads, before anything is built.

        Raises:
            OptionError: a key is unknown, or the pixel loss is missing.
        """
        ValidationOptions.read(opt.get('val') or {})
        train = opt.get('train')
        if train is None:
            return
        cls.step_options_of(train)
        if not train.get('pixel_opt'):
            raise OptionError("train: 'pixel_opt' is missing.")

    def init_training_settings(self) -> None:
        """Build EMA, pixel loss, optimizer and schedulers (the toolbox's), and the other loss terms."""
        train_opt = self.opt['train']
        self.skipped = SkipCounter(self.step_options.max_skipped)
        for key in self.extra_losses:
            loss_opt = train_opt.get(key)
            setattr(self, 'cri_' + key[:-len('_opt')], build_loss(loss_opt).to(self.device) if loss_opt else None)
        super().init_training_settings()

    def setup_optimizers(self) -> None:
        """Parameter groups: the network with ``lr``, and its coarse stage, if it has one that learns, with ``lr_coarse``."""
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
        """As the toolbox does it; ``channels_last: true`` lays convolutions out for speed, at equal results.

        Raises:
            OptionError: the network is not a :class:`BurstNetwork`.
        """
        if not isinstance(net, BurstNetwork):
            raise OptionError(f"network_g: model_type '{type(self).__name__}' restores bursts, and {type(net).__name__} is no "
                              'BurstNetwork; use one of TwoStageJDDB, GatedUNet, ..., or derive yours from '
                              'jddb_plugin.archs.burst_network.BurstNetwork.')
        if self.opt.get('channels_last'):
            net = net.to(memory_format=torch.channels_last)
        if self.is_train:
            self.step_options = self.step_options_of(self.opt['train'])
            if self.step_options.compile:
                net.compile_restoration()  # in place: names of parameters stay as they are
        return super().model_to_device(net)

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take a batch (or one sample with a batch dimension) to the device.

        The reference is ``ref_idx`` of the batch, or the middle frame.
        """
        self.batch = {key: data[key].to(self.device, non_blocking=True) for key in (*_ENTRIES, *_SYNTHESIS) if key in data}
        ref_idx = data.get('ref_idx')
        if 'srgb' in self.batch:
            with torch.no_grad():
                burst = synthesize(self.batch.pop('srgb'), self.batch['camera'], self.batch['noise'], self.batch.pop('seed'),
                                   ref_idx=int(data['ref_idx'][0]))
            self.batch.update(burst._asdict())
        self.lq, self.gt = self.batch['lq'], self.batch.get('gt')
        self.ref_idx = self.lq.shape[1] // 2 if ref_idx is None else int(ref_idx[0])

    def optimize_parameters(self, current_iter: int) -> None:
        """One optimization step; skipped if anything is not finite."""
        self.optimizer_g.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.step_options.precision == 'bf16'):
            output = self.training_output(current_iter)
        terms = self.losses(output)
        sums = [name for name in terms if getattr(self._criterion(name), 'reduction', 'mean') == 'sum']
        joined_loss(terms, sums).backward()
        values: OrderedDict[str, Tensor] = OrderedDict(terms)
        for name, group in zip(('grad_norm', 'grad_norm_coarse'), self.optimizer_g.param_groups):
            values[name] = clip_gradients(group['params'], self.step_options.max_grad_norm)
        values.update(self.observations(output))
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
        return getattr(self, _CRITERIA.get(term, 'cri_' + term[len('l_'):]))

    def pixel_loss(self, restored: Tensor, gt: Tensor) -> Tensor:
        """``pixel_opt`` of linear camera RGB; losses that develop it get the camera."""
        if not getattr(self.cri_pix, 'needs_camera', False):
            return self.cri_pix(restored, gt)
        return self.cri_pix(restored, gt, camera=self.batch['camera'])

    def perceptual_losses(self, restored: Tensor, gt: Tensor) -> OrderedDict[str, Tensor]:
        """``perceptual_opt``, the toolbox's loss, of linear camera RGB that is developed first; empty without it."""
        if not self.cri_perceptual:
            return OrderedDict()
        pictures = (self.batch['camera'].develop_softly(image, tone_curve=True) for image in (restored, gt))
        terms = zip(('l_percep', 'l_style'), self.cri_perceptual(*pictures))
        return OrderedDict((name, term) for name, term in terms if term is not None)

    def model_ema(self, decay: float = 0.999) -> None:
        """Move the averaged network towards the current one; all parameters in one call."""
        with torch.no_grad():
            get_ema_multi_avg_fn(decay)(list(self.net_g_ema.parameters()), list(self.get_bare_model(self.net_g).parameters()), 0)


@MODEL_REGISTRY.register()
class BurstModel(HookMixin, TrainedModel):
    """Trains and scores any :class:`BurstNetwork` by one pixel loss, with hooks.

    Options: the toolbox's, and ``channels_last`` (default: false); under ``train`` the toolbox's, and

    * ``pixel_opt``: the loss, e.g. DevelopedLoss, ReconstructionLoss, or a loss of the toolbox on linear camera RGB.
    * ``perceptual_opt``: the toolbox's PerceptualLoss, of developed pictures.
    * ``align``: 'smooth' or 'flow' to move the frames of a batch onto the reference first, as validation does; for data sets of
      bursts that are not aligned. Default: 'none'.
    * ``precision``, ``compile``, ``max_grad_norm``, ``max_skipped``: see :class:`StepOptions`.
    * ``hooks``: list of hooks.

    Under ``val`` the toolbox's, those of :class:`ValidationOptions`, and ``pictures: true`` (restored frames in TensorBoard)
    and ``save_best: true`` (keeps the network that scores best on each set by the first metric).
    """

    extra_keys = ('align',)

    @classmethod
    def check_options(cls, opt: Mapping[str, Any]) -> None:
        """Check the sections that this model reads, before anything is built."""
        super().check_options(opt)
        check_choice((opt.get('train') or {}).get('align', 'none'), ('none', 'smooth', 'flow'), 'train.align')

    def training_output(self, current_iter: int) -> Tensor:
        """Linear camera RGB of the batch's patches."""
        align = self.opt['train'].get('align', 'none')
        if align != 'none':
            with torch.autocast(self.device.type, enabled=False):
                self.lq = align_frames(self.get_bare_model(self.net_g), self.lq, self.ref_idx, align=align)
        return self.net_g(self.lq, ref_idx=self.ref_idx).float()

    def losses(self, output: Tensor) -> OrderedDict[str, Tensor]:
        """The pixel loss, and the perceptual one if there is one."""
        return OrderedDict(l_pix=self.pixel_loss(output, self.truth), **self.perceptual_losses(output, self.truth))
