"""What the train and test commands share: read options, check them, hand them to the toolbox's pipeline."""
from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

import torch
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY

from jddb_plugin.checks import CheckpointError, JDDBError, OptionError, nearest
from jddb_plugin.config import dump_options, load_options, parse_override
from jddb_plugin.hooks import build_hooks
from jddb_plugin.options import check_call, check_keys, read_options

_TOP = ('name', 'model_type', 'scale', 'num_gpu', 'manual_seed', 'datasets', 'path', 'train', 'val', 'logger', 'dist_params',
        'find_unused_parameters', 'network_g', 'channels_last')
_LOGGER = ('print_freq', 'save_checkpoint_freq', 'use_tb_logger', 'wandb')
_PATH = ('pretrain_network_g', 'strict_load_g', 'param_key_g', 'resume_state', 'ignore_resume_networks')


def _parse_arguments(arguments: Sequence[str], prog: str, description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument('-opt', required=True, metavar='FILE', help='option file (YAML)')
    parser.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE',
                        help='override options, e.g. train.total_iter=10')
    parser.add_argument('--force_yml', nargs='+', action='extend', default=[], metavar='KEY=VALUE',
                        help="the toolbox's spelling of --set, e.g. train:total_iter=10")
    parser.add_argument('--auto_resume', action='store_true', help='go on from the newest readable training state')
    parser.add_argument('--debug', action='store_true', help="the toolbox's debug mode: validate and save every 8 iterations")
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm'), default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _registered(registry: Any, options: Any, where: str) -> tuple[Any, dict[str, Any]]:
    """The class that a section's ``type`` names, and the section's other keys."""
    if not isinstance(options, Mapping) or 'type' not in options:
        raise OptionError(f"{where}: expected a mapping with a 'type', got {options!r}.")
    arguments = dict(options)
    kind = arguments.pop('type')
    for name in (kind, f'{kind}_basicsr'):
        if name in registry:
            return registry.get(name), arguments
    raise OptionError(f"{where}.type: '{kind}' is not registered; {nearest(kind, registry.keys())}")


def _section(opt: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = opt.get(name)
    if not isinstance(value, dict):
        raise OptionError(f"section '{name}' is missing or not a mapping.")
    return value


def check_options(opt: dict[str, Any], *, is_train: bool) -> dict[str, Any]:
    """Check resolved options as far as can be known before anything is built, and fill in what the toolbox needs.

    Every ``type`` must be registered, and the arguments of networks, losses, metrics and hooks must be known to it.
    Sections that our own model and data sets read must hold no unknown key.

    Returns:
        The options, with defaults for keys that the toolbox reads without asking.

    Raises:
        OptionError: naming the key, and the nearest known one if it is misspelt.
    """
    for key in ('name', 'model_type'):
        if not isinstance(opt.get(key), str):
            raise OptionError(f"'{key}' is missing, or not text.")
    if opt['model_type'] not in MODEL_REGISTRY:
        hint = nearest(opt['model_type'], MODEL_REGISTRY.keys())
        raise OptionError(f"model_type: '{opt['model_type']}' is not registered; {hint}")
    model = MODEL_REGISTRY.get(opt['model_type'])
    opt.setdefault('path', {})
    opt['path'] = opt['path'] or {}
    opt.setdefault('num_gpu', 'auto')
    if hasattr(model, 'check_options'):
        check_keys(opt, _TOP, 'options')
        check_keys(opt['path'], _PATH, 'path')
        model.check_options(opt)
    _check_device(opt)
    networks = [key for key in opt if key.startswith('network_')]
    if not networks:
        raise OptionError("'network_g' is missing.")
    for key in networks:
        network, arguments = _registered(ARCH_REGISTRY, opt[key], key)
        check_call(network, arguments, key)
        if network.__module__.startswith('jddb_plugin.'):
            network(**arguments)  # refuses values that do not fit together
    _check_datasets(opt, is_train=is_train)
    val = opt.get('val')
    if val is None and not is_train:
        val = opt['val'] = {}
    if val is not None:
        val.setdefault('save_img', False)
        val.setdefault('suffix', None)
        val.setdefault('metrics', None)
        for name, metric in (val['metrics'] or {}).items():
            function, arguments = _registered(METRIC_REGISTRY, metric, f'val.metrics.{name}')
            check_call(function, {**arguments, 'img': None, 'img2': None}, f'val.metrics.{name}')
    if is_train:
        _check_training(opt)
    return opt


def _check_device(opt: Mapping[str, Any]) -> None:
    available = torch.cuda.device_count()
    if opt['num_gpu'] != 'auto' and (not isinstance(opt['num_gpu'], int) or opt['num_gpu'] > available):
        raise OptionError(f"num_gpu: {opt['num_gpu']!r} asked for, but {available} CUDA devices are here; use num_gpu: auto.")
    if available == 0:
        for phase, dataset in (opt.get('datasets') or {}).items():
            if isinstance(dataset, Mapping) and dataset.get('prefetch_mode') == 'cuda':
                raise OptionError(f'datasets.{phase}.prefetch_mode: cuda needs a CUDA device, and none is here; use ~ or cpu.')


def _check_datasets(opt: dict[str, Any], *, is_train: bool) -> None:
    datasets = _section(opt, 'datasets')
    known = ('train', 'val') if is_train else ('test', 'val')
    for phase, section in datasets.items():
        where = f'datasets.{phase}'
        if phase.split('_')[0] not in known:
            raise OptionError(f"{where}: unknown phase; expected {' or '.join(known)}, or with a suffix, e.g. val_2.")
        dataset, _ = _registered(DATASET_REGISTRY, section, where)
        if not isinstance(section.get('name'), str):
            raise OptionError(f"{where}: 'name' is missing, or not text.")
        if hasattr(dataset, 'Options'):
            from jddb_plugin.data.unprocessed_burst_dataset import HOST_KEYS
            if phase == 'train':
                section.setdefault('seed', opt.get('manual_seed') or 0)
            read_options(dataset.Options, section, where, ignore=HOST_KEYS)
    if is_train:
        train = datasets.get('train')
        if train is None:
            raise OptionError("datasets: 'train' is missing.")
        for key in ('batch_size_per_gpu', 'num_worker_per_gpu'):
            if not isinstance(train.get(key), int) or train[key] < (key == 'batch_size_per_gpu'):
                raise OptionError(f"datasets.train.{key}: expected an integer, got {train.get(key)!r}.")


def _check_training(opt: dict[str, Any]) -> None:
    train, logger = _section(opt, 'train'), _section(opt, 'logger')
    check_keys(logger, _LOGGER, 'logger')
    for section, key in (('train', 'total_iter'), ('logger', 'print_freq'), ('logger', 'save_checkpoint_freq')):
        # The toolbox's own files write 6e5-like numbers as !!float.
        value = opt[section].get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 1 or value != int(value):
            raise OptionError(f'{section}.{key}: expected a positive whole number, got {value!r}.')
        opt[section][key] = int(value)
    logger.setdefault('use_tb_logger', False)
    if opt.get('val') is not None and not isinstance(opt['val'].get('val_freq'), (int, float)):
        raise OptionError("val.val_freq is missing, or not a number.")
    if not any(phase.split('_')[0] == 'val' for phase in opt['datasets']):
        opt['val'] = None
    for key in train:
        if key.endswith('_opt') and isinstance(train[key], Mapping):
            loss, arguments = _registered(LOSS_REGISTRY, train[key], f'train.{key}')
            check_call(loss, arguments, f'train.{key}')
    for key in ('optim_g', 'scheduler'):
        if not isinstance(train.get(key), Mapping) or 'type' not in train[key]:
            raise OptionError(f"train.{key}: expected a mapping with a 'type'.")
    build_hooks(train.get('hooks') or [])
    if train['scheduler']['type'] == 'CosineAnnealingRestartLR':
        periods = train['scheduler'].get('periods') or [0]
        if sum(periods) < train['total_iter']:
            raise OptionError(f'train.scheduler.periods: add up to {sum(periods)}, less than total_iter '
                              f"{train['total_iter']}.")


def _check_files(opt: Mapping[str, Any]) -> None:
    """Checkpoints that are named must be there, before an older experiment makes room for this one."""
    for key, path in opt['path'].items():
        if key.startswith(('pretrain_network', 'resume_state')) and path and not os.path.isfile(os.path.expanduser(path)):
            raise CheckpointError(f'path.{key}: {path}: no such checkpoint.')


def run(pipeline: Callable[[str], None], *, is_train: bool, arguments: Optional[Sequence[str]] = None) -> int:
    """Run one of the toolbox's pipelines on checked options.

    Experiments and results go below the current directory.

    Args:
        pipeline: ``train_pipeline`` or ``test_pipeline``.
        is_train: which of the two.
        arguments: command line; that of the process if None.

    Returns:
        Exit status: 0, or 2 after an error that is the user's to mend, told in one line.
    """
    command = 'train' if is_train else 'test'
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parse_arguments(given, f'python -m jddb_plugin.{command}', f'{command.capitalize()} by an option file.')
    saved = sys.argv
    try:
        overrides = [parse_override(text) for text in args.set]
        overrides += [parse_override(text, separator=':') for text in args.force_yml]
        opt = check_options(load_options(args.opt, overrides), is_train=is_train)
        _check_files(opt)
        with tempfile.TemporaryDirectory(prefix='jddb_plugin_') as folder:
            resolved = Path(folder) / Path(args.opt).name
            resolved.write_text(f'# Resolved from: {args.opt}\n# by: python -m jddb_plugin.{command} {" ".join(given)}\n'
                                + dump_options(opt), encoding='utf-8')
            flags = [flag for flag in ('auto_resume', 'debug') if getattr(args, flag)]
            sys.argv = [f'jddb_plugin.{command}', '-opt', str(resolved), '--launcher', args.launcher,
                        *(f'--{flag}' for flag in flags)]
            pipeline(os.getcwd())
    except JDDBError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    finally:
        sys.argv = saved
    return 0
