"""The toolbox's option files: what can be checked before anything is built.

Rules of our own models, data sets, networks, losses and hooks stay with them: models have ``check_options`` and
``check_hooks``, data sets a class ``Options``.
"""
from __future__ import annotations

import inspect
import logging
from typing import Any, Mapping

import torch
from basicsr.models import lr_scheduler
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY

from jddb_plugin.checks import OptionError, nearest
from jddb_plugin.compat.training import optimizer_class
from jddb_plugin.options import HOST_KEYS, check_call, check_keys, read_options, registered
from jddb_plugin.runtime import processes
from jddb_plugin.runtime.preflight import check_seed, check_wandb

_logger = logging.getLogger('jddb_plugin')

_TOP = ('name', 'model_type', 'scale', 'num_gpu', 'manual_seed', 'datasets', 'path', 'train', 'val', 'logger', 'dist_params',
        'find_unused_parameters', 'network_g', 'channels_last')
_LOGGER = ('print_freq', 'save_checkpoint_freq', 'keep_last', 'keep_every', 'use_tb_logger', 'wandb')
_PATH = ('pretrain_network_g', 'strict_load_g', 'param_key_g', 'resume_state', 'ignore_resume_networks')


def _section(opt: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = opt.get(name)
    if not isinstance(value, dict):
        raise OptionError(f"section '{name}' is missing or not a mapping.")
    return value


def check_options(opt: dict[str, Any], *, is_train: bool, launcher: str = 'none') -> dict[str, Any]:
    """Check resolved options as far as can be known before anything is built, and fill in what the toolbox needs.

    Every ``type`` must be registered, and the arguments of networks, losses, metrics and hooks must be known to it.
    Sections that our own model and data sets read must hold no unknown key.

    Returns:
        The options, with defaults for keys that the toolbox reads without asking.

    Raises:
        OptionError: naming the key, and the nearest known one if it is misspelt.
    """
    model = _find_model(opt)
    _fill_in(opt)
    for key in ('datasets', 'path', *(('train', 'logger') if is_train else ())):
        _section(opt, key)
    opt['datasets'] = {phase: section for phase, section in opt['datasets'].items() if section is not None}
    if opt.get('val') is not None:
        _section(opt, 'val')
    if hasattr(model, 'check_options'):
        check_keys(opt, _TOP, 'options')
        check_keys(opt['path'], _PATH, 'path')
        model.check_options(opt)
    _check_device(opt, launcher)
    _check_networks(opt)
    if is_train:
        _share_batch(opt, launcher)
    _check_datasets(opt, is_train=is_train)
    if opt.get('val') is None and not is_train:
        opt['val'] = {}
    if opt.get('val') is not None:
        _check_validation(opt['val'])
        _check_scores(opt, model)
    if is_train:
        _check_training(opt, model)
    return opt


def _find_model(opt: Mapping[str, Any]) -> type:
    for key in ('name', 'model_type'):
        if not isinstance(opt.get(key), str):
            raise OptionError(f"'{key}' is missing, or not text.")
    if opt['name'] in ('', '.', '..') or set(opt['name']) & set('/\\'):
        raise OptionError(f"name: '{opt['name']}' names a folder below experiments or results; expected a name without / and \\.")
    if opt['model_type'] not in MODEL_REGISTRY:
        hint = nearest(opt['model_type'], MODEL_REGISTRY.keys())
        raise OptionError(f"model_type: '{opt['model_type']}' is not registered; {hint}")
    return MODEL_REGISTRY.get(opt['model_type'])


def _fill_in(opt: dict[str, Any]) -> None:
    """Defaults for keys that the toolbox reads without asking."""
    opt['path'] = opt.get('path') or {}
    opt.setdefault('num_gpu', 'auto')
    check_seed(opt)
    opt['manual_seed'] = opt.get('manual_seed') or 0  # the toolbox draws one, another in every process and after a resume
    dist_params = opt.get('dist_params') or {}
    if 'dist_params' in opt:
        opt['dist_params'] = dist_params
    processes.configure({**dist_params, 'backend': 'gloo'} if opt['num_gpu'] == 0 else dist_params)


def _check_networks(opt: Mapping[str, Any]) -> None:
    networks = [key for key in opt if key.startswith('network_')]
    if not networks:
        raise OptionError("'network_g' is missing.")
    for key in networks:
        network, arguments = registered(ARCH_REGISTRY, opt[key], key)
        check_call(network, arguments, key)
        if network.__module__.startswith('jddb_plugin.'):
            with torch.device('meta'):  # without memory for weights
                network(**arguments)  # refuses values that do not fit together


def _check_scores(opt: Mapping[str, Any], model: type) -> None:
    """Refuse scores of a stock model on our raw bursts: another quantity than our models', under the same name."""
    linear = opt['val'].get('linear_scores', False)
    if not isinstance(linear, bool):
        raise OptionError(f'val.linear_scores: expected true or false, got {linear!r}.')
    if hasattr(model, 'check_options') or not opt['val']['metrics'] or linear:
        return
    for phase, section in opt['datasets'].items():
        if phase != 'train' and hasattr(DATASET_REGISTRY.get(section['type']), 'Options'):
            names = ' and '.join(opt['val']['metrics'])
            raise OptionError(
                f"datasets.{phase}: model_type '{model.__name__}' would score the raw bursts of '{section['name']}' "
                f"({section['type']}) as linear camera RGB, rounded to 8 bits and not developed; its {names} would not be "
                'comparable with that of our models. Use model_type: BurstModel, or set val.linear_scores: true if it is wanted.')


def _check_validation(val: dict[str, Any]) -> None:
    for key, default in (('save_img', False), ('suffix', None), ('metrics', None)):
        val.setdefault(key, default)
    if not isinstance(val['metrics'], (dict, type(None))):
        raise OptionError(f"val.metrics: expected a mapping of names to metrics, got {val['metrics']!r}.")
    for name, metric in (val['metrics'] or {}).items():
        function, arguments = registered(METRIC_REGISTRY, metric, f'val.metrics.{name}')
        # The toolbox's metrics swallow unknown keys.
        check_keys(arguments, [*inspect.signature(function).parameters, 'better'], f'val.metrics.{name}')


def _check_device(opt: dict[str, Any], launcher: str) -> None:
    available = torch.cuda.device_count()
    if launcher == 'none' and opt['num_gpu'] == 'auto' and available > 1:
        # The toolbox would train by DataParallel, which copies the network in every iteration.
        _logger.warning('%d GPUs are visible, and one is used; for all of them: torchrun --nproc_per_node %d '
                        '-m jddb_plugin.train -opt FILE --launcher pytorch', available, available)
        opt['num_gpu'] = 1
    if opt['num_gpu'] != 'auto' and (not isinstance(opt['num_gpu'], int) or opt['num_gpu'] > available):
        raise OptionError(f"num_gpu: {opt['num_gpu']!r} asked for, but {available} CUDA devices are here; use num_gpu: auto.")
    ours = hasattr(MODEL_REGISTRY.get(opt['model_type']), 'check_options')
    if ours and launcher == 'none' and opt['num_gpu'] not in ('auto', 0, 1):
        raise OptionError(f"num_gpu: {opt['model_type']} trains on several GPUs by one process each: torchrun --nproc_per_node "
                          f"{opt['num_gpu']} -m jddb_plugin.train -opt FILE --launcher pytorch")
    if available == 0:
        for phase, dataset in (opt.get('datasets') or {}).items():
            if isinstance(dataset, Mapping) and dataset.get('prefetch_mode') == 'cuda':
                raise OptionError(f'datasets.{phase}.prefetch_mode: cuda needs a CUDA device, and none is here; use ~ or cpu.')


def _share_batch(opt: Mapping[str, Any], launcher: str) -> None:
    """Divide ``datasets.train.batch_size`` among the processes, so that a run may resume with another number of them."""
    train = opt['datasets'].get('train')
    batch = train.pop('batch_size', None) if isinstance(train, dict) else None
    if batch is None:
        return
    processes_in_all = processes.rank_info(launcher)[1]
    if not isinstance(batch, int) or batch < 1 or batch % processes_in_all:
        raise OptionError(f'datasets.train.batch_size: expected a whole number that {processes_in_all} processes can share '
                          f'equally, got {batch!r}.')
    if train.get('batch_size_per_gpu') is not None:
        raise OptionError('datasets.train: give batch_size (over all processes) or batch_size_per_gpu, not both.')
    train['batch_size_per_gpu'] = batch // processes_in_all


def _check_datasets(opt: dict[str, Any], *, is_train: bool) -> None:
    datasets = _section(opt, 'datasets')
    known = ('train', 'val') if is_train else ('test', 'val')
    for phase, section in datasets.items():
        where = f'datasets.{phase}'
        if phase.split('_')[0] not in known:
            raise OptionError(f"{where}: unknown phase; expected {' or '.join(known)}, or with a suffix, e.g. val_2.")
        dataset, _ = registered(DATASET_REGISTRY, section, where)
        if not isinstance(section.get('name'), str):
            raise OptionError(f"{where}: 'name' is missing, or not text.")
        if hasattr(dataset, 'Options'):
            if phase == 'train':
                section.setdefault('seed', opt.get('manual_seed') or 0)
            read_options(dataset.Options, section, where, ignore=HOST_KEYS)
    scored = [section['name'] for phase, section in datasets.items() if phase != 'train']
    for name in scored:
        if scored.count(name) > 1:
            raise OptionError(f"datasets: duplicate name '{name}'; results are stored under names.")
    if is_train:
        train = datasets.get('train')
        if train is None:
            raise OptionError("datasets: 'train' is missing.")
        if train.get('synthesis') == 'device' and not hasattr(MODEL_REGISTRY.get(opt['model_type']), 'synthesizes'):
            raise OptionError(f"datasets.train.synthesis: model_type '{opt['model_type']}' makes no raw bursts; use "
                              'synthesis: worker.')
        for key in ('batch_size_per_gpu', 'num_worker_per_gpu'):
            if not isinstance(train.get(key), int) or train[key] < (key == 'batch_size_per_gpu'):
                raise OptionError(f"datasets.train.{key}: expected an integer, got {train.get(key)!r}.")
        if train.get('prefetch_mode') == 'cpu' and not train['num_worker_per_gpu']:
            raise OptionError('datasets.train.prefetch_mode: cpu draws samples in a thread beside the training step, and both '
                              'would share their random numbers; use num_worker_per_gpu: 1 or more, or prefetch_mode: ~.')


def _check_training(opt: dict[str, Any], model: type) -> None:
    train, logger = _section(opt, 'train'), _section(opt, 'logger')
    check_keys(logger, _LOGGER, 'logger')
    check_wandb(opt)
    for section, key in (('train', 'total_iter'), ('logger', 'print_freq'), ('logger', 'save_checkpoint_freq')):
        # The toolbox's own files write 6e5-like numbers as !!float.
        value = opt[section].get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 1 or value != int(value):
            raise OptionError(f'{section}.{key}: expected a positive whole number, got {value!r}.')
        opt[section][key] = int(value)
    for key, least in (('keep_last', 1), ('keep_every', 0)):
        value = logger.get(key)
        if value is not None and (not isinstance(value, int) or value < least):
            raise OptionError(f'logger.{key}: expected a whole number from {least} on, got {value!r}.')
    logger.setdefault('use_tb_logger', False)
    if opt.get('val') is not None and not isinstance(opt['val'].get('val_freq'), (int, float)):
        raise OptionError("val.val_freq is missing, or not a number.")
    if not any(phase.split('_')[0] == 'val' for phase in opt['datasets']):
        opt.pop('val', None)
    for key in train:
        if key.endswith('_opt') and isinstance(train[key], Mapping):
            loss, arguments = registered(LOSS_REGISTRY, train[key], f'train.{key}')
            check_call(loss, arguments, f'train.{key}')
    _check_optimization(train, ours=hasattr(model, 'check_options'))
    if hasattr(model, 'check_hooks'):
        model.check_hooks(opt)
    else:
        val = opt.get('val') or {}
        for key, wanted in (('train.hooks', train.get('hooks')), ('val.matching_figure', val.get('matching_figure'))):
            if wanted:
                raise OptionError(f"{key}: model_type '{model.__name__}' runs no hooks and draws no matching; use "
                                  'HookedVideoBaseModel or HookedSRModel, or put HookMixin in front of your own model.')


def _check_optimization(train: Mapping[str, Any], *, ours: bool) -> None:
    """Optimizer and scheduler: their types and keys."""
    for key in ('optim_g', 'scheduler'):
        if not isinstance(train.get(key), Mapping) or 'type' not in train[key]:
            raise OptionError(f"train.{key}: expected a mapping with a 'type'.")
    optim = dict(train['optim_g'])
    optimizer = optimizer_class(optim.pop('type'))
    if not isinstance(optim.get('lr'), (int, float)):
        raise OptionError(f"train.optim_g.lr: expected a number, got {optim.get('lr')!r}.")
    if ours:
        optim.pop('lr_coarse', None)
    check_call(optimizer, {**optim, 'params': None}, 'train.optim_g')
    schedulers = {
        'MultiStepLR': lr_scheduler.MultiStepRestartLR,  # as the toolbox takes it
        'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
        'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR,
    }
    scheduler = dict(train['scheduler'])
    kind = scheduler.pop('type')
    if kind not in schedulers:
        raise OptionError(f"train.scheduler.type: unknown scheduler '{kind}'; {nearest(kind, schedulers)}")
    check_call(schedulers[kind], {**scheduler, 'optimizer': None}, 'train.scheduler')
    if kind == 'CosineAnnealingRestartLR':
        periods = train['scheduler'].get('periods') or [0]
        if sum(periods) < train['total_iter']:
            raise OptionError(f'train.scheduler.periods: add up to {sum(periods)}, less than total_iter '
                              f"{train['total_iter']}.")
