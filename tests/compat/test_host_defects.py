"""Known defects of the toolbox (basicsr 1.4.2), each answered for its stock video model run by our entry points.

What is tested elsewhere: option files that run code (tests/test_config.py), LMDB writers (tests/data/test_burst_lmdb.py),
several processes (tests/runtime/test_distributed.py), our own model (tests/models/test_pipelines.py).
"""
import errno
import json
import os
import pickle
import re
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
import torch
import yaml
from basicsr.utils import FileClient, imfrombytes

from jddb_plugin.checks import DataError
from jddb_plugin.runtime import checkpoints
from jddb_plugin.train import main

from ..small_run import equal, weights
from .host_run import WorkerRandomClips, read_draws, read_log

pytestmark = pytest.mark.usefixtures('workplace')


def test_1_random_numbers_do_not_repeat_and_survive_a_resume(train):
    """Without the patch a worker draws the same in every epoch, and again after a resume."""
    assert train(**{'train.total_iter': 6}) == 0  # two epochs of three iterations
    whole = weights('experiments/edvr', 'net_g_6.pth'), weights('experiments/edvr', 'net_g_6.pth', 'params_ema')
    draws = read_draws()[:12]  # and a batch that was one too many
    assert len(draws) == 12 and len({line.split(' ', 1)[1] for line in draws}) == 12
    assert train(**{'train.total_iter': 4, 'datasets.train.num_worker_per_gpu': 1, 'name': 'again'}) == 0
    first = read_draws()
    # A resume in the middle of the second epoch, with another number of workers.
    assert train('--auto_resume', **{'train.total_iter': 6, 'datasets.train.num_worker_per_gpu': 2, 'name': 'again'}) == 0
    assert set(draws) <= set(first + read_draws())  # workers draw ahead of what is trained on
    assert equal(whole[0], weights('experiments/again', 'net_g_6.pth'))
    assert equal(whole[1], weights('experiments/again', 'net_g_6.pth', 'params_ema'))


def test_2_a_full_disk_stops_the_run_and_leaves_the_last_pair(train, monkeypatch, capsys):
    """Without the patch every checkpoint is truncated, the exit status is 0, and auto_resume dies of them."""
    sync, files = os.fsync, []

    def full(handle):
        files.append(handle)
        if len(files) > 4:  # the network and its folder, the state and its folder
            raise OSError(errno.ENOSPC, 'No space left on device')
        sync(handle)

    with monkeypatch.context() as context:
        context.setattr(checkpoints.os, 'fsync', full)
        assert train(**{'train.total_iter': 3}) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert 'net_g_2.pth: the checkpoint could not be written (No space left on device)' in message
    assert 'logger.keep_last' in message
    assert {p.name for p in Path('experiments/edvr').rglob('*') if p.suffix in ('.pth', '.state', '.partial')} == {
        'net_g_1.pth', '1.state'}
    assert train('--auto_resume', **{'train.total_iter': 3}) == 0
    assert 'iter: 1.' in read_log() and Path('experiments/edvr/models/net_g_3.pth').is_file()


def test_2_a_truncated_pair_is_passed_over_and_what_a_kill_left_is_removed(train, caplog):
    assert train() == 0
    network = Path('experiments/edvr/models/net_g_2.pth')
    network.write_bytes(network.read_bytes()[:1000])
    for name in ('models/net_g_9.pth', 'training_states/9.state', 'validation.jsonl'):  # that no later save replaces
        Path(f'experiments/edvr/{name}.partial').write_bytes(b'half')
    assert train('--auto_resume') == 0
    assert re.search(r'auto_resume skips iteration 2: \S*net_g_2.pth: truncated', caplog.text)
    assert not list(Path('experiments').rglob('*.partial'))


def test_2_a_quota_is_named(tmp_path, monkeypatch):
    def over(_):
        raise OSError(errno.EDQUOT, 'Disk quota exceeded')

    monkeypatch.setattr(checkpoints.os, 'fsync', over)
    with pytest.raises(checkpoints.CheckpointError, match='the quota is used up'):
        checkpoints.save_atomically({'a': torch.ones(1)}, str(tmp_path / 'x.pth'))


def test_3_the_resumed_state_is_the_experiments_own(train, tmp_path, monkeypatch):
    """The toolbox looks below the current directory whatever the experiment's folder is."""
    from basicsr.train import load_resume_state
    assert train() == 0
    opt = {'auto_resume': True, 'name': 'edvr', 'rank': 0, 'network_g': {},
           'path': {key: str(tmp_path / 'experiments/edvr' / (key if key != 'experiments_root' else ''))
                    for key in ('models', 'training_states', 'visualization', 'experiments_root')}}
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    assert load_resume_state(opt)['iter'] == 2


def test_4_the_command_line_is_not_executed(train, tmp_path):
    code = f"__import__('os').mkdir('{tmp_path}/executed')"
    Path('edvr.yml').write_text(yaml.safe_dump({'name': 'x'}))
    main(['-opt', 'edvr.yml', '--force_yml', f'name=[{code}]', f'name"]={code}#=1'])
    Path('edvr.yml').write_text(f'name: !!python/object/apply:os.mkdir ["{tmp_path}/executed"]\n')
    assert main(['-opt', 'edvr.yml']) == 2
    assert not (tmp_path / 'executed').exists()


def test_5_sets_with_the_same_folder_names_have_their_own_scores_and_best(train, textures, tmp_path):
    """The toolbox keeps one buffer by folder name for all sets: KeyError, or one set's scores in the other's mean."""
    for folder in ('gt', 'lq'):
        for index in (5, 6):  # the second set's clip "a" is shorter
            path = tmp_path / folder / 'a' / f'{index:08d}.png'
            (tmp_path / 'two' / folder / 'a').mkdir(parents=True, exist_ok=True)
            path.rename(tmp_path / 'two' / folder / 'a' / path.name)
        for index in range(5):
            name = f'a/{index:08d}.png'
            (tmp_path / 'two' / folder / name).write_bytes((tmp_path / folder / name).read_bytes()[:])
        for index in (5, 6):
            (tmp_path / folder / 'b' / f'{index:08d}.png').unlink()
    second = {'name': 'vid4', 'type': 'VideoTestDataset', 'dataroot_gt': str(tmp_path / 'two/gt'),
              'dataroot_lq': str(tmp_path / 'two/lq'), 'io_backend': '{type: disk}', 'num_frame': 5,
              'padding': 'reflection_circle', 'cache_data': 'false'}
    changes = {f'datasets.val_2.{key}': value for key, value in second.items()}
    changes.update({'val.val_freq': 1, 'val.save_best': 'true'})
    assert train(**changes) == 0
    log = read_log()
    one = re.findall(r'Validation REDS4\n\s*# psnr: ([\d.]+)\s+# a: ([\d.]+)\s+# b: ([\d.]+)', log)
    two = re.findall(r'Validation vid4\n\s*# psnr: ([\d.]+)\s+# a: ([\d.]+)\n\s*Best: ([\d.]+) @ (\d) iter', log)
    assert len(one) == len(two) == 2  # and not once more at the end
    for mean, a, b in one:
        assert float(mean) == pytest.approx((float(a) + float(b)) / 2, abs=1e-3)
    for mean, a, _, _ in two:
        assert mean == a and a not in {row[1] for row in one}
    assert {p.name for p in Path('experiments/edvr/models').glob('*best*')} == {'net_g_best_REDS4.pth', 'net_g_best_vid4.pth'}


def test_6_images_can_be_saved_while_training(train):
    """The toolbox raises NotImplementedError."""
    assert train(**{'val.val_freq': 2, 'val.save_img': 'true'}) == 0
    pictures = sorted(p.name for p in Path('experiments/edvr/visualization/REDS4/a').iterdir())
    assert pictures == [f'{index:08d}_2.png' for index in range(7)]


def test_7_a_missing_key_is_named_and_a_client_goes_to_a_worker(tmp_path):
    """The toolbox gives None, which fails later as a ValueError of numpy, and cannot pickle an open environment."""
    with lmdb.open(str(tmp_path / 'x.lmdb')) as env, env.begin(write=True) as txn:
        txn.put(b'here', b'value')
    client = FileClient('lmdb', db_paths=str(tmp_path / 'x.lmdb'), client_keys='lq')
    with pytest.raises(DataError, match="x.lmdb.*holds no key 'gone'"):
        client.get('gone', 'lq')
    pickled = pickle.dumps(client)
    client.client._client['lq'].close()  # one process may open it once; a worker is another
    assert bytes(pickle.loads(pickled).get('here', 'lq')) == b'value'
    with pytest.raises(DataError, match='a frame of 5 bytes is not a readable image'):
        imfrombytes(b'value')


def test_8_a_run_is_as_long_as_it_was_asked_to_be(train):
    """Three samples, batch 2: the toolbox stops at 6 of 10 iterations with exit status 0."""
    assert train(**{'datasets.train.size': 3, 'train.total_iter': 10, 'train.scheduler.periods': '[10]',
                    'logger.save_checkpoint_freq': 5}) == 0
    assert Path('experiments/edvr/models/net_g_10.pth').is_file()
    assert train(**{'datasets.train.size': 1, 'name': 'one'}) == 2


def test_9_the_last_validation_is_logged_where_it_was(train):
    """The toolbox says iteration total_iter + 1."""
    assert train(**{'val.val_freq': 2, 'train.total_iter': 3}) == 0
    assert re.findall(r'Best: \S+ @ +(\d+) iter', read_log())[-1] in ('2', '3')
    lines = Path('experiments/edvr/validation.jsonl').read_text().splitlines()
    assert [yaml.safe_load(line)['iter'] for line in lines] == [2, 3]


def test_9_the_best_is_known_after_a_resume(train):
    """The toolbox forgets it. The state of an iteration is saved before its validation, which counts all the same."""
    assert train(**{'val.val_freq': 1, 'train.total_iter': 3}) == 0
    history = Path('experiments/edvr/validation.jsonl')
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    assert [line['iter'] for line in lines] == [1, 2, 3]
    assert [f"{line['value']:.4f}" for line in lines] == re.findall(r'# psnr: (\S+)', read_log())
    lines[1]['value'] = 99.0  # which nothing to come will beat
    lines.append({**lines[2], 'iter': 7, 'value': 100.0})  # of a time that the resumed run has not come to
    history.write_text('\n'.join(map(json.dumps, lines)) + '\n{"iter": 4, "se')  # killed while writing
    assert train('--auto_resume', **{'val.val_freq': 1, 'train.total_iter': 4}) == 0
    assert re.findall(r'Best: (\S+) @ +(\d+) iter', read_log())[-1] == ('99.0000', '2')
    assert [json.loads(line)['iter'] for line in history.read_text().splitlines()] == [1, 2, 3, 4]
    # Under another name the history comes along.
    state = 'experiments/edvr/training_states/4.state'
    assert train(**{'val.val_freq': 1, 'train.total_iter': 5, 'name': 'other', 'path.resume_state': state}) == 0
    assert re.findall(r'Best: (\S+) @ +(\d+) iter', read_log())[-1] == ('99.0000', '2')
    assert Path('experiments/other/validation.jsonl').read_text().count('\n') == 5


def test_9_a_run_can_be_made_longer(train):
    """The toolbox takes the old periods from the state and ends in a TypeError."""
    assert train(**{'train.scheduler.periods': '[2]'}) == 0
    assert train('--auto_resume', **{'train.scheduler.periods': '[2, 4]', 'train.scheduler.restart_weights': '[1, 0.5]',
                                     'train.total_iter': 6}) == 0
    assert re.findall(r'lr:\(([^,]+),', read_log()) == [
        '1.000e-03', '5.000e-04', '0.000e+00', '4.268e-04', '2.500e-04', '7.322e-05']


def test_9_a_run_can_go_on_under_another_name(train):
    """The toolbox looks for the networks in the new experiment, and makes no folder for its log."""
    assert train(**{'train.total_iter': 2}) == 0
    whole = train(**{'train.total_iter': 3, 'name': 'whole'})
    assert whole == 0
    assert train(**{'train.total_iter': 3, 'name': 'other', 'path.resume_state': 'experiments/edvr/training_states/2.state'}) == 0
    assert equal(weights('experiments/other', 'net_g_3.pth'), weights('experiments/whole', 'net_g_3.pth'))


@pytest.mark.parametrize(('dtype', 'largest'), [(np.uint8, 255), (np.uint16, 65535)])
def test_10_bit_depth_is_respected(dtype, largest):
    """The toolbox divides by 255 in any case. Its data sets import the function by name."""
    from basicsr.data import reds_dataset
    content = cv2.imencode('.png', np.full((4, 4, 3), largest, dtype))[1].tobytes()
    assert reds_dataset.imfrombytes is imfrombytes
    image = imfrombytes(content, 'unchanged', float32=True)
    assert image.dtype == np.float32 and image.min() == image.max() == 1
    assert imfrombytes(content, 'unchanged').dtype == dtype


def test_an_error_in_the_prefetching_thread_ends_the_run(train, monkeypatch, capsys):
    """The toolbox's thread dies silently, and the training waits forever. Samples cannot be drawn beside the step."""
    def broken(self, index):
        raise DataError('x.png: not a readable image')

    monkeypatch.setattr(WorkerRandomClips, '__getitem__', broken)
    prefetch = {'datasets.train.prefetch_mode': 'cpu'}
    assert train(**prefetch) == 2
    assert 'num_worker_per_gpu: 1 or more' in capsys.readouterr().err
    assert train(**prefetch, **{'datasets.train.num_worker_per_gpu': 1}) == 2
    assert 'error: x.png: not a readable image' in capsys.readouterr().err


def test_two_sets_of_one_name_are_refused(train, capsys):
    assert train(**{'datasets.val_2': '{name: REDS4, type: VideoTestDataset}'}) == 2
    assert "duplicate name 'REDS4'" in capsys.readouterr().err
