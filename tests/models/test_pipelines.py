"""The toolbox's own pipelines through our entry points, on the CPU: train, validate, save, resume, test."""
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.test import main as run_test
from jddb_plugin.train import main as run_train

from ..conftest import ROOT
from .pipeline_run import DEMO, forget_logger, read_log, small_options, validation_options

pytestmark = pytest.mark.usefixtures('workplace')


def test_the_demo_trains_saves_resumes_and_tests(texture_lmdb):
    own = {'datasets.train.tile': 16, 'datasets.train.synthesis': 'device'}
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb, **own, **validation_options(texture_lmdb))]) == 0
    models = Path('experiments/demo_two_stage/models')
    assert {p.name for p in models.iterdir()} == {'net_g_1.pth', 'net_g_2.pth', 'net_g_latest.pth'}
    log = read_log()
    for term in ('l_pix', 'l_interpolation', 'l_one_hot', 'l_bm', 'l_total', 'temperature', 'weight_bm'):
        assert re.search(rf'{term}: \d', log)
    assert re.search(r'psnr a: all \d+\.\d+, center \d+\.\d+', log)
    assert len(list(Path('experiments/demo_two_stage/visualization/clips/a').glob('*_2.png'))) == 7
    # What the host read lies in the experiment's folder, resolved.
    kept = yaml.safe_load(Path('experiments/demo_two_stage/demo_two_stage.yml').read_text())
    assert kept['train']['total_iter'] == 2 and kept['network_g']['num_feat'] == 8

    assert run_train(['-opt', DEMO, '--auto_resume', *small_options(texture_lmdb, **{'train.total_iter': 3})]) == 0
    assert (models / 'net_g_3.pth').is_file()
    assert 'Resuming training from epoch: 0, iter: 2.' in read_log()

    changes = {'network_g.num_feat': 8, 'network_g.deformable_groups': 2, 'val.tile': 16,
               'datasets.test.dataroot_gt': texture_lmdb, 'path.pretrain_network_g': models / 'net_g_latest.pth'}
    overrides = [f'{key}={value}' for key, value in changes.items()]
    assert run_test(['-opt', str(ROOT / 'options' / 'test' / 'demo_two_stage.yml'), '--set', *overrides]) == 0
    table = json.loads(Path('results/demo_two_stage/metrics_unseen.json').read_text())
    assert set(table) == {'psnr', 'ssim'} and set(table['psnr']) == {'average', 'a', 'b'}
    average = (table['psnr']['a']['all'] + table['psnr']['b']['all']) / 2
    assert table['psnr']['average']['all'] == pytest.approx(average)
    assert len(list(Path('results/demo_two_stage/visualization/unseen/b').glob('*_demo_two_stage.png'))) == 7


def test_a_run_resumed_with_longer_epochs_goes_on(texture_lmdb):
    """Batch 3 makes two iterations an epoch, batch 1 six: the epoch of the state must not be taken literally."""
    small = {'datasets.train.batch_size_per_gpu': 3, 'train.total_iter': 8, 'logger.save_checkpoint_freq': 8}
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb, **small)]) == 0
    small.update({'datasets.train.batch_size_per_gpu': 1, 'train.total_iter': 9, 'logger.save_checkpoint_freq': 9})
    assert run_train(['-opt', DEMO, '--auto_resume', *small_options(texture_lmdb, **small)]) == 0
    assert Path('experiments/demo_two_stage/models/net_g_9.pth').is_file()


def test_synthesis_on_the_device_trains_to_the_same_weights(texture_lmdb):
    weights = []
    for where in ('worker', 'device'):
        changes = {'datasets.train.synthesis': where, 'datasets.train.tile': 16, 'datasets.train.reach': 48}
        assert run_train(['-opt', DEMO, *small_options(texture_lmdb, **changes)]) == 0
        weights.append(torch.load('experiments/demo_two_stage/models/net_g_2.pth', weights_only=True)['params'])
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=0, atol=5e-3)  # Adam's first steps magnify last digits


def test_real_bursts_without_truth_are_restored_and_not_scored(texture_lmdb):
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb)]) == 0
    rng = np.random.default_rng(0)
    with BurstLmdbWriter('raw.lmdb') as writer:
        for index in range(5):
            writer.put_image('scene', index, rng.integers(64, 1000, (50, 62), np.uint16))
        writer.put_metadata('scene', CameraMetadata(
            cfa='gbrg', bits=10, black_level=(64.0,) * 4, white_level=(1000.0,) * 4, white_balance=(2.0, 1.0, 1.5),
            color_matrix=((1.0234, -0.2969, -0.2266), (-0.5625, 1.6328, -0.0469), (-0.0703, 0.2188, 0.6406))))
    forget_logger()
    dataset = {'name': 'real', 'type': 'RawBurstTestDataset', 'dataroot_lq': 'raw.lmdb', 'references': 'middle'}
    common = ['-opt', str(ROOT / 'options' / 'test' / 'demo_two_stage.yml'), '--set', 'network_g.num_feat=8',
              'val.tile=16',
              'network_g.deformable_groups=2', 'path.pretrain_network_g=experiments/demo_two_stage/models/net_g_latest.pth']
    assert run_test([*common, 'datasets.test=' + json.dumps({**dataset, 'noise': 'estimate', '_delete_': True})]) == 0
    assert [p.name for p in Path('results/demo_two_stage/visualization/real/scene').iterdir()] == ['00000002_demo_two_stage.png']
    assert cv2.imread('results/demo_two_stage/visualization/real/scene/00000002_demo_two_stage.png').shape == (48, 62, 3)
    assert not Path('results/demo_two_stage/metrics_real.json').exists()
    assert 'no ground truth, so no metrics' in read_log('results/demo_two_stage')


def test_two_learning_rates_and_their_schedule(texture_lmdb):
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb, **{'train.warmup_iter': -1})]) == 0
    assert 'lr:(1.000e-03,1.000e-04,)' in read_log()


def test_training_never_stops_early(texture_lmdb):
    """Three samples, batch 2, five iterations: the toolbox alone would drop the last batch of every epoch, and stop."""
    small = small_options(texture_lmdb, **{'datasets.train.clips': '[a]', 'train.total_iter': 5})
    assert run_train(['-opt', DEMO, *small]) == 0
    assert Path('experiments/demo_two_stage/models/net_g_5.pth').is_file()


def test_too_few_samples_for_a_batch_is_an_error(texture_lmdb, capsys):
    small = small_options(texture_lmdb, **{'datasets.train.batch_size_per_gpu': 7})
    assert run_train(['-opt', DEMO, *small]) == 2
    assert 'do not fill one batch of 7' in capsys.readouterr().err.strip().splitlines()[-1]
    assert not Path('experiments/demo_two_stage/models/net_g_latest.pth').exists()


@pytest.mark.parametrize(('changes', 'message'), [
    ({'datasets.train.dataroot_gt': 'nowhere.lmdb'}, 'nowhere.lmdb: no such folder'),
    ({'train.tile': 18}, 'a multiple of the matching scale 4, got 18'),
    ({'train.tile': 32}, 'datasets.train: what is cut from clip a, 48 x 48, is smaller than a tile of 64 RGB px'),
    ({'train.tile': 64, 'datasets.train.gt_size': 96}, 'from clip a, 96 x 96, is smaller than a tile of 128'),
    ({'network_g.coarse': 'none'}, "one_hot_opt and bm_opt train the matching of 'coarse: dpbm'"),
    ({'path.pretrain_network_g': 'other.pth'}, 'other.pth: no such checkpoint'),
    ({'datasets.train.num_frame': 9}, 'clip a has 7 frames'),
    ({'train.optim_g.type': 'Adma'}, "unknown optimizer 'Adma'; did you mean 'Adam"),
    ({'train.optim_g.betaz': '[0.9, 0.99]'}, "train.optim_g: unknown key 'betaz'; did you mean 'betas'"),
    ({'train.scheduler.eta_mn': 0}, "train.scheduler: unknown key 'eta_mn'; did you mean 'eta_min'"),
    ({'train.scheduler.type': 'Cosine'}, "unknown scheduler 'Cosine'"),
    ({'network_g.num_feat': '"8"'}, "network_g.num_feat: expected an integer, got '8'"),
    ({'network_g.dpbm.radius': 6.5}, 'network_g.dpbm.radius: expected an integer, got 6.5'),
    ({'train.bm_opt.loss_weight': 'heavy'}, "train.bm_opt.loss_weight: expected a number, got 'heavy'"),
    ({'datasets.train.tile': 12}, 'datasets.train.tile: is 12, but train.tile is 16'),
    ({'datasets.train.tile': 16, 'datasets.train.reach': 8}, 'but the search spans 48 packed px'),
    ({'datasets.train.synthesis': 'gpu'}, "synthesis: 'gpu' is not a valid choice"),
    ({'datasets.train.synthesis': 'device', 'model_type': 'SRModel'}, 'makes no raw bursts'),
    ({'model_type': 'SRModel', 'train.optim_g.lr_coarse': 1}, "unknown key 'lr_coarse'"),
    ({'train.hooks.0.schedule': 'expo'}, "unknown name 'expo'"),
])
def test_bad_input_ends_in_one_line(texture_lmdb, capsys, changes, message):
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb, **changes)]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith('error: ') and message in line
    assert not list(Path('.').rglob('*.pth'))
    if 'one_hot' not in message:  # known only when the model is built
        assert not Path('experiments').exists()


def test_a_validation_frame_smaller_than_a_tile_is_known_before_training(texture_lmdb, capsys):
    val = json.loads(validation_options(texture_lmdb)['datasets.val'])
    changes = {'datasets.val': json.dumps({**val, 'crop': [0, 0, 24, 40]}), 'val.val_freq': 2, 'val.tile': 16}
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb, **changes)]) == 2
    assert 'datasets.val: what is cut from clip a, 40 x 24, is smaller than a tile of 32' in capsys.readouterr().err
    assert not Path('experiments').exists()


def test_weights_of_the_package_are_found_by_their_name(texture_lmdb, capsys):
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb, **{'path.pretrain_network_g': 'tiny'})]) == 2
    assert 'weights/tiny.pth: this is a GatedUNet checkpoint, and network_g is TwoStageJDDB' in capsys.readouterr().err


def test_a_checkpoint_of_another_configuration_is_refused(texture_lmdb, capsys):
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb)]) == 0
    Path('experiments/demo_two_stage/models/net_g_2.pth').rename('pretrained.pth')
    changes = {'network_g.num_feat': 16, 'path.pretrain_network_g': 'pretrained.pth'}
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb, **changes)]) == 2
    assert 'pretrained.pth: belongs to another configuration of TwoStageJDDB' in capsys.readouterr().err
    content = Path('pretrained.pth').read_bytes()
    Path('pretrained.pth').write_bytes(content[:len(content) // 2])
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb, **{'path.pretrain_network_g': 'pretrained.pth'})]) == 2
    assert 'pretrained.pth: truncated' in capsys.readouterr().err


def test_auto_resume_skips_what_is_damaged(texture_lmdb, caplog):
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb)]) == 0
    torn = Path('experiments/demo_two_stage/training_states/2.state')
    torn.write_bytes(torn.read_bytes()[:100])
    assert run_train(['-opt', DEMO, '--auto_resume', *small_options(texture_lmdb)]) == 0
    assert 'auto_resume skips iteration 2' in caplog.text
    assert 'Resuming training from epoch: 0, iter: 1.' in read_log()


def test_auto_resume_does_not_start_anew_when_nothing_is_readable(texture_lmdb, capsys):
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb)]) == 0
    for state in Path('experiments/demo_two_stage/training_states').iterdir():
        state.write_bytes(b'torn')
    assert run_train(['-opt', DEMO, '--auto_resume', *small_options(texture_lmdb)]) == 2
    assert 'none of its training states can be read' in capsys.readouterr().err
    assert Path('experiments/demo_two_stage/models/net_g_2.pth').is_file()


def test_auto_resume_says_that_there_is_no_state(texture_lmdb, caplog):
    assert run_train(['-opt', DEMO, '--auto_resume', *small_options(texture_lmdb, **{'logger.save_checkpoint_freq': 1000})]) == 0
    assert 'no training state' not in caplog.text  # the first start
    assert run_train(['-opt', DEMO, '--auto_resume', *small_options(texture_lmdb)]) == 0
    assert caplog.text.count('no training state to resume from; the training starts at iteration 0') == 1
    archive, = Path('experiments').glob('demo_two_stage_archived_*')
    assert (archive / 'models' / 'net_g_latest.pth').is_file()


def test_an_inherited_validation_set_can_be_left_out(texture_lmdb):
    validation = small_options(texture_lmdb, **validation_options(texture_lmdb), **{'train.total_iter': 2})
    assert run_train(['-opt', DEMO, *validation, 'datasets.val=~']) == 0
    assert 'Validation' not in read_log()


def test_debug_mode_works_without_a_validation_set(texture_lmdb):
    assert run_train(['-opt', DEMO, '--debug', *small_options(texture_lmdb)]) == 0
    assert Path('experiments/debug_demo_two_stage').is_dir()


@pytest.mark.parametrize('workers', [0, 1])
def test_a_bad_frame_met_while_training_is_one_line(texture_folder, capfd, workers):
    for clip in ('a', 'b'):
        for path in (texture_folder / clip).iterdir():
            content = path.read_bytes()
            path.write_bytes(content[:len(content) // 2])  # the header stays readable
    changes = {'datasets.train.io_backend.type': 'disk', 'datasets.train.num_worker_per_gpu': workers}
    assert run_train(['-opt', DEMO, *small_options(texture_folder, **changes)]) == 2
    # Libpng adds lines of its own, from the worker even after ours.
    line, = (line for line in capfd.readouterr().err.splitlines() if line.startswith('error: '))
    assert re.fullmatch(r'error: \S*000000\d\d.png: not a readable image; remove or replace it.', line)


def test_weights_that_do_not_belong_are_told_even_when_loading_loosely(texture_lmdb, capsys):
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb)]) == 0
    torch.save({'params': {'unknown': torch.zeros(1)}}, 'other.pth')
    changes = {'path.pretrain_network_g': 'other.pth', 'path.strict_load_g': 'false'}
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb, **changes)]) == 2
    assert 'other.pth: holds nothing of TwoStageJDDB' in capsys.readouterr().err


def test_a_test_without_weights_is_refused(texture_lmdb, capsys):
    overrides = [f'datasets.test.dataroot_gt={texture_lmdb}', 'path.pretrain_network_g=~']
    assert run_test(['-opt', str(ROOT / 'options' / 'test' / 'demo_two_stage.yml'), '--set', *overrides]) == 2
    assert "path: 'pretrain_network_g' is missing" in capsys.readouterr().err


def test_force_yml_is_parsed_safely(texture_lmdb, capsys):
    assert run_train(['-opt', DEMO, *small_options(texture_lmdb),
                      '--force_yml', 'train:optim_g:lr=1e-5', 'train:warmup_iter=-1']) == 0
    assert 'lr:(1.000e-05,' in read_log()
    assert run_train(['-opt', DEMO, '--force_yml', 'train:tottal_iter=5']) == 2
    assert "unknown key 'tottal_iter'" in capsys.readouterr().err


def test_folders_of_frames_train_too(texture_folder):
    changes = {'datasets.train.io_backend.type': 'disk'}
    assert run_train(['-opt', DEMO, *small_options(texture_folder, **changes)]) == 0
    cv2.imwrite(str(texture_folder / 'a' / '00000003.png'), cv2.imread(str(texture_folder / 'a' / '00000003.png'))[:40])
    assert run_train(['-opt', DEMO, *small_options(texture_folder, **changes)]) == 2
