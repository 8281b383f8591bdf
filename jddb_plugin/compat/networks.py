"""Validation and DCNv2 of basicsr 1.4.2."""
from __future__ import annotations

import functools
from collections import Counter
from typing import Any, Callable

import torch


def patch_validation(validate: Callable[..., None], video: type) -> Callable[..., None]:
    """Validation of one data set, on any device and any number of processes."""

    @functools.wraps(validate)
    def dist_validation(self: Any, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """models/video_base_model.py:33 and video_recurrent_model.py:81: metric buffers on CUDA, kept across data sets.

        Buffers are made fresh, on the model's device, before each data set; ``val`` without ``metrics`` is none; the
        bare network is called, since DDP would wait for ranks that have no frame to validate. Images can be saved
        while training (:71 and :137 raise NotImplementedError): their names end with the iteration.
        """
        metrics = self.opt['val'].setdefault('metrics', None)
        if metrics is not None and issubclass(type(self), video):
            folders = Counter(dataloader.dataset.data_info['folder'])
            self.metric_results = {
                folder: torch.zeros(count, len(metrics), dtype=torch.float32, device=self.device)
                for folder, count in folders.items()}
        wrapped, opt = self.net_g, self.opt
        self.net_g = self.get_bare_model(wrapped)
        if save_img and self.is_train and issubclass(type(self), video):
            self.opt = {**opt, 'is_train': False, 'name': str(current_iter), 'val': {**opt['val'], 'suffix': None}}
        try:
            validate(self, dataloader, current_iter, tb_logger, save_img)
        finally:
            self.net_g, self.opt = wrapped, opt

    return dist_validation


def patch_dcn(forward: Any) -> Any:
    """archs/arch_util.py:285 calls torchvision, whose CPU kernel runs on one thread: on a CPU, take the faster form."""
    from jddb_plugin.ops.deform_conv import deform_conv2d

    @functools.wraps(forward)
    def patched(self: Any, x: torch.Tensor, feat: torch.Tensor) -> torch.Tensor:
        if x.device.type != 'cpu' or self.groups != 1:
            return forward(self, x, feat)
        first, second, mask = self.conv_offset(feat).chunk(3, dim=1)
        return deform_conv2d(x, torch.cat((first, second), dim=1), torch.sigmoid(mask), self.weight, self.bias,
                             stride=self.stride, padding=self.padding, dilation=self.dilation,
                             deformable_groups=self.deformable_groups, backend='grid_sample')

    return patched
