"""A network of ten lines trains with the losses and metrics of the paper, is validated, restores, is reported and benchmarked."""
import importlib
import json
import sys
from pathlib import Path

import cv2
import pytest
import torch
import yaml
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.checks import DataError
from jddb_plugin.inference.engine import align_frames, restore_frame
from jddb_plugin.inference.tiling import TilingOptions
from jddb_plugin.restoration import Restorer, Settings
from jddb_plugin.restore import main as run_restore
from jddb_plugin.test import main as run_test
from jddb_plugin.train import main as run_train
from jddb_plugin.weights import load_weights

from ..conftest import ROOT
from ..restoration.samples import make_burst, write_tiffs
from ..small_run import validation
from .pipeline_run import forget_logger


class Plain(BurstNetwork):
    """The mean of the aligned frames and two convolutions: all that a network has to bring."""

    context = 2

    def __init__(self, num_feat: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(8, num_feat, 3, padding=1), nn.ReLU(), nn.Conv2d(num_feat, 12, 3, padding=1))

    def restore(self, tiles, ref_idx):
        mean = tiles.mean(dim=1)
        return nn.functional.pixel_shuffle(self.layers(mean) + mean[:, [0] * 4 + [1] * 4 + [3] * 4], 2)


@pytest.fixture(autouse=True)
def _workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'Plain', Plain)
    forget_logger()
    yield
    forget_logger()


@pytest.fixture
def options(texture_lmdb):
    """An option file that trains it on unaligned bursts."""
    data, val = validation(texture_lmdb, save_img=True)
    small = yaml.safe_load((ROOT / 'options' / 'train' / 'jddb_small.yml').read_text())
    small.update(name='plain', network_g={'type': 'Plain'}, val=val)
    small['datasets'] = {'val': data, 'train': {
        'name': 'clips', 'type': 'UnprocessedBurstDataset', 'dataroot_gt': str(texture_lmdb), 'io_backend': {'type': 'lmdb'},
        'num_frame': 5, 'gt_size': 64, 'num_worker_per_gpu': 0, 'batch_size': 2, 'prefetch_mode': None}}
    small['train'].update(total_iter=2, align='flow', precision='float32')
    small['train']['pixel_opt'] = {'type': 'ReconstructionLoss'}
    small['logger'] = {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': False}
    Path('plain.yml').write_text(yaml.safe_dump(small))
    return small


def test_a_network_of_ten_lines_does_it_all(options, tmp_path, capsys):
    assert run_train(['-opt', 'plain.yml']) == 0
    log = max(Path('experiments/plain').glob('train_*.log')).read_text()
    assert 'l_pix: ' in log and 'psnr average: all ' in log and 'ssim average: all ' in log

    # The metric is that of the developed picture, of what the restore command gives for the same burst.
    weights = 'experiments/plain/models/net_g_2.pth'
    test = {key: options[key] for key in ('name', 'model_type', 'num_gpu', 'manual_seed', 'network_g')}
    test.update(path={'pretrain_network_g': weights, 'param_key_g': 'params_ema'}, val={**options['val'], 'save_img': False},
                datasets={'test': options['datasets']['val']})
    del test['val']['val_freq']
    Path('test.yml').write_text(yaml.safe_dump(test))
    assert run_test(['-opt', 'test.yml']) == 0
    scores = json.loads(Path('results/plain/metrics_clips.json').read_text())
    assert 5 < scores['psnr']['average']['all'] < 60

    write_tiffs(tmp_path / 'burst')
    arguments = [str(tmp_path / 'burst'), '-o', 'out', '--weights', weights, '--device', 'cpu', '--report', 'report.html']
    assert run_restore(arguments) == 0
    assert cv2.imread('out/burst.png').shape == (64, 80, 3)
    report = Path('report.html').read_text()
    assert 'Plain' in report and 'flow' in report


def test_it_is_scored_by_what_it_restores(options):
    """PSNR by hand from the engine's picture."""
    from basicsr.data import build_dataset
    from basicsr.metrics import calculate_psnr

    assert run_train(['-opt', 'plain.yml']) == 0
    net = load_weights('experiments/plain/models/net_g_2.pth')
    assert type(net) is Plain
    dataset = build_dataset({**options['datasets']['val'], 'phase': 'val'})
    sample = dataset[3]
    images = [sample['camera'].develop(image)[0].permute(1, 2, 0).double().numpy() * 255
              for image in (restore_frame(net, sample['lq'][None]), sample['gt'][None])]
    test = {key: options[key] for key in ('name', 'model_type', 'num_gpu', 'manual_seed', 'network_g')}
    test.update(path={'pretrain_network_g': 'experiments/plain/models/net_g_2.pth', 'param_key_g': 'params_ema'},
                val={'metrics': options['val']['metrics'], 'save_img': False}, datasets={'test': options['datasets']['val']})
    Path('test.yml').write_text(yaml.safe_dump(test))
    assert run_test(['-opt', 'test.yml']) == 0
    scores = json.loads(Path('results/plain/metrics_clips.json').read_text())
    assert scores['psnr']['a']['frames'][3] == pytest.approx(calculate_psnr(*images, crop_border=0), abs=1e-3)


def test_its_training_is_benchmarked(options, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / 'scripts' / 'benchmark'))
    for module in ('common', 'data', 'training'):
        sys.modules.pop(module, None)
    training = importlib.import_module('training')
    arguments = ['--opt', 'plain.yml', '--device', 'cpu', '--repeats', '1', '--warmup', '0', '--switches', 'ema']
    assert training.main([*arguments, '--json', 'x.json']) == 0
    assert json.loads(Path('x.json').read_text())['rows'][0]['iterations_per_second'] > 0


def test_a_network_for_a_number_of_frames_gets_as_many(tmp_path):
    class Three(Plain):
        num_frame = 3

    torch.save({'params': Plain().state_dict()}, 'net.pth')
    restorer = Restorer('net.pth', Settings(device='cpu'))
    restorer.net.__class__ = Three
    burst = make_burst(5)
    assert len(restorer.restore(burst, progress=False).frames.names) == 3
    with pytest.raises(DataError, match='Three needs 3 frames, but the burst has 2'):
        restorer.restore(make_burst(2), progress=False)


def test_tiles_do_not_show_where_the_context_is_covered():
    """Overlaps of the context make strips and squares the same as the whole frame, but for the ramps at their ends."""
    net = Plain().eval()
    net.context = None
    lq = torch.rand(1, 3, 8, 70, 90)
    whole = restore_frame(net, lq, align='none', memory=1 << 30)
    for tiling in (TilingOptions(16, 8), TilingOptions(32, 4)):
        tiled = restore_frame(net, lq, align='none', tiling=tiling)
        assert (tiled - whole).abs().max() < 0.2 * whole.std() and (tiled - whole).abs().mean() < 0.01 * whole.std()


def test_training_frames_are_aligned_as_validation_aligns_them():
    scene = nn.functional.interpolate(torch.rand(1, 4, 40, 40), scale_factor=4, mode='bicubic')[0].clamp(0, 1)
    frames = torch.stack([scene[:, 40 + 3 * t:104 + 3 * t, 40:112] for t in (-1, 0, 1)])
    lq = torch.cat((frames, torch.full_like(frames, 0.02)), dim=1)[None]
    inner = (..., slice(8, -8), slice(8, -8))
    before = (lq[:, 0] - lq[:, 1])[inner].abs().mean()
    for align in ('flow', None):
        aligned = align_frames(Plain(), lq, align=align)
        assert aligned.shape == lq.shape and torch.equal(aligned[:, 1], lq[:, 1])
        assert (aligned[:, 0] - lq[:, 1])[inner].abs().mean() < 0.3 * before
    with pytest.raises(Exception, match="align: 'tiles' moves tiles"):
        align_frames(Plain(), lq, align='tiles')
