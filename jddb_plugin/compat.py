"""Everything that works around the host toolbox and its stack: one function each, with version and reason.

The host is basicsr 1.4.2 (its newest release). Its files are never edited and its pipelines never copied; names in
its modules are replaced when the plugin is imported. Line numbers are of basicsr 1.4.2.
"""
from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import math
import os
import sys
import types
import warnings
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional

import torch

from jddb_plugin.checks import CheckpointError, OptionError, nearest

_logger = logging.getLogger('jddb_plugin')


# ---------------------------------------------------------------------------------------------- import


def provide_functional_tensor() -> None:
    """torchvision >= 0.17 has no ``transforms.functional_tensor``; data/degradations.py:8 imports from it."""
    name = 'torchvision.transforms.functional_tensor'
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return
    module = types.ModuleType(name)
    module.rgb_to_grayscale = importlib.import_module('torchvision.transforms.functional').rgb_to_grayscale
    sys.modules[name] = module


def provide_scipy_filters() -> None:
    """scipy deprecates ``ndimage.filters``, which metrics/niqe.py:5 imports: no warning, and no break once it is gone."""
    name = 'scipy.ndimage.filters'
    if name not in sys.modules:
        sys.modules[name] = importlib.import_module('scipy.ndimage')


# ------------------------------------------------------------------------------- checkpoints and states


def save_atomically(content: Any, path: str) -> None:
    """Write a checkpoint so that ``path`` is either the old file or the complete new one.

    Raises:
        CheckpointError: it could not be written (disk full, quota, permissions); the old file is untouched.
    """
    partial = f'{path}.partial'
    try:
        with open(partial, 'wb') as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        if os.path.exists(partial):
            os.unlink(partial)
        if not isinstance(error, (OSError, RuntimeError)):
            raise
        raise CheckpointError(f'{path}: the checkpoint could not be written ({error}); free some space and resume from '
                              'the last one.') from error


def load_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint without running code from it.

    Raises:
        CheckpointError: missing, truncated, or not a checkpoint of tensors and plain values.
    """
    if not os.path.isfile(path):
        raise CheckpointError(f'{path}: no such checkpoint.')
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch.load raises many types for damaged files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f'{path}: truncated, or not a checkpoint that can be loaded safely ({reason}).') from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{path}: expected a checkpoint (a dict), found {type(content).__name__}.')
    return content


def _save_network(self: Any, net: Any, net_label: str, current_iter: int, param_key: Any = 'params') -> None:
    """models/base_model.py:212 writes in place, retries, and ignores a write that failed."""
    if self.opt.get('rank', 0) != 0:
        return
    nets = net if isinstance(net, list) else [net]
    keys = param_key if isinstance(param_key, list) else [param_key]
    content = {}
    for one, key in zip(nets, keys):
        state = self.get_bare_model(one).state_dict()
        content[key] = {name.replace('module.', '', 1) if name.startswith('module.') else name: value.cpu()
                        for name, value in state.items()}
    label = 'latest' if current_iter == -1 else current_iter
    save_atomically(content, os.path.join(self.opt['path']['models'], f'{net_label}_{label}.pth'))


def _save_training_state(self: Any, epoch: int, current_iter: int) -> None:
    """models/base_model.py:306: the same."""
    if self.opt.get('rank', 0) != 0 or current_iter == -1:
        return
    state = {
        'epoch': epoch,
        'iter': current_iter,
        'optimizers': [optimizer.state_dict() for optimizer in self.optimizers],
        'schedulers': [scheduler.state_dict() for scheduler in self.schedulers],
    }
    save_atomically(state, os.path.join(self.opt['path']['training_states'], f'{current_iter}.state'))


def _load_network(self: Any, net: torch.nn.Module, load_path: str, strict: bool = True,
                  param_key: Optional[str] = 'params') -> None:
    """models/base_model.py:274 loads unsafely before torch 2.6 and fails with pages of key names."""
    from basicsr.utils import get_root_logger
    logger = get_root_logger()
    content = load_checkpoint(load_path)
    if param_key is not None:
        if param_key not in content and 'params' in content:
            logger.info(f"{load_path}: has no '{param_key}'; loading 'params'.")
            param_key = 'params'
        if param_key not in content:
            raise CheckpointError(f"{load_path}: no '{param_key}' in it, but {sorted(map(str, content))[:5]}; set "
                                  'param_key_g, or ~ for a bare state dict.')
        content = content[param_key]
    content = {key[7:] if key.startswith('module.') else key: value for key, value in content.items()}
    net = self.get_bare_model(net)
    if hasattr(net, 'adapt_state_dict'):
        adapted = net.adapt_state_dict(content)
        if adapted is not content:
            logger.info(f'{load_path}: holds the network inside {type(net).__name__}, and is loaded into it.')
        content = adapted
    own = net.state_dict()
    wrong = [key for key in own if key in content and content[key].shape != own[key].shape]
    if strict:
        problems = [f"'{key}' is missing" for key in own if key not in content]
        problems += [f"'{key}' is not in the network" for key in content if key not in own]
        problems += [f"'{key}' is {list(content[key].shape)}, the network has {list(own[key].shape)}" for key in wrong]
        if problems:
            raise CheckpointError(f'{load_path}: belongs to another configuration of {type(net).__name__}: {problems[0]} '
                                  f'({len(problems)} differences in all); check network_g, or set strict_load_g: false.')
    else:
        for key in wrong:
            logger.warning(f"{load_path}: '{key}' has another size and is not loaded.")
            del content[key]
        absent = [key for key in own if key not in content]
        if len(absent) == len(own):
            raise CheckpointError(f'{load_path}: holds nothing of {type(net).__name__}; is it the right file?')
        for key in absent:
            logger.warning(f"{load_path}: '{key}' is not in it and keeps its initial value.")
    net.load_state_dict(content, strict=strict)


#: State that the run goes on from, until its epoch is known in batches of this run.
_resumed: Optional[dict[str, Any]] = None


def _iterations(folder: str) -> Iterator[int]:
    """Iterations of the saved training states, newest first."""
    stems = (path.stem for path in Path(folder).glob('*.state'))
    return iter(sorted((int(stem) for stem in stems if stem.isdigit()), reverse=True))


def _load_resume_state(opt: dict[str, Any]) -> Optional[dict[str, Any]]:
    """train.py:70 asks CUDA for a device, and looks below the current directory only.

    auto_resume takes the newest state that can be read together with its network.
    """
    from basicsr.utils import check_resume
    global _resumed
    _resumed = None
    path, state = opt['path'].get('resume_state'), None
    if opt['auto_resume']:
        path = None
        for iteration in _iterations(opt['path']['training_states']):
            candidate = os.path.join(opt['path']['training_states'], f'{iteration}.state')
            try:
                state = load_checkpoint(candidate)
                for key in (key for key in opt if key.startswith('network_')):
                    load_checkpoint(os.path.join(opt['path']['models'], f'net_{key[len("network_"):]}_{iteration}.pth'))
            except CheckpointError as error:
                _logger.warning('auto_resume skips iteration %d: %s', iteration, error)
                continue
            path = candidate
            break
        if path is None and next(_iterations(opt['path']['training_states']), None) is not None:
            raise CheckpointError(f"{opt['path']['training_states']}: none of its training states can be read; restore or remove "
                                  'them, or start anew without --auto_resume.')
    if path is None:
        return None
    opt['path']['resume_state'] = path
    state = load_checkpoint(path) if state is None else state
    for key in ('epoch', 'iter', 'optimizers', 'schedulers'):
        if key not in state:
            raise CheckpointError(f"{path}: not a training state ('{key}' is missing).")
    check_resume(opt, state['iter'])
    _resumed = state
    return state


def _mkdir_and_rename(path: str) -> None:
    """utils/misc.py:25 fails when two runs of one name start within a second: both archive to the same name."""
    from basicsr.utils import get_time_str
    if os.path.exists(path):
        kept = f'{path}_archived_{get_time_str()}'
        while os.path.exists(kept):
            kept += '_'
        _logger.warning('%s exists already and is kept as %s.', path, kept)
        os.rename(path, kept)
    os.makedirs(path, exist_ok=True)


# ------------------------------------------------------------------------------------------ training


def optimizer_class(optim_type: str) -> type:
    """Optimiser of torch.optim by its name.

    Raises:
        OptionError: there is none of that name.
    """
    known = {name: value for name, value in vars(torch.optim).items() if isinstance(value, type) and name != 'Optimizer'}
    if optim_type not in known:
        raise OptionError(f"train.optim_g.type: unknown optimizer '{optim_type}'; {nearest(optim_type, known)}")
    return known[optim_type]


def _get_optimizer(self: Any, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
    """models/base_model.py:101 knows Adam only."""
    return optimizer_class(optim_type)(params, lr=lr, **kwargs)


class EpochIndex(int):
    """Index of a sample that also says when it is drawn; to a stock data set it is a plain integer.

    Attributes:
        epoch: counted from 0.
        draw: how often the enlarged epoch has passed over the data set before.
    """

    epoch: int = 0
    draw: int = 0

    @classmethod
    def of(cls, index: int, epoch: int, draw: int) -> EpochIndex:
        """Index with its time."""
        result = cls(index)
        result.epoch, result.draw = epoch, draw
        return result


def _make_sampler_class(base: type) -> type:

    class EpochSampler(base):
        """The toolbox's EnlargedSampler, whose indices know their epoch.

        data/__init__.py:87 seeds workers once, so random numbers repeat every epoch; a data set that derives them
        from the index's epoch has fresh ones, whatever the number of workers.
        """

        def __iter__(self) -> Iterator[EpochIndex]:
            generator = torch.Generator().manual_seed(self.epoch)
            order = torch.randperm(self.total_size, generator=generator).tolist()
            size = len(self.dataset)
            mine = order[self.rank:self.total_size:self.num_replicas]
            return iter([EpochIndex.of(v % size, self.epoch, v // size) for v in mine])

    return EpochSampler


def _mend_build_dataloader(build: Callable[..., Any]) -> Callable[..., Any]:

    @functools.wraps(build)
    def build_dataloader(dataset: Any, dataset_opt: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """train.py:47 rounds iterations per epoch up while the loader drops the last batch: training stops early.

        The epoch is filled up to whole batches instead; fewer samples than one batch are an error. A resumed run
        starts at the epoch of its iteration, whatever the batch size was before: else it might find none left.
        """
        loader = build(dataset, dataset_opt, *args, **kwargs)
        sampler = kwargs.get('sampler')
        if dataset_opt.get('phase') == 'train' and sampler is not None:
            if sampler.num_samples < loader.batch_size:
                raise OptionError(
                    f"datasets.train: {len(dataset)} samples (times dataset_enlarge_ratio) do not fill one batch of "
                    f'{loader.batch_size} on each of {sampler.num_replicas} processes; use a smaller batch_size_per_gpu or a '
                    'larger dataset_enlarge_ratio.')
            # On several GPUs without a launcher the loader's batch is larger than what iterations are counted by.
            batches = math.ceil(sampler.num_samples / dataset_opt['batch_size_per_gpu'])
            sampler.num_samples = batches * loader.batch_size
            sampler.total_size = sampler.num_samples * sampler.num_replicas
            if _resumed is not None:
                _resumed['epoch'] = _resumed['iter'] // batches
        return loader

    return build_dataloader


# ----------------------------------------------------------------------------------------- validation


def _mend_validation(validate: Callable[..., None]) -> Callable[..., None]:

    @functools.wraps(validate)
    def dist_validation(self: Any, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """models/video_base_model.py:33 and video_recurrent_model.py:81: metric buffers on CUDA, kept across data sets.

        Buffers are made fresh, on the model's device, before each data set; ``val`` without ``metrics`` is none; the
        bare network is called, since DDP would wait for ranks that have no frame to validate.
        """
        from collections import Counter
        metrics = self.opt['val'].setdefault('metrics', None)
        if metrics is not None:
            folders = Counter(dataloader.dataset.data_info['folder'])
            self.metric_results = {
                folder: torch.zeros(count, len(metrics), dtype=torch.float32, device=self.device)
                for folder, count in folders.items()}
        wrapped = self.net_g
        self.net_g = self.get_bare_model(wrapped)
        try:
            validate(self, dataloader, current_iter, tb_logger, save_img)
        finally:
            self.net_g = wrapped

    return dist_validation


# -------------------------------------------------------------------------------------------- DCNv2


def _mend_dcn(forward: Any) -> Any:
    """archs/arch_util.py:285 calls torchvision, whose CPU kernel runs on one thread: on a CPU, take the faster form."""
    from jddb_plugin.ops.deform_conv import deform_conv2d

    @functools.wraps(forward)
    def mended(self: Any, x: torch.Tensor, feat: torch.Tensor) -> torch.Tensor:
        if x.device.type != 'cpu' or self.groups != 1:
            return forward(self, x, feat)
        first, second, mask = self.conv_offset(feat).chunk(3, dim=1)
        return deform_conv2d(x, torch.cat((first, second), dim=1), torch.sigmoid(mask), self.weight, self.bias,
                             stride=self.stride, padding=self.padding, dilation=self.dilation,
                             deformable_groups=self.deformable_groups, backend='grid_sample')

    return mended


# --------------------------------------------------------------------------------------------- apply


def prepare_import() -> None:
    """What must happen before basicsr is imported."""
    provide_functional_tensor()
    provide_scipy_filters()


@functools.cache
def apply() -> None:
    """Import basicsr and mend it; once per process."""
    prepare_import()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', (DeprecationWarning, SyntaxWarning))
        train = importlib.import_module('basicsr.train')
        base = importlib.import_module('basicsr.models.base_model').BaseModel
        video = importlib.import_module('basicsr.models.video_base_model').VideoBaseModel
        dcn = importlib.import_module('basicsr.archs.arch_util').DCNv2Pack
        recurrent = importlib.import_module('basicsr.models.video_recurrent_model').VideoRecurrentModel
    dcn.forward = _mend_dcn(dcn.forward)
    base.save_network = _save_network
    base.save_training_state = _save_training_state
    base.load_network = _load_network
    base.get_optimizer = _get_optimizer
    video.dist_validation = _mend_validation(video.dist_validation)
    recurrent.dist_validation = _mend_validation(recurrent.dist_validation)
    importlib.import_module('basicsr.utils.misc').mkdir_and_rename = _mkdir_and_rename
    train.mkdir_and_rename = _mkdir_and_rename
    train.load_resume_state = _load_resume_state
    train.EnlargedSampler = _make_sampler_class(train.EnlargedSampler)
    train.build_dataloader = _mend_build_dataloader(train.build_dataloader)
