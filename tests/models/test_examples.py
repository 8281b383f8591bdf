"""The example option files for the toolbox's stock models, run for two iterations on small data."""
import re
from pathlib import Path

import cv2
import pytest
import torch
import yaml

from jddb_plugin.config import load_options
from jddb_plugin.train import main as run_train

from ..conftest import ROOT
from .pipeline_run import drawn_figures, read_log

pytestmark = pytest.mark.usefixtures('workplace')

TRAIN = ROOT / 'options' / 'train'
EDVR_SMALL = {'num_feat': 8, 'deformable_groups': 2, 'num_extract_block': 1, 'num_reconstruct_block': 1}


def _write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


@pytest.fixture
def reds(textures):
    """A stand-in for REDS below the current folder: one clip to train on, one to validate on."""
    for clip in ('001', '000'):
        for k in range(100 if clip == '001' else 5):
            frame = textures['a'][k % 7]
            for root, image in (('sharp', frame), ('small', cv2.resize(frame, None, fx=0.25, fy=0.25))):
                _write(Path('REDS' if clip == '001' else 'REDS4') / root / clip / f'{k:08d}.png', image)
    Path('REDS/meta.txt').write_text('001 100 (96,112,3)\n')
    return [
        'datasets.train.dataroot_gt=REDS/sharp', 'datasets.train.dataroot_lq=REDS/small',
        'datasets.train.meta_info_file=REDS/meta.txt', 'datasets.train.gt_size=64', 'datasets.train.num_worker_per_gpu=0',
        'datasets.train.batch_size_per_gpu=2', 'datasets.train.dataset_enlarge_ratio=1', 'datasets.val.dataroot_gt=REDS4/sharp',
        'datasets.val.dataroot_lq=REDS4/small', 'train.total_iter=2', 'val.val_freq=2', 'logger.print_freq=1',
    ]


def _network(name):
    """Overrides that make the example's network small."""
    kind = load_options(str(TRAIN / f'{name}.yml'))['network_g']['type']
    prefix = 'network_g' if kind == 'EDVR' else 'network_g.network'
    small = [f'{prefix}.{key}={value}' for key, value in EDVR_SMALL.items()]
    if kind == 'CoarseAligned':
        small += ['network_g.tile=8', 'network_g.overlap=4', 'network_g.align.radius=1']
    return small


@pytest.mark.parametrize('name', ['edvr_reds', 'edvr_coarse_aligned_reds', 'edvr_hooked_reds'])
def test_edvr_examples_train_and_validate(reds, name):
    assert run_train(['-opt', str(TRAIN / f'{name}.yml'), '--set', *reds, *_network(name)]) == 0
    log = read_log(f'experiments/{name}')
    assert re.search(r'l_pix: \d', log) and re.search(r'# psnr: \d+\.\d+', log)
    assert Path(f'experiments/{name}/models/net_g_latest.pth').is_file()
    if name == 'edvr_hooked_reds':
        assert 'temperature: 1.0000e-02' in log
        assert drawn_figures(f'tb_logger/{name}') == ['matching/REDS4/000']


def test_the_aligned_example_changes_two_keys_and_no_other():
    stock, aligned = (load_options(str(TRAIN / f'{name}.yml')) for name in ('edvr_reds', 'edvr_coarse_aligned_reds'))
    own = yaml.safe_load((TRAIN / 'edvr_coarse_aligned_reds.yml').read_text())
    assert set(own) == {'_base_', 'name', 'network_g'}
    inner = aligned['network_g']['network']
    assert {key: stock['network_g'][key] for key in inner} == inner
    assert {k: v for k, v in stock.items() if k not in own} == {k: v for k, v in aligned.items() if k not in own}


@pytest.mark.usefixtures('random_vgg')
def test_the_sr_example_fades_its_perceptual_loss_in(textures):
    for k, frame in enumerate(textures['a'][:4]):
        _write(Path('gt') / f'{k}.png', frame[:64, :64])
        _write(Path('lq') / f'{k}.png', cv2.resize(frame[:64, :64], None, fx=0.25, fy=0.25))
    changes = ['datasets.train.dataroot_gt=gt', 'datasets.train.dataroot_lq=lq', 'datasets.train.gt_size=32',
               'datasets.train.num_worker_per_gpu=0', 'datasets.train.batch_size_per_gpu=2', 'network_g.num_feat=8',
               'network_g.num_block=1', 'train.total_iter=2', 'logger.print_freq=1', 'train.hooks.0.begin=1',
               'train.hooks.0.end=2']
    assert run_train(['-opt', str(TRAIN / 'srresnet_hooked_div2k.yml'), '--set', *changes]) == 0
    log = read_log('experiments/srresnet_hooked_div2k')
    assert re.findall(r'weight_perceptual: (\S+)', log) == ['0.0000e+00', '1.0000e-01']
    assert len(re.findall(r'l_percep: \d', log)) == 1  # at weight 0 it is left out
    assert torch.load('experiments/srresnet_hooked_div2k/models/net_g_latest.pth', weights_only=True)['params_ema']
