"""Validation and testing of joint denoising and demosaicking: whole frames, scores after the ISP, pictures."""
from __future__ import annotations

import functools
import json
import os
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any, Mapping, Optional

import numpy as np
import torch
from basicsr.metrics import calculate_metric
from basicsr.models.video_base_model import VideoBaseModel
from basicsr.utils import get_root_logger, imwrite, tensor2img
from basicsr.utils.dist_util import get_dist_info
from torch import Tensor
from tqdm import tqdm

from jddb_plugin.checks import DataError, OptionError, check_choice
from jddb_plugin.inference.engine import ALIGNMENTS, restore_frame
from jddb_plugin.inference.tiling import TilingOptions
from jddb_plugin.ops.bayer import demosaic_bilinear
from jddb_plugin.ops.camera import Camera
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.options import parse_memory, read_options
from jddb_plugin.runtime import processes

#: Keys of ``val`` that the toolbox and the scores know.
_SCORES = ('val_freq', 'save_img', 'suffix', 'pbar', 'metrics', 'matching_figure', 'pictures', 'save_best')


@dataclass(frozen=True)
class ValidationOptions:
    """How whole frames are restored in validation and testing, by the same engine as in the restore command.

    Attributes:
        align: 'tiles', 'smooth', 'flow' or 'none', see :mod:`jddb_plugin.inference.align`. Default: by the network.
        tile, overlap, layout: see :class:`jddb_plugin.inference.tiling.TilingOptions`.
        memory: for the tiles, e.g. 2G. Default: 1G.
    """

    align: Optional[str] = None
    tile: Optional[int] = None
    overlap: Optional[int] = None
    layout: str = 'inside'
    memory: Optional[str] = None

    @classmethod
    def read(cls, val: Mapping[str, Any]) -> ValidationOptions:
        """Read and check the section ``val``.

        Raises:
            OptionError: a key or a value is wrong.
        """
        options = read_options(cls, val, 'val', ignore=_SCORES)
        if options.align is not None:
            check_choice(options.align, ALIGNMENTS, 'val.align')
        options.tiling.check(1, 'val.')
        if options.memory is not None:
            try:
                parse_memory(options.memory)
            except OptionError as error:
                raise OptionError(f"val.memory: expected a size such as 2G or 1500M, got '{options.memory}'.") from error
        return options

    @property
    def tiling(self) -> TilingOptions:
        """The tiles."""
        return TilingOptions(self.tile, self.overlap, self.layout)


class EvaluatedModel(VideoBaseModel):
    """Base of the models of burst networks: restores whole frames and scores them."""

    batch: dict[str, Any]
    lq: Tensor
    gt: Optional[Tensor]
    output: Tensor
    ref_idx: int

    @property
    def truth(self) -> Tensor:
        """The clean picture of the batch.

        Raises:
            DataError: the data set has none.
        """
        if self.gt is None:
            raise DataError("the data set gives no 'gt' to compare with.")
        return self.gt

    @functools.cached_property
    def validation_options(self) -> ValidationOptions:
        """The section ``val``."""
        return ValidationOptions.read(self.opt.get('val') or {})

    def test(self) -> None:
        """Restore ``lq`` by the averaged network if there is one."""
        # The bare network: under DDP a forward pass may wait for ranks that have no frame to validate.
        net = self.net_g_ema if hasattr(self, 'net_g_ema') else self.get_bare_model(self.net_g)
        training = net.training
        net.eval()
        options = self.validation_options
        self.output = restore_frame(net, self.lq, self.ref_idx, align=options.align, tiling=options.tiling,
                                    memory=None if options.memory is None else parse_memory(options.memory))
        net.train(training)

    def get_current_visuals(self) -> dict[str, Tensor]:
        """The result and the ground truth as pictures: sRGB with tone curve, [B, 3, H, W] in [0, 1]."""
        camera: Camera = self.batch['camera']
        visuals = OrderedDict(lq=self.lq.detach().cpu(), result=camera.develop(self.output, tone_curve=True).cpu())
        if self.gt is not None:
            visuals['gt'] = camera.develop(self.gt, tone_curve=True).cpu()
        return visuals

    def _restore(self, sample: Mapping[str, Any]) -> None:
        self.feed_data(as_batch(sample))
        self.test()

    def dist_validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """Restore every frame of the data set; PSNR and SSIM after the ISP, in floating point (section 4.2).

        A clip's score is the mean over its frames ("all"), and over those that have real neighbors on both sides
        ("center"). Clips count equally. Frames are distributed among the ranks, of which some may have none.
        """
        dataset = dataloader.dataset
        name = dataset.opt['name']
        metrics = self.opt['val'].get('metrics') or {}
        rank, world_size = get_dist_info()
        counts = Counter(dataset.data_info['folder'])
        results = {folder: torch.zeros(count, len(metrics), dtype=torch.float64, device=self.device)
                   for folder, count in counts.items()}
        has_truth = False
        progress = tqdm(total=len(dataset), unit='frame', desc=f'Test {name}', disable=rank != 0)
        for first in range(0, len(dataset), world_size):
            if hasattr(self, 'stop_if_asked'):  # while training
                self.stop_if_asked(current_iter)
            if first + rank >= len(dataset):
                continue
            sample = dataset[first + rank]
            self._restore(sample)
            if save_img:
                self._save_image(name, sample, current_iter)
            has_truth = self.gt is not None
            if metrics and has_truth:
                images = {'img': self._as_image(self.output), 'img2': self._as_image(self.truth)}
                frame = int(sample['idx'].split('/')[0])
                for k, metric in enumerate(metrics.values()):
                    results[sample['folder']][frame, k] = float(calculate_metric(images, metric))
            progress.update(min(world_size, len(dataset) - progress.n))
        progress.close()
        if tb_logger and self.opt['val'].get('pictures'):
            self._add_pictures(dataset, current_iter, tb_logger)
        for held in ('batch', 'lq', 'gt', 'output'):
            self.__dict__.pop(held, None)
        if not metrics:
            return
        if not processes.any_of(has_truth):
            get_root_logger().info(f'Validation {name}: no ground truth, so no metrics.')
            return
        if self.opt['dist']:
            for values in results.values():
                torch.distributed.reduce(values, 0)
        if rank == 0:
            self._initialize_best_metric_results(name)
            self._report(results, dataset, current_iter, tb_logger)

    def _as_image(self, linear: Tensor) -> np.ndarray:
        """[H, W, 3] in [0, 255], float64, not rounded: what the toolbox's metrics work on."""
        return self.batch['camera'].develop(linear)[0].permute(1, 2, 0).cpu().numpy().astype(np.float64) * 255

    def _save_image(self, name: str, sample: Mapping[str, Any], current_iter: Any) -> None:
        picture = tensor2img([self.get_current_visuals()['result']])
        stem = os.path.splitext(os.path.basename(sample['lq_path']))[0]
        suffix = current_iter if self.is_train else self.opt['val'].get('suffix') or self.opt['name']
        imwrite(picture, os.path.join(self.opt['path']['visualization'], name, sample['folder'], f'{stem}_{suffix}.png'))

    def _add_pictures(self, dataset: Any, current_iter: int, tb_logger: Any) -> None:
        """The middle frame of every clip for TensorBoard, side by side: noisy, restored, and the truth if there is one."""
        for folder, index in middle_frames(dataset).items():
            self._restore(dataset[index])
            noisy = demosaic_bilinear(self.lq[:, self.ref_idx, :4]).clamp(0, 1)
            visuals = self.get_current_visuals()
            row = [self.batch['camera'].develop(noisy, tone_curve=True).cpu(), visuals['result']]
            row += [visuals['gt']] if 'gt' in visuals else []
            picture = torch.cat([part[0] for part in row], dim=-1).clamp(0, 1)
            tb_logger.add_image(f"restored/{dataset.opt['name']}/{folder}", picture, current_iter)

    def _report(self, results: Mapping[str, Tensor], dataset: Any, current_iter: Any, tb_logger: Any) -> None:
        """Log "all" and "center" per clip and over clips, keep the best, and write a file when testing."""
        name = dataset.opt['name']
        border = np.array(dataset.data_info['border'], dtype=bool)
        folders = np.array(dataset.data_info['folder'])
        table: dict[str, dict[str, dict[str, Any]]] = {}
        for k, metric in enumerate(self.opt['val']['metrics']):
            per_clip: dict[str, dict[str, Any]] = {}
            for folder, values in results.items():
                by_frame = values[:, k].cpu().numpy()
                center = by_frame[~border[folders == folder]]
                per_clip[folder] = {'all': float(by_frame.mean()), 'center': float(center.mean()) if len(center) else None,
                                    'frames': by_frame.tolist()}
            means: dict[str, Optional[float]] = {}
            for kind in ('all', 'center'):
                known = [clip[kind] for clip in per_clip.values() if clip[kind] is not None]
                means[kind] = float(np.mean(known)) if known else None
            table[metric] = {'average': means, **per_clip}
            self._update_best_metric_result(name, metric, means['all'], current_iter)
        lines = [f'Validation {name}']
        for metric, clips in table.items():
            for clip, scores in clips.items():
                center = 'none' if scores['center'] is None else f"{scores['center']:.4f}"
                lines.append(f"\t # {metric} {clip}: all {scores['all']:.4f}, center {center}")
            best = self.best_metric_results[name][metric]
            lines.append(f"\t # {metric} best: {best['val']:.4f} @ {best['iter']} iter")
        get_root_logger().info('\n'.join(lines))
        if tb_logger:
            for metric, clips in table.items():
                for clip, scores in clips.items():
                    for kind in ('all', 'center'):
                        if scores[kind] is not None:
                            tb_logger.add_scalar(f'metrics/{name}/{metric}_{kind}/{clip}', scores[kind], current_iter)
        if not self.is_train:
            path = os.path.join(self.opt['path']['results_root'], f'metrics_{name}.json')
            with open(path, 'w') as file:
                json.dump(table, file, indent=2)


def as_batch(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample as a batch of one: its tensors, its camera and noise, and the index of its reference."""
    return {key: value.at(None) if isinstance(value, (Camera, NoiseModel)) else torch.as_tensor(value)[None]
            for key, value in sample.items() if isinstance(value, (Tensor, Camera, NoiseModel)) or key == 'ref_idx'}


def middle_frames(dataset: Any) -> dict[str, int]:
    """Index of the middle frame of every clip of a test set."""
    folders = dataset.data_info['folder']
    return {folder: folders.index(folder) + folders.count(folder) // 2 for folder in dict.fromkeys(folders)}
