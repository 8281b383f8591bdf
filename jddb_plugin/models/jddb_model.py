"""Training and validation of joint denoising and demosaicking of bursts."""
from __future__ import annotations

import inspect
import json
import os
from collections import Counter, OrderedDict
from typing import Any, Mapping, Optional

import numpy as np
import torch
import torch.nn.functional as F
from basicsr.losses import build_loss
from basicsr.metrics import calculate_metric
from basicsr.models.video_base_model import VideoBaseModel
from basicsr.utils import get_root_logger, imwrite, tensor2img
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from jddb_plugin.archs.dpbm_arch import DPBM, SCALE
from jddb_plugin.archs.jddb_arch import UPSCALE, TileOutput
from jddb_plugin.checks import OptionError, ShapeError
from jddb_plugin.models.hooked_model import HookMixin
from jddb_plugin.ops.block_matching import distances_along
from jddb_plugin.ops.isp import process, tone_map
from jddb_plugin.ops.synthesis import synthesise_batch
from jddb_plugin.options import check_keys

_TENSORS = ('lq', 'gt', 'clean', 'red_gain', 'blue_gain', 'rgb_gain', 'cam2rgb', 'positions')
#: Of samples with ``synthesis: device``.
_SYNTHESIS = ('srgb', 'shot', 'read', 'seed')
_LOSSES = ('interpolation_opt', 'one_hot_opt', 'bm_opt')


class _JDDBSteps(VideoBaseModel):
    """One step, validation and logging; hooks are added by :class:`JDDBModel`."""

    #: Takes batches of data sets with ``synthesis: device``.
    synthesises = True

    # ------------------------------------------------------------------------------------- training

    def init_training_settings(self) -> None:
        """Build EMA, pixel loss, optimiser and schedulers (the toolbox's), and the other loss terms."""
        train_opt = self.opt['train']
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
        """One optimisation step on one random tile per sample, eq. (9)."""
        positions = self.tile_positions(current_iter)
        self.optimizer_g.zero_grad(set_to_none=True)
        output = self.net_g(self.lq, positions)
        losses = self.losses(output, positions)
        total = sum(losses.values())
        total.backward()
        self.optimizer_g.step()
        losses['l_total'] = total.detach()
        self.log_dict = self.reduce_loss_dict(losses)
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

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
            terms['l_bm'] = self.cri_bm((match.coarse.distance, match.fine.distance), self._clean_distances(match, positions))
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

    # ------------------------------------------------------------------------------------ validation

    def test(self) -> None:
        """Restore ``lq`` by the averaged network if there is one."""
        # The bare network: under DDP a forward pass may wait for ranks that have no frame to validate.
        net = self.net_g_ema if hasattr(self, 'net_g_ema') else self.get_bare_model(self.net_g)
        training = net.training
        net.eval()
        with torch.no_grad():
            self.output = net(self.lq)
        net.train(training)

    def _develop(self, linear: Tensor) -> Tensor:
        """Linear camera RGB -> sRGB in [0, 1], unrounded."""
        return process(linear, **{key: self.batch[key] for key in ('red_gain', 'blue_gain', 'cam2rgb', 'rgb_gain')})

    def get_current_visuals(self) -> dict[str, Tensor]:
        """The result and the ground truth as pictures: sRGB with tone curve, [B, 3, H, W] in [0, 1]."""
        visuals = OrderedDict(lq=self.lq.detach().cpu(), result=tone_map(self._develop(self.output)).cpu())
        if self.gt is not None:
            visuals['gt'] = tone_map(self._develop(self.gt)).cpu()
        return visuals

    def dist_validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """Restore every frame of the data set; PSNR and SSIM after the ISP, in floating point (section 4.2).

        A clip's score is the mean over its frames ("all"), and over those that have real neighbours on both sides
        ("centre"). Clips count equally. Frames are shared out among the ranks.
        """
        dataset = dataloader.dataset
        name = dataset.opt['name']
        metrics = self.opt['val'].get('metrics') or {}
        rank, world_size = get_dist_info()
        counts = Counter(dataset.data_info['folder'])
        results = {folder: torch.zeros(count, len(metrics), dtype=torch.float32, device=self.device)
                   for folder, count in counts.items()}
        progress = tqdm(total=len(dataset), unit='frame', desc=f'Test {name}', disable=rank != 0)
        for index in range(rank, len(dataset), world_size):
            sample = dataset[index]
            self.feed_data({key: value[None] for key, value in sample.items() if torch.is_tensor(value)})
            self.test()
            if save_img:
                self._save_image(name, sample, current_iter)
            if metrics and self.gt is not None:
                images = {'img': self._as_image(self.output), 'img2': self._as_image(self.gt)}
                frame = int(sample['idx'].split('/')[0])
                for k, metric in enumerate(metrics.values()):
                    results[sample['folder']][frame, k] = float(calculate_metric(images, metric))
            progress.update(min(world_size, len(dataset) - progress.n))
        progress.close()
        has_truth = self.gt is not None
        del self.batch, self.lq, self.gt, self.output
        if metrics and not has_truth:
            get_root_logger().info(f'Validation {name}: no ground truth, so no metrics.')
        elif metrics:
            if self.opt['dist']:
                for values in results.values():
                    torch.distributed.reduce(values, 0)
                torch.distributed.barrier()
            if rank == 0:
                self._initialize_best_metric_results(name)
                self._report(results, dataset, current_iter, tb_logger)

    def _as_image(self, linear: Tensor) -> np.ndarray:
        """[H, W, 3] in [0, 255], float64, not rounded: what the toolbox's metrics work on."""
        return self._develop(linear)[0].permute(1, 2, 0).cpu().numpy().astype(np.float64) * 255

    def _save_image(self, name: str, sample: Mapping[str, Any], current_iter: Any) -> None:
        picture = tensor2img([self.get_current_visuals()['result']])
        stem = os.path.splitext(os.path.basename(sample['lq_path']))[0]
        suffix = current_iter if self.is_train else self.opt['val'].get('suffix') or self.opt['name']
        imwrite(picture, os.path.join(self.opt['path']['visualization'], name, sample['folder'], f'{stem}_{suffix}.png'))

    def _report(self, results: Mapping[str, Tensor], dataset: Any, current_iter: Any, tb_logger: Any) -> None:
        """Log "all" and "centre" per clip and over clips, keep the best, and write a file when testing."""
        name = dataset.opt['name']
        border = np.array(dataset.data_info['border'], dtype=bool)
        folders = np.array(dataset.data_info['folder'])
        table: dict[str, dict[str, dict[str, Optional[float]]]] = {}
        for k, metric in enumerate(self.opt['val']['metrics']):
            per_clip = {}
            for folder, values in results.items():
                values = values[:, k].double().cpu().numpy()
                centre = values[~border[folders == folder]]
                per_clip[folder] = {'all': float(values.mean()), 'centre': float(centre.mean()) if len(centre) else None}
            means = {}
            for kind in ('all', 'centre'):
                known = [clip[kind] for clip in per_clip.values() if clip[kind] is not None]
                means[kind] = float(np.mean(known)) if known else None
            table[metric] = {'average': means, **per_clip}
            self._update_best_metric_result(name, metric, means['all'], current_iter)
        lines = [f'Validation {name}']
        for metric, clips in table.items():
            for clip, scores in clips.items():
                centre = 'none' if scores['centre'] is None else f"{scores['centre']:.4f}"
                lines.append(f"\t # {metric} {clip}: all {scores['all']:.4f}, centre {centre}")
            best = self.best_metric_results[name][metric]
            lines.append(f"\t # {metric} best: {best['val']:.4f} @ {best['iter']} iter")
        get_root_logger().info('\n'.join(lines))
        if tb_logger:
            for metric, clips in table.items():
                for clip, scores in clips.items():
                    for kind, value in scores.items():
                        if value is not None:
                            tb_logger.add_scalar(f'metrics/{name}/{metric}_{kind}/{clip}', value, current_iter)
        if not self.is_train:
            path = os.path.join(self.opt['path']['results_root'], f'metrics_{name}.json')
            with open(path, 'w') as file:
                json.dump(table, file, indent=2)


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
class JDDBModel(HookMixin, _JDDBSteps):
    """Model of the two-stage network, with two learning rates, the losses of eq. (9) and hooks.

    Options: the toolbox's, and ``channels_last`` (default: false); under ``train`` the toolbox's, and

    * ``optim_g.lr_coarse``: learning rate of the coarse stage. Default: ``lr``.
    * ``pixel_opt``, ``interpolation_opt``, ``one_hot_opt``, ``bm_opt``: the loss terms; all but the first may be left out.
    * ``hooks``: list of hooks.
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
        check_keys(val, ('val_freq', 'save_img', 'suffix', 'pbar', 'metrics', 'matching_figure'), 'val')
        train = opt.get('train')
        if train is None:
            return
        check_keys(train, ('ema_decay', 'optim_g', 'scheduler', 'total_iter', 'warmup_iter', 'pixel_opt', *_LOSSES, 'hooks'),
                   'train')
        if not train.get('pixel_opt'):
            raise OptionError("train: 'pixel_opt' is missing.")
