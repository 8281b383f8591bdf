"""Stock models of the toolbox, with and without hooks, and what they draw."""
import json
import re
from pathlib import Path

import cv2
import pytest
import torch
import yaml

from jddb_plugin.train import main as run_train

from .pipeline_run import DEMO, METRICS, drawn_figures, read_log, small_options, validation_options

pytestmark = pytest.mark.usefixtures('workplace')


@pytest.fixture
def stock(texture_folder, textures, tmp_path, monkeypatch):
    """Options that train the toolbox's EDVR, with its own model and test set, to enlarge frames four times."""
    from basicsr.utils.registry import DATASET_REGISTRY

    from jddb_plugin.data.images import to_float

    class SmallFrames(torch.utils.data.Dataset):
        def __init__(self, opt):
            self.opt = opt
            self.clips = [torch.stack([to_float(frame[:64, :64]) for frame in frames[:5]]) for frames in textures.values()]

        def __len__(self):
            return 3 * len(self.clips)

        def __getitem__(self, index):
            frames = self.clips[index % len(self.clips)]
            return {'lq': torch.nn.functional.avg_pool2d(frames, 4), 'gt': frames[2]}

    monkeypatch.setitem(DATASET_REGISTRY._obj_map, 'SmallFrames', SmallFrames)
    for name, frames in textures.items():
        (tmp_path / 'small' / name).mkdir(parents=True)
        for index, frame in enumerate(frames):
            small = cv2.resize(frame, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(tmp_path / 'small' / name / f'{index:08d}.png'), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))

    def val(name, cache):
        return {'name': name, 'type': 'VideoTestDataset', 'dataroot_gt': str(texture_folder), 'cache_data': cache,
                'dataroot_lq': str(tmp_path / 'small'), 'io_backend': {'type': 'disk'}, 'num_frame': 5,
                'padding': 'reflection_circle'}

    return {
        'name': 'edvr', 'model_type': 'VideoBaseModel', 'scale': 4, 'num_gpu': 'auto', 'manual_seed': 0,
        'datasets': {'train': {'name': 'clips', 'type': 'SmallFrames', 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 2},
                     'val': val('REDS4', False), 'val_2': val('vid4', True)},
        'network_g': {'type': 'EDVR', 'num_feat': 8, 'num_frame': 5, 'deformable_groups': 2, 'num_extract_block': 1,
                      'num_reconstruct_block': 1, 'center_frame_idx': 2},
        'path': {'pretrain_network_g': None},
        'train': {'optim_g': {'type': 'Adam', 'lr': 0.0001}, 'total_iter': 2, 'pixel_opt': {'type': 'CharbonnierLoss'},
                  'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [4], 'restart_weights': [1]}},
        'val': {'val_freq': 2, 'save_img': False, 'metrics': METRICS},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': False},
    }


def test_a_stock_model_trains_validates_and_resumes(stock):
    Path('edvr.yml').write_text(yaml.safe_dump(stock))
    assert run_train(['-opt', 'edvr.yml']) == 0
    log = read_log('experiments/edvr')
    assert 'Validation REDS4' in log
    assert 'Validation vid4' in log
    assert run_train(['-opt', 'edvr.yml', '--auto_resume', '--set', 'train.total_iter=4']) == 0
    assert 'Resuming training from epoch: 0, iter: 2.' in read_log('experiments/edvr')
    assert Path('experiments/edvr/models/net_g_4.pth').is_file()


def test_hooks_under_a_model_without_hooks_are_refused(stock, capsys):
    stock['train']['hooks'] = [{'type': 'LossWeightHook', 'loss': 'pixel_opt', 'milestones': [], 'values': [1]}]
    Path('edvr.yml').write_text(yaml.safe_dump(stock))
    assert run_train(['-opt', 'edvr.yml']) == 2
    assert "train.hooks: model_type 'VideoBaseModel' runs no hooks" in capsys.readouterr().err


def test_hooks_work_with_a_stock_model(stock):
    stock['model_type'] = 'HookedVideoBaseModel'
    stock['train']['hooks'] = [{'type': 'LossWeightHook', 'loss': 'pixel_opt', 'schedule': 'linear', 'start': 2.0, 'stop': 0.5,
                                'end': 2}]
    del stock['datasets']['val'], stock['datasets']['val_2']
    Path('hooked.yml').write_text(yaml.safe_dump(stock))
    assert run_train(['-opt', 'hooked.yml']) == 0
    assert re.findall(r'weight_pixel: (\S+)', read_log('experiments/edvr')) == ['1.2500e+00', '5.0000e-01']


def test_validation_draws_the_matching_for_tensorboard(texture_lmdb, capsys):
    validation = {**validation_options(texture_lmdb), 'logger.use_tb_logger': 'true', 'train.total_iter': 2}
    validation['val'] = json.dumps({'val_freq': 2, 'save_img': False, 'metrics': METRICS, 'matching_figure': True})
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb, **validation)]) == 0
    assert sorted(drawn_figures('tb_logger/demo_two_stage')) == ['matching/clips/a', 'matching/clips/b']
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb, **{**validation, 'logger.use_tb_logger': 'false'})]) == 2
    assert 'set logger.use_tb_logger: true' in capsys.readouterr().err


def test_a_stock_model_with_a_wrapped_network_draws_it_too(stock, capsys):
    stock['model_type'] = 'HookedVideoBaseModel'
    stock['val']['matching_figure'] = stock['logger']['use_tb_logger'] = True
    Path('edvr.yml').write_text(yaml.safe_dump(stock))
    assert run_train(['-opt', 'edvr.yml']) == 2
    assert 'EDVR has no coarse alignment that could be drawn' in capsys.readouterr().err
    stock['network_g'] = {'type': 'CoarseAligned', 'network': stock['network_g'],
                          'tile': 8, 'overlap': 4, 'align': {'match_channels': 3, 'features': 'bicubic', 'radius': 1}}
    Path('edvr.yml').write_text(yaml.safe_dump(stock))
    assert run_train(['-opt', 'edvr.yml']) == 0
    assert len(drawn_figures('tb_logger/edvr')) == 4  # two clips in each of two sets
    stock['model_type'] = 'VideoBaseModel'
    Path('edvr.yml').write_text(yaml.safe_dump(stock))
    assert run_train(['-opt', 'edvr.yml']) == 2
    assert "val.matching_figure: model_type 'VideoBaseModel' runs no hooks and draws no matching" in capsys.readouterr().err
