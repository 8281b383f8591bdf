"""The batch files in a real Slurm of two nodes on this machine, where its packages are and we are root.

`make test` runs one of the jobs, `make test-slow` the others, too.
"""
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..conftest import ROOT
from ..restoration.samples import ARGUMENTS, save_net, write_tiffs
from ..small_run import equal, validation, weights, write_options

CLUSTER = Path(__file__).with_name('slurm') / 'cluster.sh'
NEEDED = ('slurmctld', 'slurmd', 'munged', 'sbatch')
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

pytestmark = pytest.mark.skipif(
    getattr(os, 'geteuid', lambda: -1)() != 0 or not all(shutil.which(name, path=PATH) for name in NEEDED),
    reason='no Slurm that can be started here: apt-get install -y --no-install-recommends slurm-wlm munge, as root')


class Slurm:
    """A cluster, and what a user does with it."""

    def __init__(self, folder):
        self.folder = folder

    def call(self, *command, cwd=None):
        env = {**os.environ, 'PATH': PATH, 'SLURM_CONF': str(self.folder / 'slurm.conf')}
        return subprocess.run(command, cwd=cwd, env=env, check=True, capture_output=True, text=True).stdout

    def submit(self, folder):
        return Job(self, folder, self.call('sbatch', '--parsable', 'job.sbatch', cwd=folder).strip())


class Job:
    """One job, by what its user sees."""

    def __init__(self, slurm, folder, number):
        self.slurm, self.folder, self.number = slurm, folder, number

    def log(self):
        return ''.join(path.read_text() for path in sorted(self.folder.glob('*.out'))) or 'not started'

    def shown(self, key):
        return re.search(rf'{key}=(\w+)', self.slurm.call('scontrol', 'show', 'job', self.number))[1]

    def signal(self, name='USR1'):
        self.slurm.call('scancel', f'--signal={name}', self.number)

    def wait(self, condition, timeout=240):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, self.log()
            time.sleep(0.1)

    def wait_for(self, pattern, timeout=240):
        self.wait(lambda: re.search(pattern, self.log()), timeout)

    def wait_for_restart(self, count):
        self.wait(lambda: self.shown('Restarts') == str(count))

    def wait_for_end(self, timeout=300):
        self.wait(lambda: self.shown('JobState') not in ('PENDING', 'RUNNING', 'COMPLETING'), timeout)
        return self.shown('JobState')

    def processes(self, node=None, program='python'):
        """Number -> command of the job's processes."""
        found = {}
        for folder in Path('/proc').glob('[0-9]*'):
            with contextlib.suppress(OSError):
                environment = (folder / 'environ').read_bytes().split(b'\0')
                if f'SLURM_JOB_ID={self.number}'.encode() in environment and (
                        node is None or f'SLURMD_NODENAME={node}'.encode() in environment):
                    command = (folder / 'cmdline').read_bytes().decode().replace('\0', ' ')
                    if program in command.split(' ')[0]:
                        found[int(folder.name)] = command
        return found


@contextlib.contextmanager
def cluster(folder, **settings):
    try:
        subprocess.run([str(CLUSTER), 'start', str(folder)], check=True, timeout=120, env={**os.environ, **settings},
                       stdout=subprocess.DEVNULL)
        yield Slurm(folder)
    finally:
        subprocess.run([str(CLUSTER), 'stop', str(folder)], check=True, timeout=120)


@pytest.fixture
def slurm(tmp_path):
    with cluster(tmp_path / 'cluster') as started:
        yield started


def edited(script, **changes):
    """A batch file of which only lines marked EDIT are changed."""
    given = {'--partition=': 'gpu', '--time=': '15', '--cpus-per-task=': 1, '--mem=': '1000M',
             **{f'--{key.replace("_", "-")}=' if key in ('nodes', 'gpus_per_node', 'ntasks_per_node', 'time', 'array') else
                f'{key}=': value for key, value in changes.items()}}
    lines = []
    for line in (ROOT / 'scripts' / 'slurm' / script).read_text().splitlines():
        if '# EDIT' in line:
            for key, value in given.items():
                line = re.sub(rf'^(#SBATCH )?{key}\S+', lambda m, k=key, v=value: f'{m[1] or ""}{k}{v}', line)
            if '--account=' in line:
                continue
        lines.append(line)
    return '\n'.join(lines) + '\n'


@pytest.fixture
def prepare(texture_lmdb, tmp_path):
    """A folder to submit a training from: 20 iterations, two validations."""
    data, val = validation(texture_lmdb, val_freq=10)
    write_options(tmp_path, texture_lmdb, datasets={
        'train': {'dataroot_gt': str(texture_lmdb), 'gt_size': 48, 'dataset_enlarge_ratio': 10, 'num_worker_per_gpu': 0,
                  'batch_size': 2, 'batch_size_per_gpu': None},
        'val': data}, val=val, train={'total_iter': 20, 'warmup_iter': -1}, logger={
            'print_freq': 1, 'save_checkpoint_freq': 1000, 'use_tb_logger': False})

    def make(name, script, tasks, nodes=1, environment='', **changes):
        folder = tmp_path / name
        (folder / '.venv' / 'bin').mkdir(parents=True)
        (folder / '.venv' / 'bin' / 'activate').write_text(
            f'export PATH="{Path(sys.executable).parent}:$PATH" PYTHONPATH="{ROOT}" TMPDIR="{tmp_path}"\n{environment}')
        (folder / 'job.sbatch').write_text(edited(script, options='../small.yml', data=texture_lmdb, gpus_per_node=tasks,
                                                  ntasks_per_node=tasks, nodes=nodes, **changes))
        return folder

    return make


def check_equal(disturbed, whole):
    """To the bit: weights, their average, and the scores of every validation."""
    first, second = (folder / 'experiments' / 'small' for folder in (disturbed, whole))
    for key in ('params', 'params_ema'):
        assert equal(weights(first, 'net_g_latest.pth', key), weights(second, 'net_g_latest.pth', key))
    assert (first / 'validation.jsonl').read_text() == (second / 'validation.jsonl').read_text()
    for folder in (disturbed, whole):
        assert not list(folder.glob('.ended*')) and not list(folder.parent.glob('jddb_plugin_*'))


def test_a_job_goes_back_when_it_is_warned_also_while_it_starts_and_ends_with_the_same_bits(slurm, prepare):
    job = slurm.submit(prepare('warned', 'one_node.sbatch', 2))
    whole = slurm.submit(prepare('whole', 'one_node.sbatch', 2))
    job.wait(lambda: len(job.processes()) == 2)
    job.signal()  # Python is importing
    job.wait_for_restart(1)
    job.wait_for(r'iter: +3,')
    job.signal()
    job.wait_for_restart(2)
    assert job.wait_for_end() == whole.wait_for_end() == 'COMPLETED', job.log() + whole.log()
    assert 'World size (gpu number): 2' in job.log()
    assert len(re.findall('SIGUSR1: saved iteration', job.log())) == 2  # by both processes, once
    assert len(re.findall(f'{job.number}: saved, put back into the queue', job.log())) == 2
    check_equal(job.folder, whole.folder)


@pytest.mark.slow
def test_several_nodes_are_warned_and_lose_a_node(slurm, prepare):
    job = slurm.submit(prepare('warned', 'several_nodes.sbatch', 1, nodes=2, time='20'))
    job.wait_for(r'iter: +3,')
    job.signal()
    job.wait_for_restart(1)
    job.wait_for(r'iter: +12,')
    lost = job.processes('jddb2', program='')  # the node's daemon, its steps and its processes
    daemons = subprocess.run(['pgrep', '-f', rf'slurmd -N jddb2|slurmstepd: \[{job.number}\.'], capture_output=True, text=True)
    here = [pid for pid in map(int, daemons.stdout.split())
            if f'JDDB_SLURM={slurm.folder}'.encode() in Path(f'/proc/{pid}/environ').read_bytes().split(b'\0')]
    stepds = [pid for pid in here if 'slurmd' in Path(f'/proc/{pid}/cmdline').read_text()]
    for pid in {*lost, *stepds}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    job.wait_for_restart(2)
    subprocess.run(['slurmd', '-N', 'jddb2'], check=True, env={
        **os.environ, 'PATH': PATH, 'SLURM_CONF': str(slurm.folder / 'slurm.conf'), 'JDDB_SLURM': str(slurm.folder)})
    whole = slurm.submit(prepare('whole', 'several_nodes.sbatch', 1, nodes=2))
    assert job.wait_for_end() == whole.wait_for_end() == 'COMPLETED', job.log() + whole.log()
    check_equal(job.folder, whole.folder)


@pytest.mark.slow
def test_a_taken_port_is_passed_over_and_a_crashed_process_takes_the_others_with_it(slurm, prepare):
    folder = prepare('taken', 'several_nodes.sbatch', 1, nodes=2)
    following = int(slurm.call('sbatch', '--parsable', '--wrap', 'true', cwd=folder)) + 1
    with socket.create_server(('', 10000 + 16 * following % 20000)):
        job = slurm.submit(folder)
        assert int(job.number) == following
        assert job.wait_for_end() == 'COMPLETED', job.log()
    # Rank 1 is killed, as by a full memory, and rank 0 waits for it.
    job = slurm.submit(prepare('crashed', 'several_nodes.sbatch', 1, nodes=2))
    job.wait_for(r'iter: +3,')
    os.kill(next(iter(job.processes('jddb2'))), signal.SIGKILL)
    begin = time.monotonic()
    assert job.wait_for_end() == 'FAILED', job.log()
    assert time.monotonic() - begin < 90 and job.shown('Restarts') == '0'
    # The same while it starts, when rank 0 waits for it to come.
    job = slurm.submit(prepare('broken', 'several_nodes.sbatch', 1, nodes=2))
    job.wait(lambda: job.processes('jddb2'))
    os.kill(next(iter(job.processes('jddb2'))), signal.SIGKILL)
    begin = time.monotonic()
    assert job.wait_for_end() == 'FAILED', job.log()
    assert time.monotonic() - begin < 90 and job.shown('Restarts') == '0'


@pytest.mark.slow
def test_without_names_one_node_trains_and_several_say_what_is_missing(tmp_path, prepare):
    with cluster(tmp_path / 'cluster', HOSTS='0') as slurm:
        one = slurm.submit(prepare('one', 'one_node.sbatch', 2))
        several = slurm.submit(prepare('several', 'several_nodes.sbatch', 1, nodes=2))
        assert one.wait_for_end() == 'COMPLETED', one.log()
        begin = time.monotonic()
        assert several.wait_for_end() == 'FAILED', several.log()
        assert time.monotonic() - begin < 90
        assert "the first node's name 'jddb1' is unknown on " in several.log() and 'set MASTER_ADDR' in several.log()
        named = slurm.submit(prepare('named', 'several_nodes.sbatch', 1, nodes=2, environment='export MASTER_ADDR=127.0.0.1\n'))
        assert named.wait_for_end() == 'COMPLETED', named.log()


@pytest.mark.slow
def test_a_job_of_two_minutes_says_so(slurm, prepare):
    job = slurm.submit(prepare('short', 'one_node.sbatch', 1, time='2'))
    assert job.wait_for_end() == 'FAILED' and job.shown('Restarts') == '0'
    assert '--time=00:02:00 leaves no time for training' in job.log()


#: Stands in for scripts/tables.py: each number is a training.
RUNS = '''
import sys
from jddb_plugin.runtime import preemption
from jddb_plugin.train import main
if __name__ == '__main__':
    status = main(['-opt', '../small.yml', '--auto_resume', '--set', f'name=run{sys.argv[-1]}'])
    preemption.ignore()
    sys.exit(status)
'''


@pytest.mark.slow
def test_of_an_array_one_job_goes_back_and_the_others_end(slurm, prepare):
    folder = prepare('array', 'tables_array.sbatch', 1, array='0-1', tables='runs.py')
    (folder / 'runs.py').write_text(RUNS)
    array = slurm.submit(folder).number
    first, second = (Job(slurm, folder, f'{array}_{index}') for index in (0, 1))
    first.log = lambda: ''.join(path.read_text() for path in folder.glob('*_0.out'))
    first.wait_for('iter: +3,')
    first.signal()
    first.wait_for_restart(1)
    assert first.wait_for_end() == second.wait_for_end() == 'COMPLETED', first.log() + second.log()
    assert second.shown('Restarts') == '0' and f'{array}_0: saved, put back into the queue' in first.log()
    runs = [folder / 'experiments' / f'run{index}' for index in (0, 1)]
    assert equal(*(weights(run, 'net_g_latest.pth') for run in runs))
    assert not list(folder.glob('.ended*'))


@pytest.mark.slow
def test_a_batch_is_restored_as_an_array(slurm, prepare, tmp_path):
    for index in range(5):
        write_tiffs(tmp_path / 'bursts' / f'burst{index}')
    save_net(tmp_path / 'net.pth')
    folder = prepare('batch', 'restore_array.sbatch', 1, array='1-2', shards=2, bursts='../bursts')
    options = f"options=(--weights ../net.pth {' '.join(ARGUMENTS)})"
    text = re.sub(r'^options=.*$', options, (folder / 'job.sbatch').read_text(), flags=re.MULTILINE)
    (folder / 'job.sbatch').write_text(text)
    array = slurm.submit(folder).number
    jobs = [Job(slurm, folder, f'{array}_{index}') for index in (1, 2)]
    assert [job.wait_for_end() for job in jobs] == ['COMPLETED'] * 2, jobs[0].log()
    assert sorted(path.name for path in (folder / 'restored').glob('*.png')) == [f'burst{index}.png' for index in range(5)]
    assert len(list((folder / 'restored' / 'shards').iterdir())) == 2
