"""The ablation: its variants are those of table 4, and its runner skips, resumes, reports and stops as it says."""
import copy
import importlib
import json
import logging
import os
import signal
import statistics
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from basicsr.archs import build_network
from basicsr.utils import logger as basicsr_logger

from jddb_plugin.checks import DataError
from jddb_plugin.compat.options import check_options
from jddb_plugin.config import load_options
from jddb_plugin.data.frame_source import FrameSource
from jddb_plugin.test import main as run_test
from jddb_plugin.train import main as run_train

from ..conftest import ROOT

VARIANTS = ('wo_align', 'w_ca', 'w_ra', 'wo_e2e', 'full')
MATCHING = {'w_ca', 'full'}
#: Two iterations of a tiny network on tiny clips.
TINY = ['--set', 'network_g.num_feat=8', 'network_g.deformable_groups=2', 'datasets.train.gt_size=64', 'train.total_iter=2',
        'datasets.train.batch_size_per_gpu=1', 'logger.save_checkpoint_freq=1']

#: Stands in for training and test: says what it does, ends as behaviour.json has it, writes metrics that depend on the seed.
FAKE = '''
import json, signal, sys, time
from pathlib import Path
import yaml
opt = yaml.safe_load(Path(sys.argv[sys.argv.index('-opt') + 1]).read_text())
name, phase = opt['name'], 'PHASE'
with open('calls.txt', 'a') as file:
    file.write(f'{name} {phase} {"--auto_resume" in sys.argv}\\n')
wanted = json.loads(Path('behaviour.json').read_text()).get(f'{name} {phase}', 0) if Path('behaviour.json').exists() else 0
if wanted == 'wait':
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(75)))
    Path('waiting').touch()
    time.sleep(30)
if wanted == 'die':
    Path('dying').touch()
    time.sleep(30)
if phase == 'test' and not wanted:
    for section in opt['datasets'].values():
        seed = int(name.split('seed')[1][0])
        table = {metric: {clip: {'all': seed + 20.0, 'centre': seed + 30.0} for clip in ('average', 'a')}
                 for metric in ('psnr', 'ssim')}
        Path('results', name).mkdir(parents=True, exist_ok=True)
        Path('results', name, f"metrics_{section['name']}.json").write_text(json.dumps(table))
else:
    Path('experiments', name).mkdir(parents=True, exist_ok=True)
print('first word')
print('broken here', end='\\r')
sys.exit(wanted)
'''


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'scripts'))
    for module in ('ablation', 'ablation_data'):
        sys.modules.pop(module, None)
    return importlib.import_module('ablation')


@pytest.fixture(scope='module')
def few():
    """The script's data, but few and small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'scripts'))
        sys.modules.pop('ablation_data', None)
        module = importlib.import_module('ablation_data')
        image = np.random.default_rng(0).integers(0, 255, (160, 170, 3), np.uint8)
        few = {'PHOTOGRAPHS': ('a.png', 'b.png', 'c.png'), 'TEST_PHOTOGRAPHS': ('c.png',), 'TRAIN_SIDE': 64, 'TEST_SIDE': 64,
               'CLIPS_PER_SPEED': 1, 'photograph': lambda name: image}
        for name, value in few.items():
            patch.setattr(module, name, value)
        yield module


@pytest.fixture(scope='module')
def data(few, tmp_path_factory):
    """A folder with such data below it, and with a real clip."""
    folder = tmp_path_factory.mktemp('data')
    (folder / 'frames' / 'walk').mkdir(parents=True)
    for k in range(8):
        cv2.imwrite(str(folder / 'frames' / 'walk' / f'{k}.png'), np.full((70, 81, 3), 30 * k, np.uint8))
    few.prepare(folder / 'datasets' / 'ablation_small', None, folder / 'frames')
    return folder


@pytest.fixture
def workplace(tmp_path, monkeypatch, data, script):
    """An empty folder with these clips below it; nothing is built again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'datasets').symlink_to(data / 'datasets')
    monkeypatch.setattr(script, 'prepare', lambda *_: None)
    return tmp_path


@pytest.fixture
def fakes(workplace, script, monkeypatch):
    """Quick processes in place of training and test; returns what was called."""
    for phase in ('train', 'test'):
        Path(f'fake_{phase}.py').write_text(FAKE.replace('PHASE', phase))
    monkeypatch.setattr(script, 'MODULES', {'train': 'fake_train', 'test': 'fake_test'})
    monkeypatch.setattr(script, 'check_run', lambda run: None)

    def calls():
        lines = Path('calls.txt').read_text().splitlines() if Path('calls.txt').exists() else []
        Path('calls.txt').unlink(missing_ok=True)
        return sorted(line.removeprefix('ablation_') for line in lines)

    return calls


def _options(script, variant, *arguments):
    return script.make_run(variant, 0, script.parse(arguments)).options


# ------------------------------------------------------------------------------------------- variants


@pytest.mark.parametrize('variant', VARIANTS)
def test_variants_are_those_of_table_4(script, variant):
    run = _options(script, variant, '--small')
    opt = check_options(copy.deepcopy(run['train']), is_train=True)
    check_options(copy.deepcopy(run['test']), is_train=False)
    net = build_network(opt['network_g'])
    assert (net.coarse is not None) == (variant in ('w_ca', 'wo_e2e', 'full'))
    assert bool(net.coarse_parameters()) == (variant in MATCHING)
    assert (net.refine.align is not None) == (variant in ('w_ra', 'wo_e2e', 'full'))
    for loss in ('one_hot_opt', 'bm_opt'):
        assert bool(opt['train'].get(loss)) == (variant in MATCHING)
    hooks = ['TemperatureHook', 'LossWeightHook'] if variant in MATCHING else []
    assert [hook['type'] for hook in opt['train']['hooks']] == hooks
    # What the test restores is what was trained.
    shared = ('type', 'num_feat', 'deformable_groups', 'coarse', 'refined')
    assert [run['test']['network_g'][key] for key in shared] == [opt['network_g'][key] for key in shared]
    assert run['test']['path']['param_key_g'] == 'params_ema'


@pytest.mark.parametrize('variant', VARIANTS)
def test_variants_are_the_paper_s_recipe_but_for_their_alignment(script, variant):
    own = load_options(str(ROOT / 'options' / 'train' / 'ablation' / f'{variant}.yml'))
    recipe = load_options(str(ROOT / 'options' / 'train' / 'jddb_reds.yml'))
    check_options(copy.deepcopy(own), is_train=True)
    train, expected = own['train'], recipe['train']
    for key in ('one_hot_opt', 'bm_opt'):
        assert train.pop(key) == (expected[key] if variant in MATCHING else None)
        del expected[key]
    assert train.pop('hooks') == (expected['hooks'] if variant in MATCHING else [])
    del expected['hooks']
    stages = {key: own['network_g'].pop(key) for key in ('coarse', 'refined')}
    assert own == {**recipe, 'name': f'ablation_{variant}', 'network_g': own['network_g']}
    assert {**own['network_g'], **stages} == {**recipe['network_g'], **stages}
    run = _options(script, variant)
    check_options(run['test'], is_train=False)
    assert [run['test']['datasets'][phase]['name'] for phase in sorted(run['test']['datasets'])] == ['000', '020', '011 and 015']
    assert 'param_key_g' not in run['test']['path']
    assert {key: run['test']['network_g'][key] for key in stages} == stages


def test_schedules_follow_the_length_of_the_training(script):
    train = _options(script, 'full', '--small', '--set', 'train.total_iter=600')['train']['train']
    assert train['scheduler']['periods'] == [600]
    assert [hook['milestones'] for hook in train['hooks']] == [[300], [200]]
    assert train['hooks'][1]['values'] == [1000, 0]
    train = _options(script, 'full', '--set', 'train.total_iter=6000')['train']['train']
    assert train['scheduler']['periods'] == [500, 1000, 1500, 1500, 1500]
    # What the command line says stands.
    given = ('--set', 'train.total_iter=600', 'train.scheduler.periods=[700]', 'train.hooks.0.milestones=[5]')
    train = _options(script, 'full', '--small', *given)['train']['train']
    assert train['scheduler']['periods'] == [700] and [hook['milestones'] for hook in train['hooks']] == [[5], [200]]


# ----------------------------------------------------------------------------------------------- data


def test_scenes_are_held_out_and_move_as_they_say(data):
    root = data / 'datasets' / 'ablation_small'
    sets = {name: FrameSource(str(root / f'{name}.lmdb'), {'type': 'lmdb'}, 'test')
            for name in ('train', 'small_shift', 'large_shift', 'real')}
    assert set(sets['train'].clips) == {f'{name}_{motion}_0' for name in 'ab' for motion in ('small', 'large')}
    assert set(sets['small_shift'].clips) == set(sets['large_shift'].clips) == {'c'}
    assert sets['real'].clips['walk'].size == (64, 64) and len(sets['real'].clips['walk'].keys) == 7


def test_data_are_built_once_and_of_one_source(data, few, tmp_path, monkeypatch):
    monkeypatch.chdir(data)
    root = Path('datasets/ablation_small')
    before = os.stat(root / 'train.lmdb').st_mtime_ns
    for frames in (None, data / 'frames'):
        few.prepare(root, None, frames)
    assert os.stat(root / 'train.lmdb').st_mtime_ns == before
    (tmp_path / 'other').mkdir()
    with pytest.raises(DataError, match='was built of other --photographs or --frames'):
        few.prepare(root, None, tmp_path)
    with pytest.raises(DataError, match='holds no folders'):
        few.prepare(root, None, tmp_path / 'other')
    with pytest.raises(DataError, match='expected a folder of more than 3 photographs, found 0'):
        few.prepare(root, tmp_path, None)


# ------------------------------------------------------------------------------------------ the whole


class _Inline:
    """Executes in this thread at once."""

    def __init__(self, _):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


def test_the_whole_ablation(script, workplace, monkeypatch, capsys):
    """Everything but the processes: the pipelines run in this one, which spares eight starts."""
    calls = []

    def call(self, arguments, log):
        for handler in list(logging.getLogger('basicsr').handlers):
            logging.getLogger('basicsr').removeHandler(handler)
        basicsr_logger.initialized_logger.clear()
        calls.append(arguments)
        return {'jddb_plugin.train': run_train, 'jddb_plugin.test': run_test}[arguments[0]](arguments[1:])

    monkeypatch.setattr(script.Children, 'call', call)
    monkeypatch.setattr(script, 'ThreadPoolExecutor', _Inline)
    given = ['--small', '--variants', 'w_ca', 'wo_align', '--seeds', '3', '5', *TINY]
    assert script.main(given) == 0
    assert len(calls) == 8
    report, printed = json.loads(Path('results/ablation_small/table.json').read_text()), capsys.readouterr().out.splitlines()
    for variant in ('w_ca', 'wo_align'):
        per_seed = []
        for seed in (3, 5):
            name = f'ablation_{variant}_seed{seed}_small'
            kept = yaml.safe_load(Path(f'experiments/{name}/{name}_train.yml').read_text())
            assert kept['manual_seed'] == seed and kept['datasets']['train']['seed'] == seed
            per_seed.append({s: json.loads(Path(f'results/{name}/metrics_{s}.json').read_text())
                             for s in ('small_shift', 'large_shift', 'real')})
        for metric, digits in (('psnr', 2), ('ssim', 4)):
            found = report['variants'][variant]['scores']
            for name in ('small_shift', 'large_shift', 'real'):
                values = [tables[name][metric]['average']['centre'] for tables in per_seed]
                assert found[name][metric]['values'] == values
                assert found[name][metric]['std'] == pytest.approx(np.std(values, ddof=1))
            clips = [statistics.mean((t['small_shift'][metric]['c']['centre'], t['real'][metric]['walk']['centre'],
                                      t['large_shift'][metric]['c']['centre'])) for t in per_seed]
            assert found['average'][metric]['values'] == pytest.approx(clips)
            row = next(line for line in printed if line.startswith(f'| {script.VARIANTS[variant]} |'))
            cell = row.split('|')[-2].split('/')[digits == 4].split('±')
            assert [float(v) for v in cell] == pytest.approx([np.mean(clips), np.std(clips, ddof=1)], abs=0.6 * 10 ** -digits)
    assert '|  | seeds | small shift | large shift | real | average |' in printed
    assert script.main(given) == 0 and len(calls) == 8  # all are finished
    assert script.main(['--small', '--table', '--variants', 'w_ca', '--seeds', '3']) == 0
    assert '±' not in Path('results/ablation_small/table.md').read_text()


def test_runs_are_processes_of_their_own(script, workplace):
    assert script.main(['--small', '--variants', 'wo_align', '--seeds', '0', '--index', '0', *TINY]) == 0
    assert Path('results/ablation_wo_align_seed0_small/metrics_real.json').is_file()
    assert 'End of training' in Path('results/ablation_small/logs/ablation_wo_align_seed0_small.log').read_text()
    assert not Path('results/ablation_small/table.md').exists()


# --------------------------------------------------------------------------------------------- runner


def test_finished_runs_are_skipped_and_others_go_on_where_they_were(script, fakes):
    given = ['--small', '--variants', 'full', 'w_ra', '--seeds', '0', '1']
    assert script.main([*given, '--index', '2']) == 0
    assert fakes() == ['w_ra_seed0_small test False', 'w_ra_seed0_small train True']
    Path('behaviour.json').write_text(json.dumps({'ablation_full_seed1_small test': 1}))
    assert script.main([*given, '--jobs', '2']) == 1
    assert len(fakes()) == 6
    Path('behaviour.json').unlink()
    assert script.main(given) == 0
    assert fakes() == ['full_seed1_small test False']  # it was trained already


def test_a_failing_run_is_named_and_the_others_go_on(script, fakes, capsys):
    Path('behaviour.json').write_text(json.dumps({'ablation_full_seed0_small train': 3}))
    assert script.main(['--small', '--variants', 'full', 'w_ra', '--seeds', '0']) == 1
    captured = capsys.readouterr()
    assert 'error: ablation_full_seed0_small: train exited with status 3: broken here (' in captured.err
    assert '| w/ RA | 1 | 30.00 / 30.0000 |' in captured.out and '| full |' not in captured.out
    assert script.main(['--small', '--table', '--variants', 'full', '--seeds', '0']) == 2
    assert 'no run is finished yet' in capsys.readouterr().err


def test_a_preempted_training_stops_the_command_with_its_status(script, fakes):
    Path('behaviour.json').write_text(json.dumps({'ablation_full_seed0_small train': 75}))
    assert script.main(['--small', '--variants', 'full', 'w_ra', '--seeds', '0']) == 75
    assert fakes() == ['full_seed0_small train True']


@pytest.mark.parametrize('number', [signal.SIGUSR1, signal.SIGTERM])
def test_a_training_that_a_signal_killed_while_it_was_starting_is_no_failure(script, monkeypatch, tmp_path, number):
    (tmp_path / 'dies.py').write_text(f'import os\nos.kill(os.getpid(), {int(number)})\n')
    monkeypatch.chdir(tmp_path)
    children = script.Children(1)
    with pytest.raises(script.Stopped):
        children.call(['dies'], tmp_path / 'log')
    assert children.stop_status == 75


@pytest.mark.parametrize(('given', 'threads'), [('1', '1'), ('3', '3'), (None, '6')])
def test_runs_have_the_threads_that_the_batch_file_gives_them(script, monkeypatch, given, threads):
    made, real = [], script.Children
    monkeypatch.setattr(script, 'Children', lambda count: made.append(real(count)) or made[-1])
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(12)), raising=False)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    if given:
        monkeypatch.setenv('OMP_NUM_THREADS', given)
    assert script.execute_all([], SimpleNamespace(jobs=2)) == 0
    assert made[0]._environment['OMP_NUM_THREADS'] == threads


def test_a_training_that_is_preempted_ends_the_others_gently(script, fakes):
    behaviour = {'ablation_full_seed0_small train': 'wait', 'ablation_w_ra_seed0_small train': 75}
    Path('behaviour.json').write_text(json.dumps(behaviour))
    start = time.monotonic()
    assert script.main(['--small', '--variants', 'full', 'w_ra', '--seeds', '0', '--jobs', '2']) == 75
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_is_handed_on(script, fakes, number, status):
    """The slower of two trainings says that it saved its state, the other just dies."""
    behaviour = {'ablation_full_seed0_small train': 'wait', 'ablation_w_ra_seed0_small train': 'die'}
    Path('behaviour.json').write_text(json.dumps(behaviour))

    def send():
        while not (Path('waiting').exists() and Path('dying').exists()):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    before = signal.getsignal(number)
    sender.start()
    start = time.monotonic()
    assert script.main(['--small', '--variants', 'full', 'w_ra', 'w_ca', '--seeds', '0', '--jobs', '2']) == status
    sender.join()
    assert time.monotonic() - start < 20 and signal.getsignal(number) is before
    assert fakes() == ['full_seed0_small train True', 'w_ra_seed0_small train True']


def test_results_of_other_options_do_not_meet_in_one_table(script, fakes, capsys):
    given = ['--small', '--variants', 'full', '--seeds', '0']
    assert script.main(given) == 0
    assert script.main([*given, '--set', 'train.total_iter=9']) == 2
    message = capsys.readouterr().err
    assert ': train.hooks.0.milestones.0 is 400, not 5: ablation_full_seed0_small was started with other options' in message


def test_what_is_wrong_is_known_before_anything_runs(script, workplace, capsys):
    assert script.main(['--small', '--seeds', '0', '--set', 'network_g.num_feet=8']) == 2
    assert "network_g: unknown key 'num_feet'; did you mean 'num_feat'?" in capsys.readouterr().err
    assert script.main(['--small', '--set-test', 'datasets.test_1.dataroot_gt=nowhere.lmdb', '--set',
                        'datasets.train.gt_size=64']) == 2
    assert 'nowhere.lmdb: no such folder' in capsys.readouterr().err
    assert script.main(['--small', '--seeds', '0', '--index', '5']) == 2
    assert '--index: expected 0 .. 4 for 5 runs, got 5' in capsys.readouterr().err
    assert not Path('experiments').exists() and not Path('results').exists()
    with pytest.raises(SystemExit):
        script.parse(['--frames', 'x'])
