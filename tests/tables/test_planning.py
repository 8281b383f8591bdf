"""Studies of the paper's tables: which trainings and tests there are, and with what options."""
import copy

import pytest
import torch
import yaml

from jddb_plugin.checks import OptionError
from jddb_plugin.compat.options import check_options
from jddb_plugin.config import load_options
from jddb_plugin.tables import planning
from jddb_plugin.tables.planning import Evaluation, Training, keep_options, scale_schedules
from jddb_plugin.tables.running import evaluations_of, job, trainings_of
from jddb_plugin.tables.systems import OPTIONS, ROWS, SYSTEMS, make_study

STUDIES = ('tables', 'small', 'claims', 'mixing')


def parts_of(study):
    return [training.part for training in trainings_of(study, study.systems(), [0])]


@pytest.mark.parametrize('name', STUDIES)
def test_every_part_of_a_study_has_a_training_file_and_none_is_left_over(name):
    study = make_study(name)
    files = {file.stem for file in study.train.glob('*.yml')} - {'base'}
    assert set(parts_of(study)) == files
    assert all(file.is_file() for file in study.tests)


def test_rows_are_those_of_the_paper():
    assert [SYSTEMS[key].heading for key in ROWS[1]] == [
        'KPN+DMN', 'EDVR+DMN', 'RViDeNet+DMN', 'EDVR*', 'RViDeNet*', 'GCP-Net', 'Two-stage']
    assert make_study('tables').rows == (*ROWS[1], *(key for key in ROWS[4] if key != 'two_stage'))
    assert [file.stem for file in make_study('tables').tests] == ['reds4_low', 'reds4_high', 'videezy4k']
    assert [file.stem for file in make_study('tables', tables=[4]).tests] == ['reds4_high']
    with pytest.raises(OptionError, match="'gcpnet' is no row of this study; did you mean 'gcp_net'"):
        make_study('small').systems(['gcpnet'])
    with pytest.raises(OptionError, match="'smal' is not a valid choice; did you mean 'small'"):
        make_study('smal')


def test_a_demosaicker_is_trained_once_for_all_pairs():
    study = make_study('tables', tables=[1])
    trainings = trainings_of(study, study.systems(['kpn_dmn', 'edvr_dmn', 'rvidenet_dmn']), [0, 1])
    assert [t.name for t in trainings] == [f'tables_{part}_seed{seed}' for part in ('kpn', 'dmn', 'edvr_raw', 'rvidenet_raw')
                                           for seed in (0, 1)]
    assert job(trainings, 3) == [trainings[3]] and job(trainings, None) == trainings
    with pytest.raises(OptionError, match=r'--index: expected 0 \.\. 7 for 8 trainings, got 8'):
        job(trainings, 8)


def test_what_others_start_from_comes_first():
    study = make_study('claims')
    assert parts_of(study)[0] == 'start' and set(parts_of(study)[1:]) == set(ROWS[4])
    path = Training(study, 'two_stage', 3).options([], 100)['path']
    assert path['pretrain_network_g'] == 'experiments/claims_start_seed3/models/net_g_latest.pth' and not path['strict_load_g']
    assert Training(study, 'start', 3).options([], 100)['path'].get('pretrain_network_g') is None


@pytest.mark.parametrize('name', STUDIES)
def test_options_of_every_training_pass_the_checks(name):
    study = make_study(name)
    for training in trainings_of(study, study.systems(), [2]):
        options = training.options(['train.warmup_iter=-1'], 240)
        checked = check_options(copy.deepcopy(options), is_train=True)
        assert checked['train']['total_iter'] == 240 and checked['manual_seed'] == 2 and checked['name'] == training.name
        assert sum(options['train']['scheduler']['periods']) >= 240


def test_rivals_share_the_recipe_of_the_two_stage_network():
    study = make_study('tables')
    paper = Training(study, 'two_stage', 0).own_options()
    for part in ('gcp_net', 'edvr', 'rvidenet', 'kpn', 'edvr_raw', 'rvidenet_raw', 'dmn'):
        own = Training(study, part, 0).own_options()
        assert own['train']['total_iter'] == paper['train']['total_iter']
        assert own['train']['scheduler'] == paper['train']['scheduler']
        assert own['train']['optim_g'] == {k: v for k, v in paper['train']['optim_g'].items() if k != 'lr_coarse'}
        assert own['datasets']['train']['batch_size'] == paper['datasets']['train']['batch_size']
        assert own['datasets']['train']['gt_size'] == 2 * paper['train']['tile']
        assert own['val'] == {**paper['val'], 'align': 'none', 'tile': None, 'overlap': None} and own['logger'] == paper['logger']
        if part in ('gcp_net', 'edvr', 'rvidenet'):
            assert own['train']['pixel_opt'] == paper['train']['pixel_opt']
    demosaicker = Training(study, 'dmn', 0).own_options()['datasets']['train']
    assert demosaicker['noise'] == [0, 0] and demosaicker['num_frame'] == 1


def test_rows_of_the_small_study_have_a_quarter_of_the_width():
    full, narrow = make_study('tables'), make_study('small')
    for part in parts_of(narrow):
        wide, slim = (Training(study, part, 0).own_options()['network_g'] for study in (full, narrow))
        assert slim['num_feat'] * 4 == wide['num_feat']
        assert slim.get('deformable_groups', 2) * 4 == wide.get('deformable_groups', 8)
        depth = ('num_extract_block', 'num_reconstruct_block', 'num_block', 'kernel_size', 'num_frame', 'output')
        assert {key: slim.get(key) for key in depth} == {key: wide.get(key) for key in depth}


def test_schedules_keep_their_place_in_a_shorter_training():
    own = Training(make_study('tables'), 'two_stage', 0).own_options()
    final = copy.deepcopy(own)
    final['train']['total_iter'] = 600
    final['logger']['print_freq'] = 7  # set by hand: left alone
    scale_schedules(own, final)
    assert final['train']['scheduler']['periods'] == [50, 100, 150, 150, 150]
    assert [hook['milestones'] for hook in final['train']['hooks']] == [[300], [200]]
    assert final['val']['val_freq'] == 20 and final['logger']['save_checkpoint_freq'] == 5 and final['logger']['print_freq'] == 7
    assert final['train']['warmup_iter'] == -1
    kpn = Training(make_study('tables'), 'kpn', 0).own_options()
    short = copy.deepcopy(kpn)
    short['train']['total_iter'] = 600
    scale_schedules(kpn, short)
    assert short['train']['hooks'][0]['factor'] ** 600 == pytest.approx(0.9998 ** 600000)
    same = copy.deepcopy(own)
    scale_schedules(own, same)
    assert same == own


def test_a_rounded_period_does_not_end_before_the_training():
    own = Training(make_study('tables'), 'edvr', 0).own_options()
    for total in (7, 13, 1001):
        final = copy.deepcopy(own)
        final['train']['total_iter'] = total
        scale_schedules(own, final)
        assert sum(final['train']['scheduler']['periods']) >= total and min(final['train']['scheduler']['periods']) >= 1


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder to work in where the options of all trainings of the small study are kept."""
    monkeypatch.chdir(tmp_path)
    study = make_study('small')
    for training in trainings_of(study, study.systems(), [0]):
        keep_options(training.file, training.options([], 100), training.name)
    return study


def test_tests_have_the_networks_that_were_trained(kept):
    for test in evaluations_of(kept, kept.systems(), [0]):
        options = check_options(test.options([]), is_train=False)
        trained = [load_options(str(training.file))['network_g'] for training in test.trainings]
        network = options['network_g']
        if len(trained) == 2:
            assert network['type'] == 'DenoiseThenDemosaic'
            assert [network['denoiser']['type'], network['demosaicker']['type']] == [part['type'] for part in trained]
            assert options['path']['pretrain_network_g'].endswith(f'small_{test.system.key}_seed0.pth')
            assert options['path']['param_key_g'] == 'params'
        else:
            assert network['num_feat'] == trained[0]['num_feat'] and network['type'] == trained[0]['type']
            assert options['path']['param_key_g'] == 'params_ema'
        assert options['model_type'] == ('JDDBModel' if test.system.key == 'two_stage' else 'BurstModel')
        assert list(test.metrics()) == ['small_shift', 'medium_shift', 'large_shift', 'real']
    two_stage = Evaluation(kept, SYSTEMS['two_stage'], 0, kept.tests[0]).options([])['network_g']
    assert two_stage['dpbm']['radius'] == 8, 'how far is searched is the choice of the test'
    assert 'init' not in two_stage


def test_a_training_goes_on_with_the_options_it_was_started_with(kept):
    training = Training(kept, 'edvr', 0)
    keep_options(training.file, training.options([], 100), training.name)
    with pytest.raises(OptionError, match=r'train.optim_g.lr is 0.0005, not 0.001: small_edvr_seed0 was started with other'):
        keep_options(training.file, training.options(['train.optim_g.lr=0.001'], 100), training.name)


def test_weights_of_two_parts_are_joined(kept, monkeypatch):
    from basicsr.archs import build_network

    test = Evaluation(kept, SYSTEMS['edvr_dmn'], 0, kept.tests[0])
    states = []
    for training in test.trainings:
        network = build_network(load_options(str(training.file))['network_g'])
        training.weights.parent.mkdir(parents=True)
        torch.save({'params': {}, 'params_ema': network.state_dict()}, training.weights)
        states.append(network.state_dict())
    test.prepare()
    joined = torch.load(test.joined_weights, weights_only=True)['params']
    system = build_network(test.options([])['network_g'])
    system.load_state_dict(joined)
    assert all(torch.equal(joined[f'denoiser.{key}'], value) for key, value in states[0].items())
    assert all(torch.equal(joined[f'demosaicker.{key}'], value) for key, value in states[1].items())


def test_files_of_the_tables_are_a_few_lines():
    for study in STUDIES:
        for file in make_study(study).train.glob('*.yml'):
            if file.stem != 'base':
                assert len(yaml.safe_load(file.read_text())) <= 6 and len(file.read_text().splitlines()) <= 12, file
    assert OPTIONS.is_dir() and planning.flat({'a': {'b': [1, {'c': 2}]}, 'd': {}}) == {'a.b.0': 1, 'a.b.1.c': 2, 'd': {}}


def test_rivals_are_not_aligned_by_the_two_stage_networks_matching():
    rival, full, alone = {'type': 'EDVRBurst'}, {'coarse': 'dpbm'}, {'coarse': 'none'}
    assert planning._tiling(rival, False, 'none') == {'align': 'none', 'tile': None, 'overlap': None}
    assert planning._tiling(rival, False, 'smooth') == {'align': 'smooth', 'tile': None, 'overlap': None}
    assert planning._tiling(rival, False, 'tiles') == {'align': 'tiles'}, 'on the tiles of the test file'
    assert planning._tiling(full, True, 'none') == {}
    assert planning._tiling(alone, True, 'none') == {'align': 'none'}, 'w/ RA and w/o Align see frames as they are'
