"""Checkpoints on disk: whole or not there, the newest that can be read, and those that are kept."""
import os
from pathlib import Path

import pytest
import torch

from jddb_plugin.checks import CheckpointError
from jddb_plugin.runtime import checkpoints, history


def _pair(root, iteration, **state):
    content = {'epoch': 0, 'iter': iteration, 'optimizers': [], 'schedulers': [], **state}
    for folder, name, value in (('states', f'{iteration}.state', content),
                                ('models', f'net_g_{iteration}.pth', {'params': {'w': torch.ones(1)}})):
        (root / folder).mkdir(exist_ok=True)
        checkpoints.save_atomically(value, str(root / folder / name))


def _newest(root, labels=('g',)):
    return checkpoints.newest_readable(str(root / 'states'), str(root / 'models'), labels)


def test_the_newest_readable_pair_is_found(tmp_path):
    assert _newest(tmp_path) == (None, [])
    for iteration in (5, 10, 20, 100):
        _pair(tmp_path, iteration)
    assert _newest(tmp_path) == (str(tmp_path / 'states' / '100.state'), [])
    (tmp_path / 'states' / '100.state').write_bytes(b'')
    os.unlink(tmp_path / 'models' / 'net_g_20.pth')
    torch.save({'iter': 10}, tmp_path / 'states' / '10.state')
    path, skipped = _newest(tmp_path)
    assert path.endswith('5.state') and [line.split(':')[0] for line in skipped] == [
        f'auto_resume skips iteration {n}' for n in (100, 20, 10)]
    assert 'truncated' in skipped[0] and 'no such checkpoint' in skipped[1] and "'epoch' is missing" in skipped[2]
    with pytest.raises(CheckpointError, match='none of its training states can be read.*iteration 5.*net_d_5'):
        _newest(tmp_path, ('g', 'd'))


def test_code_in_a_state_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'executed'),)

    _pair(tmp_path, 1)
    torch.save({'epoch': 0, 'iter': 2, 'optimizers': [Payload()], 'schedulers': []}, tmp_path / 'states' / '2.state')
    path, skipped = _newest(tmp_path)
    assert path.endswith('1.state') and 'loaded safely' in skipped[0]
    assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize(('last', 'every', 'left'), [
    (1, 0, [60]), (2, 0, [50, 60]), (1, 20, [20, 40, 60]), (2, 30, [30, 50, 60]), (9, 0, [10, 20, 30, 40, 50, 60])])
def test_what_is_kept(tmp_path, last, every, left):
    for iteration in range(10, 61, 10):
        _pair(tmp_path, iteration)
    for name in ('net_g_latest.pth', 'net_g_best_REDS4.pth'):
        (tmp_path / 'models' / name).touch()
    checkpoints.remove_outdated(str(tmp_path / 'states'), str(tmp_path / 'models'), ['g'], keep_last=last, keep_every=every)
    assert checkpoints.iterations(str(tmp_path / 'states')) == left[::-1]
    assert {p.name for p in (tmp_path / 'models').iterdir()} == {'net_g_latest.pth', 'net_g_best_REDS4.pth',
                                                                 *(f'net_g_{n}.pth' for n in left)}


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path):
    """/dev/full refuses every byte, as a full disk does."""
    if not Path('/dev/full').exists():
        pytest.skip('there is no /dev/full')
    path = tmp_path / 'x.pth'
    checkpoints.save_atomically({'a': torch.ones(2)}, str(path))
    os.symlink('/dev/full', f'{path}.partial')
    with pytest.raises(CheckpointError, match=r'x.pth: the checkpoint could not be written \(.*No space left'):
        checkpoints.save_atomically({'a': torch.zeros(2)}, str(path))
    assert checkpoints.load_checkpoint(str(path))['a'].tolist() == [1, 1]


def test_an_interrupted_save_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.os, 'replace', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save_atomically({'a': torch.ones(2)}, str(tmp_path / 'x.pth'))
    assert not list(tmp_path.iterdir())


def test_history_is_taken_over_up_to_an_iteration(tmp_path):
    (tmp_path / 'new').mkdir()
    assert history.take_over(str(tmp_path), str(tmp_path / 'new'), 9) == []
    for iteration, value in ((1, 20.0), (2, 21.5), (3, 22.0)):
        history.append(str(tmp_path), iteration, 'REDS4', 'psnr', value)
    with open(tmp_path / history.FILE, 'a') as file:
        file.write('[1, 2]\n{"iter": 2}\n{"iter": 3, "set": "REDS4", "metr')
    entries = history.take_over(str(tmp_path), str(tmp_path / 'new'), 2)
    assert [(e['iter'], e['value']) for e in entries] == [(1, 20.0), (2, 21.5)]
    history.append(str(tmp_path / 'new'), 3, 'REDS4', 'psnr', 30.0)
    assert (tmp_path / 'new' / history.FILE).read_text().count('\n') == 3


def test_a_validation_that_was_interrupted_has_no_scores(tmp_path):
    """Killed between two metrics of the iteration that the run goes on from."""
    for iteration, name, metric in ((2, 'a', 'psnr'), (4, 'a', 'psnr'), (4, 'a', 'ssim'), (4, 'b', 'psnr')):
        history.append(str(tmp_path), iteration, name, metric, 1.0)
    entries = history.take_over(str(tmp_path), str(tmp_path), 4, ('psnr', 'ssim'))
    assert [(e['iter'], e['set'], e['metric']) for e in entries] == [(2, 'a', 'psnr'), (4, 'a', 'psnr'), (4, 'a', 'ssim')]
    assert len(history.take_over(str(tmp_path), str(tmp_path), 4)) == 3


def test_a_run_that_was_taken_back_leaves_its_later_states(tmp_path):
    """Else they would be kept as the newest in place of what the run saves now, and be resumed from."""
    for iteration in (10, 20, 30):
        _pair(tmp_path, iteration)
    states, models = str(tmp_path / 'states'), str(tmp_path / 'models')
    assert checkpoints.set_aside_later(states, 10) == [30, 20]
    _pair(tmp_path, 12)
    checkpoints.remove_outdated(states, models, ['g'], keep_last=1, keep_every=0)
    assert _newest(tmp_path)[0].endswith('/12.state')
    assert sorted(p.name for p in (tmp_path / 'states').iterdir()) == ['12.state', '20.state.superseded', '30.state.superseded']
