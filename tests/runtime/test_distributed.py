"""Several processes on the CPU: the same training and the same scores as one."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from jddb_plugin.checks import JDDBError, OptionError
from jddb_plugin.compat.options import check_options
from jddb_plugin.config import load_options
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.runtime import processes
from jddb_plugin.train import main

from ..conftest import ROOT
from ..small_run import environment, validation, weights, write_options


def _largest_gap(first, second):
    return max(float((value - second[key]).abs().max()) for key, value in first.items())


def _in_groups(*groups, modules=()):
    """Run pipelines in groups of processes, (number, folder, 'train' or 'test', arguments) each; the output of each group."""
    driver = Path(__file__).with_name('group_driver.py')
    command = [sys.executable, str(driver), json.dumps(groups, default=str), *modules]
    run = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        statuses = [json.loads(line) for line in run.communicate(timeout=300)[0].splitlines()]
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        raise
    logs = [Path(group[1], f'log{index}.txt').read_text() for index, group in enumerate(groups)]
    assert statuses == [[0] * group[0] for group in groups], logs[-1][-3000:]
    return logs


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='forks')
def test_two_processes_train_as_one_with_the_joined_batch(texture_lmdb, tmp_path):
    """Gradients are sums over samples, added up in another order: they agree to float32's rounding.

    SGD passes that on as it is. Its steps here change weights by more than 1e-4, so 1e-6 is two digits below what is
    learnt. Losses that were averaged instead of added up would halve every step. (Adam divides a gradient by its own
    size, so where one is nearly zero its sign, and with it a step of the whole learning rate, can hang on the rounding.)
    """
    data, val = validation(texture_lmdb, save_best=True)
    options = write_options(
        tmp_path, texture_lmdb, datasets={'train': {'dataroot_gt': str(texture_lmdb), 'gt_size': 48, 'num_worker_per_gpu': 0,
                                                    'dataset_enlarge_ratio': 1, 'batch_size': 4, 'batch_size_per_gpu': None},
                                          'val': data},
        val=val, train={'total_iter': 4, 'warmup_iter': -1, 'ema_decay': 0.9,
                        'optim_g': {'type': 'SGD', 'lr': 1.0e-8, '_delete_': True},
                        'scheduler': {'type': 'MultiStepLR', 'milestones': [100], 'gamma': 0.5, '_delete_': True}})
    logs = _in_groups(*((number, tmp_path / str(number), 'train', ['-opt', options]) for number in (1, 2)))
    runs = [tmp_path / n / 'experiments' / 'small' for n in ('1', '2')]
    names = {p.name for p in (runs[1] / 'models').iterdir()}
    assert names == {'net_g_1.pth', 'net_g_2.pth', 'net_g_3.pth', 'net_g_4.pth', 'net_g_latest.pth', 'net_g_best_clips.pth'}
    assert logs[1].count('iter:       4,') == 1  # rank 0 alone tells
    moved = _largest_gap(weights(runs[0], 'net_g_1.pth'), weights(runs[0], 'net_g_4.pth'))
    for key in ('params', 'params_ema'):
        gap = _largest_gap(weights(runs[0], 'net_g_4.pth', key), weights(runs[1], 'net_g_4.pth', key))
        assert gap < 1e-6 < 1e-2 * moved, (gap, moved)
    for number in ('l_pix', 'l_total', 'grad_norm', 'dcn_offset_l1'):
        values = [[float(v) for v in re.findall(rf'{number}: (\S+)', log)] for log in logs]
        assert len(values[0]) == 4 and values[0] == pytest.approx(values[1], rel=1e-3, abs=1e-6)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='forks')
def test_every_frame_scores_the_same_in_any_number_of_processes(texture_lmdb, textures, tmp_path, monkeypatch):
    """Seven frames on two processes, and three frames on four: some have none."""
    monkeypatch.chdir(tmp_path)
    with BurstLmdbWriter('short.lmdb') as writer:
        for index, frame in enumerate(textures['a'][:3]):
            writer.put_image('short', index, frame)
    options = write_options(tmp_path, texture_lmdb, train={'total_iter': 1})
    assert main(['-opt', options]) == 0
    data = {'name': 'clips', 'type': 'UnprocessedBurstTestDataset', 'dataroot_gt': str(texture_lmdb), 'noise': 'high',
            'clips': ['a']}
    short = {**data, 'name': 'short', 'dataroot_gt': str(tmp_path / 'short.lmdb'), 'clips': ['short'], 'num_frame': 3}
    base = yaml.safe_load((ROOT / 'options' / 'test' / 'demo_two_stage.yml').read_text())
    test = {**base, 'name': 'clips', 'datasets': {'test_1': data, 'test_2': short},
            'path': {'pretrain_network_g': str(tmp_path / 'experiments/small/models/net_g_1.pth')}}
    test['network_g'].update({'num_feat': 8, 'deformable_groups': 2})
    test['val']['tile'] = 16
    Path('test.yml').write_text(yaml.safe_dump(test))
    folders = {number: tmp_path / f'test{number}' for number in (1, 2, 4)}
    _in_groups(*((number, folder, 'test', ['-opt', '../test.yml']) for number, folder in folders.items()))
    tables = [[json.loads((folder / f'results/clips/metrics_{name}.json').read_text()) for name in ('clips', 'short')]
              for folder in folders.values()]
    assert len(tables[0][0]['psnr']['a']['frames']) == 7 and len(tables[0][1]['psnr']['short']['frames']) == 3
    assert len(set(tables[0][0]['psnr']['a']['frames'])) == 7 and min(tables[0][0]['psnr']['a']['frames']) > 0
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='forks')
def test_a_stock_model_with_buffers_does_not_wait_for_ranks_without_frames(tmp_path):
    """The toolbox's own validation runs an unmatched broadcast here, and hangs. Its data draw from global generators."""
    metrics = {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}
    stock = {
        'name': 'stock', 'model_type': 'VideoBaseModel', 'scale': 1, 'num_gpu': 'auto', 'manual_seed': 0,
        'datasets': {
            'train': {'name': 't', 'type': 'RandomVideo', 'frames': [5], 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 1},
            'val': {'name': 'v', 'type': 'RandomVideo', 'frames': [1]},
            'val_2': {'name': 'w', 'type': 'RandomVideo', 'frames': [4, 1]}},
        'network_g': {'type': 'BufferedNet'}, 'path': {'pretrain_network_g': None},
        'train': {'optim_g': {'type': 'Adam', 'lr': 0.001}, 'total_iter': 6, 'pixel_opt': {'type': 'L1Loss'},
                  'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [6], 'restart_weights': [1]}},
        'val': {'val_freq': 2, 'save_img': False, 'metrics': metrics},
        'logger': {'print_freq': 2, 'save_checkpoint_freq': 2, 'use_tb_logger': False},
        'dist_params': {'backend': 'nccl', 'port': 29500},  # as the toolbox's files have it
    }
    (tmp_path / 'stock.yml').write_text(yaml.safe_dump(stock))
    # Two processes; then resumed in the middle of an epoch by one.
    longer = ['--auto_resume', '--set', 'train.total_iter=8', 'train.scheduler.periods=[8]']
    options = ['-opt', str(tmp_path / 'stock.yml')]
    output, resumed = _in_groups((2, tmp_path / 'run', 'train', options), (1, tmp_path / 'run', 'train', [*options, *longer]),
                                 modules=['tests.runtime.stock_driver'])
    assert output.count('Validation v') == output.count('Validation w') == 3
    assert re.search(r'# psnr: [1-9]\S+\s+# 04: [1-9]\S+\s+# 11: [1-9]', output)  # a clip that both sets have, and the other
    assert 'iter: 6.' in resumed


def _slurm(rank, **more):
    env = environment(SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), SLURM_NTASKS='2', SLURM_STEP_ID='0',
                      SLURM_JOB_NODELIST='node[001-002]', **more)
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        env.pop(name, None)
    return env


def test_slurm_starts_it_too(texture_lmdb, tmp_path):
    scontrol = tmp_path / 'bin' / 'scontrol'
    scontrol.parent.mkdir()
    scontrol.write_text('#!/bin/sh\necho "$@" >> "$CALLS"\necho localhost\necho other\n')
    scontrol.chmod(0o755)
    with socket.socket() as free:
        free.bind(('localhost', 0))
        job = (free.getsockname()[1] - 10000) // 16 if free.getsockname()[1] < 30000 else 911
    options = write_options(tmp_path, texture_lmdb, train={'total_iter': 2})
    runs = []
    for rank in (0, 1):
        env = _slurm(rank, SLURM_JOB_ID=str(job), PATH=f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}",
                     CALLS=str(tmp_path / 'calls'))
        command = [sys.executable, '-m', 'jddb_plugin.train', '-opt', options, '--launcher', 'slurm']
        runs.append(subprocess.Popen(command, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert 'World size (gpu number): 2' in outputs[0] and 'iter:       2,' in outputs[0] and 'iter:' not in outputs[1]
    assert (tmp_path / 'calls').read_text() == 'show hostnames node[001-002]\n' * 2
    assert (tmp_path / 'experiments/small/models/net_g_latest.pth').is_file()


def test_jobs_on_one_node_take_different_ports():
    tried = [processes.slurm_ports({'SLURM_JOB_ID': str(job), 'SLURM_STEP_ID': str(step)})
             for job in range(123456, 123456 + 200) for step in (0, 1)]
    assert len({ports[0] for ports in tried}) == len(tried)
    for ports in tried:
        assert len(set(ports)) == len(ports) == 4 and min(ports) >= 10000 and max(ports) < 30000
    assert processes.slurm_ports({'SLURM_JOB_ID': '7', 'SLURM_STEP_ID': 'batch'})[0] == 10000 + 7 * 16


def test_one_host_needs_no_scontrol(monkeypatch):
    assert processes.first_host('gpu7') == 'gpu7'
    monkeypatch.setenv('PATH', '')
    with pytest.raises(OptionError, match=r"scontrol show hostnames n\[1-2\]' failed .* set MASTER_ADDR"):
        processes.first_host('n[1-2]')


def test_the_local_rank_chooses_the_gpu(monkeypatch):
    seen = {}
    monkeypatch.setattr(torch.cuda, 'set_device', lambda index: seen.update(device=index))
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda **kwargs: seen.update(kwargs))
    monkeypatch.setattr(torch.distributed, 'new_group', lambda **kwargs: seen.update(control=kwargs['backend']))
    monkeypatch.setattr(processes, '_control', None)
    for name, value in {'RANK': '11', 'WORLD_SIZE': '16', 'LOCAL_RANK': '3'}.items():
        monkeypatch.setenv(name, value)
    for visible, device in ((4, 3), (1, 0)):  # a task that is bound to one GPU sees one
        monkeypatch.setattr(torch.cuda, 'device_count', lambda n=visible: n)
        processes.start_pytorch()
        assert seen['device'] == device and seen['backend'] == 'nccl' and seen['control'] == 'gloo'
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(OptionError, match='process 3 of this node has no GPU of its own: 2 are visible'):
        processes.start_pytorch()
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    processes.start_pytorch()
    assert seen['backend'] == 'gloo'
    processes.configure({'port': 23456, 'timeout_minutes': 5})
    for name, value in {'SLURM_PROCID': '1', 'SLURM_NTASKS': '2', 'SLURM_LOCALID': '0', 'SLURM_JOB_NODELIST': 'a',
                        'SLURM_JOB_ID': '5', 'SLURM_STEP_ID': '0'}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('MASTER_PORT', '1')
    monkeypatch.setenv('MASTER_ADDR', 'b')
    monkeypatch.setattr(processes, 'meet', lambda *args: seen.update(meet=args) or SimpleNamespace(port=args[1][0]))
    processes.start_slurm()
    assert seen['meet'] == ('b', [23456], 'jddb_plugin/5.0.', 1, 2, 900)
    assert os.environ['MASTER_PORT'] == '23456' and os.environ['MASTER_ADDR'] == 'b' and os.environ['RANK'] == '1'
    assert seen['timeout'].total_seconds() == 300 and seen['rank'] == 1 and seen['world_size'] == 2
    processes.configure(None)


@pytest.mark.parametrize(('launcher', 'message'), [
    ('pytorch', 'no RANK; start with torchrun'), ('slurm', 'no SLURM_PROCID; start'),
])
def test_a_launcher_that_is_not_there_is_told(texture_lmdb, tmp_path, monkeypatch, capsys, launcher, message):
    monkeypatch.chdir(tmp_path)
    options = write_options(tmp_path, texture_lmdb)
    assert main(['-opt', options, '--launcher', launcher, '--set', 'datasets.train.batch_size=2',
                 'datasets.train.batch_size_per_gpu=~']) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(('section', 'message'), [
    ({'backend': 'mpi'}, "expected nccl or gloo, got 'mpi'"), ({'prot': 1}, "unknown key 'prot'; did you mean 'port'"),
    ({'port': 123456}, 'expected 1 .. 65535'), ({'timeout_minutes': 0}, 'must be positive'),
    ({'start_minutes': -1}, 'start_minutes: must be positive'),
])
def test_bad_dist_params_are_named(section, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        processes.configure(section)


def test_one_process_decides_alone():
    assert processes.any_of(True) and not processes.any_of(False)
    assert processes.from_rank_0('x') == 'x'
    processes.fail_together(None, 'saving')
    with pytest.raises(JDDBError, match='full'):
        processes.fail_together(JDDBError('full'), 'saving')


def test_a_batch_is_shared_or_refused(texture_lmdb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = write_options(tmp_path, texture_lmdb)
    assert main(['-opt', options, '--set', 'datasets.train.batch_size=3']) == 2
    assert 'not both' in capsys.readouterr().err
    for name, value in {'RANK': '0', 'WORLD_SIZE': '3', 'LOCAL_RANK': '0'}.items():
        monkeypatch.setenv(name, value)
    assert main(['-opt', options, '--launcher', 'pytorch', '--set', 'datasets.train.batch_size=4']) == 2
    assert 'expected a whole number that 3 processes can share equally, got 4' in capsys.readouterr().err


def test_several_gpus_need_several_processes(texture_lmdb, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 8)
    options = write_options(tmp_path, texture_lmdb)
    opt = check_options(load_options(options), is_train=True)
    assert opt['num_gpu'] == 1 and 'torchrun --nproc_per_node 8' in caplog.text
    with pytest.raises(OptionError, match='torchrun --nproc_per_node 4 -m jddb_plugin.train'):
        check_options(load_options(options, [('num_gpu', 4)]), is_train=True)
    monkeypatch.setenv('RANK', '0')
    assert check_options(load_options(options, [('num_gpu', 'auto')]), is_train=True, launcher='pytorch')['num_gpu'] == 'auto'
