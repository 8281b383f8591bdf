"""A tiny training by option file, as command lines and in processes of its own."""
import os
import subprocess
import sys
from pathlib import Path

import torch
import yaml

from .conftest import ROOT


def write_options(folder, lmdb, **changes):
    """An option file that inherits from the demo's; ``changes`` merge into its top level sections."""
    options = {
        '_base_': str(ROOT / 'options' / 'train' / 'demo_two_stage.yml'),
        'name': 'small',
        'network_g': {'num_feat': 8, 'deformable_groups': 2},
        'datasets': {'train': {'dataroot_gt': str(lmdb), 'gt_size': 48, 'dataset_enlarge_ratio': 1, 'num_worker_per_gpu': 0}},
        'train': {'total_iter': 4, 'warmup_iter': -1},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': 1, 'use_tb_logger': False},
    }
    for key, value in changes.items():
        options[key] = {**options.get(key, {}), **value} if isinstance(value, dict) else value
    path = Path(folder) / 'small.yml'
    path.write_text(yaml.safe_dump(options))
    return str(path)


def validation(lmdb, **changes):
    """Sections for a validation every second iteration."""
    data = {'name': 'clips', 'type': 'UnprocessedBurstTestDataset', 'dataroot_gt': str(lmdb), 'noise': 'high', 'num_frame': 5}
    metrics = {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}, 'ssim': {'type': 'calculate_ssim', 'crop_border': 0}}
    return data, {'val_freq': 2, 'save_img': False, 'metrics': metrics, **changes}


def weights(folder, name, key='params'):
    """Weights of a checkpoint of an experiment."""
    return torch.load(Path(folder) / 'models' / name, weights_only=True)[key]


def equal(first, second):
    """Whether two state dicts are equal to the bit."""
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


def environment(**more):
    """For a process of one thread."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    return {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', **more}


def start(arguments, cwd, **env):
    """Start `python -m jddb_plugin.train` with its output piped."""
    return subprocess.Popen([sys.executable, '-m', 'jddb_plugin.train', *arguments], cwd=cwd, env=environment(**env), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
