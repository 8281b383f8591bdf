"""What would stop a run only after an older experiment was renamed, checked before that."""
from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jddb_plugin.checks import DataError, OptionError

#: NumPy takes seeds below 2^32, and processes and workers add their numbers to it.
_LARGEST_SEED = 2 ** 32 - 2 ** 16 - 1


def check_seed(opt: Mapping[str, Any]) -> None:
    """Raise OptionError unless ``manual_seed``, if it is given, can seed all random numbers."""
    seed = opt.get('manual_seed')
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= _LARGEST_SEED):
        raise OptionError(f'manual_seed: expected a whole number in 0 .. {_LARGEST_SEED}, got {seed!r}.')


def check_wandb(opt: Mapping[str, Any]) -> None:
    """Raise OptionError if the logger asks for Weights & Biases and it cannot be used."""
    wandb = opt['logger'].get('wandb')
    if wandb is None:
        return
    if not isinstance(wandb, Mapping):
        raise OptionError(f"logger.wandb: expected a mapping with 'project', got {wandb!r}.")
    if wandb.get('project') is None:
        return
    if not opt['logger'].get('use_tb_logger'):
        raise OptionError('logger.wandb: is fed by TensorBoard; set logger.use_tb_logger: true.')
    try:
        found = importlib.util.find_spec('wandb')
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise OptionError("logger.wandb: the package 'wandb' is not installed; run: pip install wandb, or set "
                          "logger.wandb.project: ~.")


def check_folders(section: Mapping[str, Any], where: str) -> None:
    """Check the folders and lists of files that a data set of the toolbox reads.

    Raises:
        DataError: one is not there, or holds nothing.
    """
    for key, value in section.items():
        if not isinstance(value, str):
            continue
        path = Path(value).expanduser()
        if key.startswith('dataroot'):
            if not path.exists():
                raise DataError(f'{where}.{key}: {value}: no such file or folder.')
            if path.is_dir() and not any(file.is_file() for file in path.rglob('*')):
                raise DataError(f'{where}.{key}: {value}: an empty folder.')
            if path.suffix == '.lmdb' and not (path / 'meta_info.txt').is_file():
                raise DataError(f'{where}.{key}: {value}: no LMDB of the toolbox (it has no meta_info.txt).')
        elif key.startswith('meta_info') and not path.is_file():
            raise DataError(f'{where}.{key}: {value}: no such file.')
        elif key.startswith('meta_info') and not path.read_bytes().strip():
            raise DataError(f'{where}.{key}: {value}: an empty file.')
