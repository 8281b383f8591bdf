"""The runner of the tables: what runs, what is skipped, what happens when something stops or fails."""
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.tables import command, running
from jddb_plugin.tables.planning import Evaluation, Training
from jddb_plugin.tables.systems import SYSTEMS, make_study


def behave(**wanted):
    Path('behavior.json').write_text(json.dumps({key.replace('__', ' '): value for key, value in wanted.items()}))


def main(*arguments):
    return command.main(['run', '--study', 'small', '--seconds', '100', *arguments])


def test_a_pair_is_tested_when_both_parts_are_trained_and_nothing_runs_twice(calls):
    assert main('--systems', 'kpn_dmn', '--index', '0') == 0
    assert calls() == ['small_kpn_seed0 train True']
    assert main('--systems', 'kpn_dmn', '--index', '1') == 0
    assert calls()[1:] == ['small_dmn_seed0 train True', 'small_kpn_dmn_seed0_small test False']
    assert main('--systems', 'kpn_dmn') == 0
    assert len(calls()) == 3


def test_seeds_of_the_small_study(calls, capsys):
    assert command.main(['list', '--study', 'small', '--seeds', '0', '1', '2']) == 0
    names = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert sum('two_stage' in name for name in names) == sum('gcp_net' in name for name in names) == 3
    assert sum('_kpn_' in name for name in names) == 1
    assert command.main(['list', '--study', 'small', '--seeds', '0', '1', '--all-seeds']) == 0
    assert sum('_kpn_' in line for line in capsys.readouterr().out.splitlines()) == 2


def test_a_failure_is_told_and_the_others_go_on(calls, capsys):
    behave(small_edvr_seed0__train=3)
    assert main('--systems', 'edvr', 'gcp_net') == 1
    assert calls() == ['small_edvr_seed0 train True', 'small_gcp_net_seed0 train True', 'small_gcp_net_seed0_small test False']
    assert 'error: small_edvr_seed0: train exited with status 3: broken here' in capsys.readouterr().err
    behave()
    assert main('--systems', 'edvr', 'gcp_net') == 0
    assert calls()[3:] == ['small_edvr_seed0 train True', 'small_edvr_seed0_small test False']


def test_a_preempted_training_ends_the_command_with_its_status(calls):
    behave(small_edvr_seed0__train=75)
    assert main('--systems', 'edvr', 'gcp_net') == 75
    assert calls() == ['small_edvr_seed0 train True']
    behave()
    assert main('--systems', 'edvr') == 0


def test_a_signal_reaches_the_training(calls):
    behave(small_edvr_seed0__train='wait')

    def interrupt():
        while not Path('waiting').exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert main('--systems', 'edvr') == 75
    thread.join()


def test_a_variant_waits_for_its_start(calls, capsys):
    arguments = ['run', '--study', 'claims', '--seconds', '50', '--systems', 'w_ra']
    assert command.main([*arguments, '--index', '1']) == 1
    assert 'claims_w_ra_seed0 starts from claims_start_seed0, which is not trained yet' in capsys.readouterr().err
    assert command.main(arguments) == 0
    assert [line.split()[0] for line in calls()] == ['claims_start_seed0', 'claims_w_ra_seed0', 'claims_w_ra_seed0_claims']


def test_wrong_command_lines_are_told(calls, capsys):
    assert command.main(['run', '--study', 'small']) == 2
    assert '--seconds: small_kpn_seed0 needs the CPU seconds of its training' in capsys.readouterr().err
    assert command.main(['run', '--seconds', '9']) == 2
    assert "study tables has the paper's length" in capsys.readouterr().err
    assert command.main(['print', '--study', 'small', '--tables', '1']) == 2
    assert '--tables: belongs to --study tables' in capsys.readouterr().err
    assert main('--systems', 'EDVR') == 2
    assert "'EDVR' is no row of this study" in capsys.readouterr().err
    for command_name in ('run', 'print', 'list'):
        for seeds in (['0', '1', '0'], ['0', '-1']):
            capsys.readouterr()
            assert command.main([command_name, '--study', 'small', '--seeds', *seeds]) == 2
            told = capsys.readouterr().err
            assert told == f'error: --seeds: expected different numbers of at least 0, got {" ".join(seeds)}.\n'
    assert main('--index', '99') == 2
    assert command.main(['cost', '--tiles', '-1']) == 2


def test_the_length_that_seconds_gave_is_kept(calls, monkeypatch):
    assert main('--systems', 'edvr') == 0
    training = Training(make_study('small'), 'edvr', 0)
    monkeypatch.setattr(running, 'iterations_in', lambda options, seconds: pytest.fail('measured twice'))
    running.plan([Training(make_study('small', seconds=100.0), 'edvr', 0)], [])
    assert command.main(['run', '--study', 'small', '--systems', 'edvr']) == 0, 'it needs no seconds again'
    assert 'total_iter: 100' in training.file.read_text()
    timing = running.timing_of(training)
    assert timing['starts'] == 1 and timing['wall'] > 0 and timing['cpu'] > 0


def test_equal_shares_of_time_become_iterations(monkeypatch):
    from jddb_plugin.checks import OptionError
    from jddb_plugin.tables import budget

    monkeypatch.setattr(budget, 'seconds_per_iteration', lambda options: 0.5)
    assert budget.iterations_in({'name': 'x'}, 60) == 120
    with pytest.raises(OptionError, match='x: one iteration takes 0.50 s, so 4 s are not enough'):
        budget.iterations_in({'name': 'x'}, 4)


def test_a_pair_of_tiny_networks_goes_from_option_file_to_table(textures, tmp_path, monkeypatch, capsys):
    """Really trained, joined, tested and printed, in this process."""
    from jddb_plugin.test import main as run_test
    from jddb_plugin.train import main as run_train

    monkeypatch.chdir(tmp_path)
    data = tmp_path / 'datasets' / 'tables_small'
    data.mkdir(parents=True)
    for name in ('train', 'val', 'small_shift', 'medium_shift', 'large_shift', 'real'):
        with BurstLmdbWriter(str(data / f'{name}.lmdb')) as writer:
            for index, frame in enumerate(textures['a'][:5]):
                writer.put_image('a', index, frame[:64, :96])
    commands = {'train': run_train, 'test': run_test}

    def call(phase, file, name, *flags):
        assert commands[phase](['-opt', str(file), *flags]) == 0

    monkeypatch.setattr(running, '_call', call)
    monkeypatch.setattr(running, 'iterations_in', lambda options, seconds: 4)
    tiny = ['network_g.num_feat=2', 'datasets.train.gt_size=64', 'datasets.train.batch_size_per_gpu=1',
            'datasets.train.dataset_enlarge_ratio=8', 'num_gpu=0']
    assert command.main(['run', '--study', 'small', '--seconds', '9', '--systems', 'kpn_dmn', '--set', *tiny]) == 0
    capsys.readouterr()
    assert command.main(['print', '--study', 'small']) == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.startswith('| KPN+DMN'))
    assert '1 of 1' in row and 'missing' not in row
    assert next(line for line in text.splitlines() if line.startswith('| GCP-Net')).count('missing') == 4
    assert [line for line in text.splitlines() if line.startswith('| kpn ')][0].split('|')[2].strip() == '4'
    joined = torch.load(Evaluation(make_study('small'), SYSTEMS['kpn_dmn'], 0, make_study('small').tests[0]).joined_weights,
                        weights_only=True)['params']
    assert {key.split('.')[0] for key in joined} == {'denoiser', 'demosaicker'}
