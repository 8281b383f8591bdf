"""The benchmark of the training step, on little: it trains, compares, and refuses what it does not know."""
import importlib
import json
import sys

import cv2
import numpy as np
import pytest
import torch

from ..conftest import ROOT

pytestmark = pytest.mark.slow

TINY = ['--small', '--device', 'cpu', '--repeats', '2', '--warmup', '0', '--set', 'network_g.num_feat=4',
        'network_g.deformable_groups=1', 'datasets.train.num_worker_per_gpu=0', 'datasets.train.batch_size_per_gpu=1']


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'scripts' / 'benchmark'))
    for module in ('common', 'data', 'training'):
        sys.modules.pop(module, None)
    yield importlib.import_module('training')
    for module in ('common', 'data', 'training'):
        sys.modules.pop(module, None)


@pytest.fixture
def frames(tmp_path):
    """Seven small frames of a moving texture."""
    scene = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (160, 180, 3), np.uint8), (0, 0), 2)
    folder = tmp_path / 'frames'
    folder.mkdir()
    for t in range(7):
        cv2.imwrite(str(folder / f'{t}.png'), scene[2 * t:2 * t + 120, 3 * t:3 * t + 140])
    return folder


def test_it_compares_the_switches_with_the_plain_step(script, frames, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, 'PROFILED', 1)
    report, profile = tmp_path / 'new' / 'x.json', tmp_path / 'new' / 'profile.txt'
    assert script.main([*TINY, '--frames', str(frames), '--switches', 'channels_last', 'fused', 'ema', '--json', str(report),
                        '--profile', str(profile)]) == 0
    content = json.loads(report.read_text())
    names = ['plain float32', 'channels_last', 'fused', 'ema', 'all together', 'plain again']
    assert [row['name'] for row in content['rows']] == names
    for row in content['rows']:
        assert row['iterations_per_second'] > 0 and 0 <= row['data_wait'] < 1
        assert row['ratio'] == pytest.approx(row['plain_step_seconds'] / row['step_seconds'])
        assert row['samples_per_second'] == pytest.approx(row['iterations_per_second'])  # batch 1
    assert content['rows'][0]['ratio'] == 1 and content['machine']['torch'] == torch.__version__
    output = capsys.readouterr().out
    assert 'Training on cpu, 2 iterations' in output and all(f'| {name} ' in output for name in names)
    text = profile.read_text()
    assert 'plain float32, 1 iterations on cpu' in text and 'all together, 1 iterations' in text
    assert 'convolution_backward' in text


def test_each_switch_is_on_where_it_should_be_and_off_in_plain(script, frames, tmp_path):
    path = ('datasets.train.dataroot_gt', str(script.write_clip(frames, tmp_path, small=True)))
    wanted = script.variants(['channels_last', 'fused', 'ema'])
    tiny = [script.parse_override(text) for text in TINY[TINY.index('--set') + 1:]]
    found = {}
    for name, overrides in wanted.items():
        opt = script.resolve(str(script.OPTIONS / 'demo_two_stage.yml'), [path, ('num_gpu', 0), *tiny, *overrides], tmp_path)
        assert opt['is_train'] and not opt['dist'] and opt['rank'] == 0 and opt['datasets']['train']['phase'] == 'train'
        model = script.Training(opt).model
        group = model.optimizer_g.param_groups[0]
        strided = any(p.ndim == 4 and not p.is_contiguous() for p in model.net_g.parameters())
        found[name] = (strided, bool(group['fused']), model.ema_decay)
    assert found['plain float32'] == found['plain again'] == (False, False, 0)
    assert found['channels_last'][0] and found['fused'][1] and found['ema'][2] == 0.999
    assert found['all together'] == (True, True, 0.999)


def test_every_switch_is_an_option_of_this_version(script, frames, tmp_path):
    path = ('datasets.train.dataroot_gt', str(script.write_clip(frames, tmp_path, small=True)))
    for overrides in script.variants(list(script.SWITCHES)).values():
        script.resolve(str(script.OPTIONS / 'demo_two_stage.yml'), [path, ('num_gpu', 0), *overrides], tmp_path)


def test_the_recipe_can_read_the_frames(script, tmp_path):
    """Nothing is trained: the paper's network takes too long for a test."""
    overrides = [('datasets.train.dataroot_gt', 'x.lmdb'), ('num_gpu', 0)]
    opt = script.resolve(str(script.OPTIONS / 'jddb_reds.yml'), overrides, tmp_path)
    assert opt['network_g']['num_feat'] == 64 and 'val' not in opt['datasets'] and 'val' not in opt


def test_an_epoch_that_ends_is_followed_by_the_next(script, frames, tmp_path):
    path = ('datasets.train.dataroot_gt', str(script.write_clip(frames, tmp_path, small=True)))
    tiny = [script.parse_override(text) for text in TINY[TINY.index('--set') + 1:]]
    overrides = [path, ('num_gpu', 0), ('datasets.train.dataset_enlarge_ratio', 1), *tiny]
    opt = script.resolve(str(script.OPTIONS / 'demo_two_stage.yml'), overrides, tmp_path)
    training = script.Training(opt)
    batches = [training.next() for _ in range(9)]  # seven frames are fewer bursts than that
    assert training.epoch > 0 and all(batch is not None for batch in batches)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--set', 'train.precison=bf16'], "'precison'"),
    (['--set', 'datasets.train.type=RawBurstDataset'], 'datasets.train'),
    (['--opt', 'nowhere.yml'], 'nowhere.yml: no such option file'),
    (['--frames', 'nowhere'], 'nowhere: expected a folder of at least seven images, found 0'),
    (['--repeats', '0'], 'expected --repeats of at least 1'),
])
def test_what_is_wrong_is_said_in_one_line(script, frames, capsys, arguments, message):
    given = [] if '--frames' in arguments else ['--frames', str(frames)]
    assert script.main([*TINY, *given, *arguments]) == 2
    error = capsys.readouterr().err
    line = next(line for line in error.replace('\r', '\n').splitlines() if line.startswith('error: '))
    assert message in line


def test_cuda_that_is_not_here_is_refused(script, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert script.main(['--device', 'cuda']) == 2
    assert 'no CUDA device is here' in capsys.readouterr().err
