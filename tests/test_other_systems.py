"""What macOS and Windows lack is hidden: everything imports, and the commands run with spawned workers."""
import pkgutil
import subprocess
import sys

import cv2
import torch

import jddb_plugin

from .conftest import ROOT
from .small_run import environment, write_options

DRIVER = ROOT / 'tests' / 'other_system_driver.py'


def _run(*arguments, cwd):
    return subprocess.run([sys.executable, str(DRIVER), *map(str, arguments)], cwd=cwd, env=environment(), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_every_module_imports():
    modules = pkgutil.walk_packages(jddb_plugin.__path__, 'jddb_plugin.')
    names = [module.name for module in modules if '__main__' not in module.name]
    code = f'import runpy, importlib; runpy.run_path({str(DRIVER)!r}); [importlib.import_module(name) for name in {names}]'
    result = subprocess.run([sys.executable, '-c', code], env=environment(), text=True, capture_output=True)
    assert result.returncode == 0, result.stderr


def test_a_training_with_spawned_workers_and_a_restored_picture(texture_lmdb, tmp_path):
    options = write_options(tmp_path, texture_lmdb, datasets={'train': {
        'dataroot_gt': str(texture_lmdb), 'gt_size': 48, 'dataset_enlarge_ratio': 1, 'num_worker_per_gpu': 1}})
    result = _run('train', '-opt', options, '--set', 'train.total_iter=2', 'num_gpu=0', cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    weights = tmp_path / 'experiments' / 'small' / 'models' / 'net_g_latest.pth'
    assert torch.load(weights, weights_only=True)['params']
    result = _run('restore', texture_lmdb, '--clip', 'a', '-o', 'a.png', '--weights', weights, '--noise', 'low', '--tile', '16',
                  '--overlap', '4', '--radius', '2', cwd=tmp_path)
    assert result.returncode == 0 and cv2.imread(str(tmp_path / 'a.png')).shape == (96, 112, 3), result.stdout
