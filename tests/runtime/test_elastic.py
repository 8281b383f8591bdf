"""torchrun starts processes again, also more or fewer of them: the training goes on from its last state by itself."""
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jddb_plugin.runtime import preemption, processes
from jddb_plugin.train import main

from ..small_run import environment, equal, weights, write_options

pytestmark = pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='finds processes by /proc')


@pytest.fixture
def options(texture_lmdb, tmp_path):
    return write_options(tmp_path, texture_lmdb, train={'total_iter': 20}, datasets={'train': {
        'dataroot_gt': str(texture_lmdb), 'gt_size': 48, 'dataset_enlarge_ratio': 10, 'num_worker_per_gpu': 1, 'batch_size': 2,
        'batch_size_per_gpu': None}})


class Agent:
    """One torchrun, and its processes."""

    def __init__(self, folder, options, name, *launch, flags=()):
        self.log_file = folder / f'{name}.log'
        with open(self.log_file, 'w') as log:
            self.run = subprocess.Popen(
                [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '1', '--log_dir', str(folder / 'logs'),
                 *launch, '-m', 'jddb_plugin.train', '-opt', options, '--launcher', 'pytorch', *flags],
                cwd=folder, stdout=log, stderr=log,
                env=environment(PYTHONUNBUFFERED='1', NAME=name, TORCH_DISABLE_SHARE_RDZV_TCP_STORE='1'))
        self.name = name

    def log(self):
        return self.log_file.read_text()

    def wait_for(self, pattern, timeout=300):
        end = time.monotonic() + timeout
        while not re.search(pattern, self.log()):
            assert time.monotonic() < end and self.run.poll() in (None, -signal.SIGKILL), self.log()[-3000:]
            time.sleep(0.05)

    def processes(self):
        """Those that train, without loaders' workers."""
        found = []
        for folder in Path('/proc').glob('[0-9]*'):
            with contextlib.suppress(OSError):
                if f'NAME={self.name}'.encode() in (folder / 'environ').read_bytes().split(b'\0') and \
                        b'jddb_plugin.train\0-opt' in (folder / 'cmdline').read_bytes() and int(folder.name) != self.run.pid:
                    found.append(int(folder.name))
        return found

    def stop(self):
        self.run.kill()
        self.run.wait()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def agent(tmp_path, options):
    started = []

    def start(folder, name, *launch, flags=()):
        (tmp_path / folder).mkdir(exist_ok=True)
        started.append(Agent(tmp_path / folder, options, name, *launch, flags=flags))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_a_process_that_is_killed_is_started_again_and_goes_on(agent, options, tmp_path, monkeypatch):
    run = agent('killed', f'restart{os.getpid()}', '--standalone', '--max-restarts', '1')
    run.wait_for('iter: +4,')
    process, = run.processes()
    os.kill(process, signal.SIGKILL)
    assert run.run.wait(200) == 0, run.log()[-3000:]
    assert re.search(r'Resuming training from epoch: \d, iter: \d+', run.log()) and 'archived' not in run.log()
    (tmp_path / 'whole').mkdir()
    monkeypatch.chdir(tmp_path / 'whole')
    assert main(['-opt', options]) == 0
    for key in ('params', 'params_ema'):
        first, second = (weights(tmp_path / name / 'experiments/small', 'net_g_20.pth', key) for name in ('killed', 'whole'))
        assert equal(first, second)


def test_processes_of_a_torchrun_that_was_killed_save_and_end(agent, tmp_path):
    """They would go on beside those of the next torchrun, and write the same files."""
    run = agent('orphans', f'orphans{os.getpid()}', '--standalone', flags=['--set', 'train.total_iter=1000',
                                                                          'logger.save_checkpoint_freq=1000'])
    run.wait_for('iter: +3,')
    run.run.kill()
    run.run.wait()
    run.wait_for(r'the launcher has ended: saved iteration \d+ and stopped')
    end = time.monotonic() + 60
    while run.processes() and time.monotonic() < end:
        time.sleep(0.1)
    assert not run.processes()
    assert len(list((tmp_path / 'orphans/experiments/small/training_states').iterdir())) == 1


def _free_port():
    with socket.create_server(('127.0.0.1', 0)) as probe:
        return probe.getsockname()[1]


@pytest.mark.slow
def test_nodes_come_and_go(agent, tmp_path):
    """One node, a second one that joins, and the first alone again after the second is lost."""
    port = _free_port()
    launch = ('--nnodes', '1:2', '--max-restarts', '3', '--rdzv-backend', 'c10d', '--rdzv-endpoint', f'127.0.0.1:{port}',
              '--rdzv-id', 'elastic', '--rdzv-conf', 'last_call_timeout=5,join_timeout=300,read_timeout=120',
              '--local-addr', '127.0.0.1')
    flags = ['--auto_resume', '--set', 'train.total_iter=1000', 'logger.save_checkpoint_freq=5']
    first = agent('nodes', f'first{os.getpid()}', *launch, flags=flags)
    first.wait_for('iter: +7,')
    assert 'World size (gpu number): 1' in first.log()
    second = agent('nodes', f'second{os.getpid()}', *launch, flags=flags)
    first.wait_for(r'World size \(gpu number\): 2[\s\S]*Resuming training[\s\S]*iter: +\d+,')
    joined = int(re.findall(r'Resuming training from epoch: \d+, iter: (\d+)', first.log())[-1])
    assert joined >= 5
    first.wait_for(rf'iter: +{joined // 5 * 5 + 12},')
    second.run.kill()
    for process in second.processes():
        os.kill(process, signal.SIGKILL)
    first.wait_for(r'World size \(gpu number\): 2[\s\S]*World size \(gpu number\): 1[\s\S]*Resuming training[\s\S]*iter: +\d+,')
    left = int(re.findall(r'Resuming training from epoch: \d+, iter: (\d+)', first.log())[-1])
    assert left >= joined // 5 * 5 + 10


@pytest.mark.parametrize(('launcher', 'count', 'restart'), [
    ('pytorch', '2', True), ('pytorch', '0', False), ('pytorch', None, False), ('none', '2', False), ('slurm', '2', False)])
def test_a_restart_is_known(monkeypatch, launcher, count, restart):
    monkeypatch.delenv('TORCHELASTIC_RESTART_COUNT', raising=False)
    if count:
        monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', count)
    assert processes.is_restart(launcher) == restart


def test_the_end_of_the_launcher_asks_to_stop(monkeypatch):
    with preemption.watch():
        preemption.watch_launcher()
        assert preemption.received() is None
        monkeypatch.setattr(os, 'getppid', lambda: 1)
        assert preemption.received() == 'the launcher has ended'
    with preemption.watch():
        assert preemption.received() is None
