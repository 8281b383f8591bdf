"""Fixtures."""
import logging
from pathlib import Path

import cv2
import pytest
import torch
import yaml
from basicsr.utils import logger as basicsr_logger
from basicsr.utils.registry import DATASET_REGISTRY

from jddb_plugin.train import main

from .host_run import WorkerRandomClips


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(DATASET_REGISTRY._obj_map, 'WorkerRandomClips', WorkerRandomClips)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    basicsr_logger.initialized_logger.clear()
    yield
    torch.set_num_threads(threads)
    for handler in list(logging.getLogger('basicsr').handlers):
        handler.close()
        logging.getLogger('basicsr').removeHandler(handler)
    basicsr_logger.initialized_logger.clear()


@pytest.fixture
def train(tmp_path, textures):
    """Run a stock EDVR with changes to its options (dotted keys); returns the exit status."""
    for name, frames in textures.items():
        for side, folder in ((64, 'gt'), (16, 'lq')):
            (tmp_path / folder / name).mkdir(parents=True)
            for index, frame in enumerate(frames):
                small = cv2.resize(frame[:64, :64], (side, side), interpolation=cv2.INTER_AREA)
                cv2.imwrite(str(tmp_path / folder / name / f'{index:08d}.png'), small)
    clips = {'type': 'VideoTestDataset', 'dataroot_gt': str(tmp_path / 'gt'), 'dataroot_lq': str(tmp_path / 'lq'),
             'io_backend': {'type': 'disk'}, 'num_frame': 5, 'padding': 'reflection_circle', 'cache_data': False}
    options = {
        'name': 'edvr', 'model_type': 'VideoBaseModel', 'scale': 4, 'num_gpu': 'auto', 'manual_seed': 0,
        'datasets': {'train': {'name': 'clips', 'type': 'WorkerRandomClips', 'draws': str(tmp_path / 'draws.txt'),
                               'num_worker_per_gpu': 0, 'batch_size_per_gpu': 2},
                     'val': {'name': 'REDS4', **clips}},
        'network_g': {'type': 'EDVR', 'num_feat': 8, 'num_frame': 5, 'deformable_groups': 2, 'num_extract_block': 1,
                      'num_reconstruct_block': 1, 'center_frame_idx': 2},
        'path': {'pretrain_network_g': None},
        'train': {'ema_decay': 0.9, 'optim_g': {'type': 'Adam', 'lr': 0.001}, 'total_iter': 2,
                  'pixel_opt': {'type': 'CharbonnierLoss'},
                  'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [9], 'restart_weights': [1]}},
        'val': {'val_freq': 100, 'save_img': False, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': 1, 'use_tb_logger': False},
    }

    def run(*flags, **changes):
        Path('edvr.yml').write_text(yaml.safe_dump(options))
        sets = [f'{key}={value}' for key, value in changes.items()]
        return main(['-opt', 'edvr.yml', *flags, *(['--set', *sets] if sets else [])])

    return run
