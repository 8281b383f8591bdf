"""Runs that are killed, told to stop, and resumed end with the weights of the run that nobody disturbed."""
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.runtime import preemption
from jddb_plugin.train import main

from ..small_run import environment, equal, start, validation, weights, write_options


def _undisturbed(tmp_path, monkeypatch, options, **overrides):
    (tmp_path / 'whole').mkdir()
    monkeypatch.chdir(tmp_path / 'whole')
    sets = ['--set', *(f'{key}={value}' for key, value in overrides.items())] if overrides else []
    assert main(['-opt', options, *sets]) == 0
    return tmp_path / 'whole' / 'experiments' / 'small'


def _same(first, second, name):
    return all(equal(weights(first, name, key), weights(second, name, key)) for key in ('params', 'params_ema'))


@pytest.mark.parametrize('rounds', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_kills_at_any_place_change_nothing(textures, texture_lmdb, tmp_path, monkeypatch, rounds):
    """Each place of an iteration, of its checkpoint and of its validation, in drawn order, also with other workers."""
    with BurstLmdbWriter(str(tmp_path / 'short.lmdb')) as writer:
        for index, frame in enumerate(textures['a'][:3]):
            writer.put_image('a', index, frame[:64, :64])
    data, val = validation(tmp_path / 'short.lmdb', val_freq=2)
    train = {'dataroot_gt': str(texture_lmdb), 'gt_size': 48, 'dataset_enlarge_ratio': 1, 'num_worker_per_gpu': 0}
    options = write_options(tmp_path, texture_lmdb, train={'ema_decay': 0.9}, val=val,
                            datasets={'train': train, 'val': {**data, 'num_frame': 3}})
    (tmp_path / 'killed').mkdir()
    driver = Path(__file__).with_name('kill_driver.py')
    result = subprocess.run([sys.executable, str(driver), str(tmp_path / 'killed'), options, str(rounds), '0'],
                            capture_output=True, text=True, env=environment(TMPDIR=str(tmp_path)), timeout=900)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report['status'] == 0, (tmp_path / 'killed' / 'log.txt').read_text()[-2000:]
    assert [death['place'] for death in report['deaths'] if not death['killed']] == []
    places = [death['place'] for death in report['deaths']]
    assert len(places) >= 14 * rounds and all(places.count(place) == rounds for place in places)
    assert len({death['saved'] for death in report['deaths']}) > 4 * rounds  # and the run came on meanwhile
    total = report['total']
    whole = _undisturbed(tmp_path, monkeypatch, options, **{'train.total_iter': total, 'logger.save_checkpoint_freq': total})
    killed = tmp_path / 'killed' / 'experiments' / 'small'
    assert _same(whole, killed, f'net_g_{total}.pth') and _same(whole, killed, 'net_g_latest.pth')
    assert (whole / 'validation.jsonl').read_text() == (killed / 'validation.jsonl').read_text()
    assert not list(killed.rglob('*.partial')) and not list(tmp_path.glob('jddb_plugin_*'))


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_the_run_goes_on_later(texture_lmdb, tmp_path, monkeypatch, number):
    """Checkpoints are rare here, so that what is resumed is what the signal saved; workers get the signal too."""
    options = write_options(tmp_path, texture_lmdb, train={'total_iter': 200}, logger={'print_freq': 1, 'use_tb_logger': False,
                                                                                      'save_checkpoint_freq': 1000})
    (tmp_path / 'stopped').mkdir()
    run = start(['-opt', options, '--set', 'datasets.train.num_worker_per_gpu=1'], tmp_path / 'stopped', PYTHONUNBUFFERED='1')
    lines = []
    for line in run.stdout:
        lines.append(line)
        if 'iter:       3,' in line:
            children = Path(f'/proc/{run.pid}/task/{run.pid}/children').read_text().split()
            for pid in [run.pid, *map(int, children)]:  # as Slurm does
                os.kill(pid, number)
            break
    output = ''.join(lines) + run.communicate(timeout=60)[0]
    assert run.returncode == preemption.EXIT_STATUS, output[-2000:]
    done = [int(n) for n in re.findall(r'iter: +(\d+),', output)]
    saved = int(re.search(rf'{number.name}: saved iteration (\d+) and stopped; resume with --auto_resume', output).group(1))
    assert saved in (done[-1], done[-1] + 1) and 3 <= saved < 200  # the iteration it was in, and no other
    stopped = tmp_path / 'stopped' / 'experiments' / 'small'
    assert [p.stem for p in (stopped / 'training_states').iterdir()] == [str(saved)]
    total = saved + 3
    monkeypatch.chdir(tmp_path / 'stopped')
    assert main(['-opt', options, '--auto_resume', '--set', f'train.total_iter={total}', 'logger.save_checkpoint_freq=1']) == 0
    whole = _undisturbed(tmp_path, monkeypatch, options, **{'train.total_iter': total, 'logger.save_checkpoint_freq': 1})
    assert _same(whole, stopped, f'net_g_{total}.pth')


def test_all_processes_stop_when_one_is_told_to(texture_lmdb, tmp_path, monkeypatch):
    """torchrun hides the exit status, but the state is saved once, whole, and resumed by another number of processes."""
    options = write_options(tmp_path, texture_lmdb, train={'total_iter': 1000}, logger={
        'print_freq': 1, 'use_tb_logger': False, 'save_checkpoint_freq': 100000})
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
               '--log_dir', str(tmp_path / 'logs'), '-m', 'jddb_plugin.train', '-opt', options,
               '--launcher', 'pytorch', '--set', 'datasets.train.batch_size_per_gpu=1']
    run = subprocess.Popen(command, cwd=tmp_path, env=environment(PYTHONUNBUFFERED='1'), text=True, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT)
    output = []
    for line in run.stdout:
        output.append(line)
        if 'iter:       2,' in line:
            children = map(int, Path(f'/proc/{run.pid}/task/{run.pid}/children').read_text().split())
            ranks = {pid: Path(f'/proc/{pid}/environ').read_text() for pid in children}
            second, = (pid for pid, text in ranks.items() if '\0RANK=1\0' in text)
            os.kill(second, signal.SIGUSR1)
            break
    output.append(run.communicate(timeout=90)[0])
    output = ''.join(output)
    assert 'SIGUSR1: saved iteration' in output and 'a signal to another process: saved iteration' in output
    assert output.count('exitcode  : 75') >= 1
    state, = (tmp_path / 'experiments' / 'small' / 'training_states').iterdir()
    saved = int(state.stem)
    monkeypatch.chdir(tmp_path)
    more = [f'train.total_iter={saved + 1}', 'logger.save_checkpoint_freq=1']
    assert main(['-opt', options, '--auto_resume', '--set', *more]) == 0
    states = {int(path.stem) for path in (tmp_path / 'experiments' / 'small' / 'training_states').iterdir()}
    assert states == {saved, saved + 1}  # and none of a training from the beginning


def test_an_epoch_is_taken_up_where_it_was_left(texture_lmdb, tmp_path, monkeypatch):
    """Three iterations an epoch; interrupted after 1, 2, 3 and 4, resumed with another number of workers."""
    options = write_options(tmp_path, texture_lmdb, train={'total_iter': 7, 'ema_decay': 0.9})
    whole = _undisturbed(tmp_path, monkeypatch, options)
    for left_at, workers in ((1, 0), (2, 2), (3, 0), (4, 1)):
        folder = tmp_path / str(left_at)
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert main(['-opt', options, '--set', f'train.total_iter={left_at}']) == 0
        assert main(['-opt', options, '--auto_resume', '--set', f'datasets.train.num_worker_per_gpu={workers}']) == 0
        assert _same(whole, folder / 'experiments' / 'small', 'net_g_7.pth')


def test_workers_outlive_signals_that_are_not_their_parents(tmp_path):
    code = '''
import os, signal, time
import torch
from jddb_plugin.runtime import data_position, preemption

def main():
    with preemption.watch():
        data = torch.utils.data.DataLoader(list(range(64)), num_workers=2, worker_init_fn=data_position.start_worker,
                                           multiprocessing_context=CONTEXT, persistent_workers=True)
        with preemption.shield_children():
            batches = iter(data)
        children = [w.pid for w in batches._workers]
        for number in (signal.SIGUSR1, signal.SIGTERM):
            for pid in children:  # from another process, at once: while they are starting
                os.system(f'kill -{int(number)} {pid}')
        seen = sum(1 for _ in batches)
        for pid in children:
            os.system(f'kill -15 {pid}')
        time.sleep(0.3)
        again = sum(1 for _ in iter(data))
        first = batches._workers[0]
        first.terminate()
        first.join(5)
        print('result', seen, again, first.exitcode, preemption.received())

if __name__ == '__main__':
    main()
'''
    for context in ("'fork'", "'spawn'"):
        script = tmp_path / 'workers.py'
        script.write_text(code.replace('CONTEXT', context))
        result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment(), timeout=90)
        assert 'result 64 64 0 None' in result.stdout, result.stderr


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with preemption.watch():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert preemption.received() == 'SIGTERM'
    assert signal.getsignal(signal.SIGTERM) is before
    with preemption.watch():
        assert preemption.received() is None
