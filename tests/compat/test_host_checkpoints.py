"""Checkpoints and resuming of the toolbox's stock video model, run by our entry points."""
import re
from pathlib import Path

import pytest
import torch

from ..small_run import weights
from .host_run import read_log

pytestmark = pytest.mark.usefixtures('workplace')


def test_state_of_another_model_is_told(train, capsys):
    assert train() == 0
    state = torch.load('experiments/edvr/training_states/2.state', weights_only=True)
    state['optimizers'][0]['param_groups'].append(state['optimizers'][0]['param_groups'][0])
    torch.save(state, 'experiments/edvr/training_states/2.state')
    assert train('--auto_resume') == 2
    assert 'its optimizer belongs to another configuration' in capsys.readouterr().err


def test_old_checkpoints_are_removed_as_asked(train):
    assert train(**{'train.total_iter': 7, 'logger.keep_last': 2, 'logger.keep_every': 3}) == 0
    root = Path('experiments/edvr')
    assert sorted(int(p.stem) for p in root.glob('training_states/*')) == [3, 6, 7]
    assert sorted(p.name for p in root.glob('models/*')) == ['net_g_3.pth', 'net_g_6.pth', 'net_g_7.pth', 'net_g_latest.pth']
    assert train(**{'logger.keep_last': 0}) == 2


def test_a_damaged_newest_state_does_not_push_out_the_good_ones(train, caplog):
    keep = {'logger.keep_last': 1}
    assert train(**{'train.total_iter': 3}) == 0
    Path('experiments/edvr/training_states/3.state').write_bytes(b'torn')
    assert train('--auto_resume', **{'train.total_iter': 2, **keep}) == 0
    assert 'set aside as *.state.superseded: 3' in caplog.text
    assert train('--auto_resume', **{'train.total_iter': 4, 'logger.save_checkpoint_freq': 4, **keep}) == 0
    assert [p.name for p in Path('experiments/edvr/training_states').glob('*.state')] == ['4.state']


def test_a_run_taken_back_by_hand_is_resumed_where_it_went(train):
    assert train(**{'train.total_iter': 5}) == 0
    back = {'path.resume_state': 'experiments/edvr/training_states/2.state', 'train.total_iter': 3, 'logger.keep_last': 2}
    assert train(**back) == 0
    assert sorted(p.name for p in Path('experiments/edvr/training_states').glob('*.state')) == ['2.state', '3.state']
    assert train('--auto_resume', **{'train.total_iter': 4}) == 0
    assert 'iter: 3.' in read_log()


def test_a_resumed_run_takes_the_learning_rate_of_its_options(train):
    """The toolbox takes the checkpoint's, so that nothing could be done about a divergence."""
    assert train(**{'train.total_iter': 2}) == 0
    before = re.findall(r'lr:\(([^,]+),', read_log())
    lower = {'train.optim_g.lr': '1.0e-4', 'train.optim_g.betas': '[0.8, 0.9]', 'train.total_iter': 3}
    assert train('--auto_resume', **lower) == 0
    after = re.findall(r'lr:\(([^,]+),', read_log())
    assert float(before[0]) == 1e-3 and after[2] == '8.830e-05'  # the cosine's third value, of a tenth
    state = torch.load('experiments/edvr/training_states/3.state', weights_only=True)
    assert tuple(state['optimizers'][0]['param_groups'][0]['betas']) == (0.8, 0.9)


def test_a_state_of_another_experiment_serves_the_first_auto_resume(train):
    assert train(**{'train.total_iter': 2}) == 0
    again = {'name': 'again', 'path.resume_state': 'experiments/edvr/training_states/2.state', 'train.total_iter': 3}
    assert train('--auto_resume', **again) == 0
    assert sorted(p.name for p in Path('experiments/again/training_states').iterdir()) == ['3.state']
    assert train('--auto_resume', **{**again, 'train.total_iter': 4}) == 0
    assert sorted(p.name for p in Path('experiments/again/training_states').iterdir()) == ['3.state', '4.state']


def test_a_run_that_started_from_a_bare_state_dict_is_resumed(train, capsys):
    assert train(**{'train.total_iter': 1}) == 0
    torch.save(weights('experiments/edvr', 'net_g_1.pth'), 'bare.pth')
    wrong = {'name': 'wrong', 'path.pretrain_network_g': 'experiments/edvr/models/net_g_1.pth', 'path.param_key_g': 'parms'}
    assert train(**wrong) == 2
    assert "no 'parms' in it, but ['params', 'params_ema']" in capsys.readouterr().err
    assert train(name='../edvr') == 2
    assert "name: '../edvr' names a folder below experiments" in capsys.readouterr().err
    bare = {'name': 'bare', 'path.pretrain_network_g': 'bare.pth', 'path.param_key_g': '~', 'train.ema_decay': 0}
    assert train(**bare) == 0
    assert train('--auto_resume', **bare, **{'train.total_iter': 3}) == 0
