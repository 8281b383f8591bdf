"""Building and feeding a model in basicsr 1.4.2."""
from __future__ import annotations

import copy
import functools
import math
from typing import Any, Callable, Mapping

import torch
from torch.nn.parallel import DataParallel, DistributedDataParallel

from jddb_plugin.checks import OptionError, nearest
from jddb_plugin.runtime.data_position import RUN_STATE, SeededSamples, start_worker
from jddb_plugin.runtime.meter import waiting
from jddb_plugin.runtime.preemption import shield_children


def optimizer_class(optim_type: str) -> type:
    """Optimizer of torch.optim by its name.

    Raises:
        OptionError: there is none of that name.
    """
    known = {name: value for name, value in vars(torch.optim).items() if isinstance(value, type) and name != 'Optimizer'}
    if optim_type not in known:
        raise OptionError(f"train.optim_g.type: unknown optimizer '{optim_type}'; {nearest(optim_type, known)}")
    return known[optim_type]


def get_optimizer(self: Any, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
    """models/base_model.py:101 knows Adam only."""
    return optimizer_class(optim_type)(params, lr=lr, **kwargs)


def model_to_device(self: Any, net: torch.nn.Module) -> torch.nn.Module:
    """models/base_model.py:98 names a CUDA device for processes that have none."""
    net = net.to(self.device)
    if self.opt['dist']:
        devices = [torch.cuda.current_device()] if self.device.type == 'cuda' else None
        return DistributedDataParallel(net, device_ids=devices,
                                       find_unused_parameters=self.opt.get('find_unused_parameters', False))
    return DataParallel(net) if self.opt['num_gpu'] > 1 else net


def patch_build_model(build: Callable[..., Any]) -> Callable[..., Any]:
    """Give the model that is trained its lifecycle."""

    @functools.wraps(build)
    def build_model(opt: dict[str, Any]) -> Any:
        """models/__init__.py: the class that the options name, with its lifecycle (see runtime/lifecycle.py)."""
        from basicsr.utils.registry import MODEL_REGISTRY

        from jddb_plugin.runtime.lifecycle import with_lifecycle
        opt = copy.deepcopy(opt)
        return with_lifecycle(MODEL_REGISTRY.get(opt['model_type']))(opt)

    return build_model


def patch_init_tb_loggers(init: Callable[..., Any]) -> Callable[..., Any]:
    """Keep TensorBoard's logger for a validation that is repeated after a resume."""

    @functools.wraps(init)
    def init_tb_loggers(opt: dict[str, Any]) -> Any:
        """train.py:16 gives it to the validations of its own loop alone."""
        RUN_STATE.tb_logger = init(opt)
        return RUN_STATE.tb_logger

    return init_tb_loggers


def make_prefetcher_class(base: type) -> type:
    """A prefetcher that draws nothing in vain, and is timed."""

    class Prefetcher(base):
        """data/prefetch_dataloader.py draws a first batch of epoch 0 that it throws away; here waiting is timed too."""

        def __init__(self, loader: Any, *args: Any) -> None:
            super().__init__([], *args)
            self.ori_loader = loader

        def reset(self) -> None:
            with shield_children(), waiting():
                super().reset()

        def next(self) -> Any:
            with waiting():
                return super().next()

    return Prefetcher


def patch_prefetch_generator(cls: Any) -> None:
    """data/prefetch_dataloader.py:25: an error in the thread that draws ahead leaves the training waiting forever."""

    def run(self: Any) -> None:
        try:
            for item in self.generator:
                self.queue.put(item)
            self.queue.put(None)
        except Exception as error:  # raised where the batch is asked for
            self.queue.put(error)

    def following(self: Any) -> Any:
        item = self.queue.get()
        if item is None:
            raise StopIteration
        if isinstance(item, Exception):
            raise item
        return item

    cls.run = run
    cls.__next__ = following


def patch_build_dataloader(build: Callable[..., Any]) -> Callable[..., Any]:
    """A training loader whose batches are a function of the iteration."""

    @functools.wraps(build)
    def build_dataloader(dataset: Any, dataset_opt: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """train.py:47 rounds iterations per epoch up while the loader drops the last batch: training stops early.

        The epoch is filled up to whole batches instead; fewer samples than one batch are an error. A resumed run
        starts at the epoch and the batch of its iteration, whatever the batch size was before. Workers live as long as
        the run (they are spawned, which takes seconds), and do not die of signals that are meant for it.
        """
        sampler = kwargs.get('sampler')
        if dataset_opt.get('phase') != 'train' or sampler is None:
            loader = build(dataset, dataset_opt, *args, **kwargs)
            if dataset_opt.get('phase') == 'val':
                RUN_STATE.validation_loaders.append(loader)
            return loader
        dataset_opt = dict(dataset_opt)
        if dataset_opt['num_worker_per_gpu'] > 0:
            dataset_opt.setdefault('persistent_workers', True)
        loader = build(SeededSamples(dataset, kwargs.pop('seed')), dataset_opt, *args, **kwargs)
        loader.worker_init_fn = start_worker
        if sampler.num_samples < loader.batch_size:
            raise OptionError(
                f"datasets.train: {len(dataset)} samples (times dataset_enlarge_ratio) do not fill one batch of "
                f'{loader.batch_size} on each of {sampler.num_replicas} processes; use a smaller batch_size_per_gpu or a '
                'larger dataset_enlarge_ratio.')
        # On several GPUs without a launcher the loader's batch is larger than what iterations are counted by.
        RUN_STATE.batches = math.ceil(sampler.num_samples / dataset_opt['batch_size_per_gpu'])
        sampler.num_samples = RUN_STATE.batches * loader.batch_size
        sampler.total_size = sampler.num_samples * sampler.num_replicas
        if RUN_STATE.resumed is not None:
            epoch, done = divmod(RUN_STATE.resumed['iter'], RUN_STATE.batches)
            RUN_STATE.resumed['epoch'] = epoch
            sampler.start_at(epoch, done * loader.batch_size)
        return loader

    return build_dataloader
