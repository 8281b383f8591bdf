import math

import pytest
import torch

from jddb_plugin import DPBM, TemperatureHook
from jddb_plugin.checks import OptionError
from jddb_plugin.hooks import HOOK_REGISTRY, Hook, LossWeightHook, build_hooks, build_schedule


def test_step_changes_after_its_milestones():
    schedule = build_schedule('step', milestones=[3, 5], values=[1, 2, 3])
    assert [schedule(i) for i in range(1, 8)] == [1, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(('name', 'middle'), [('linear', 0.505), ('cosine', 0.505), ('exponential', 0.1)])
def test_ramps_start_end_and_pass_their_middle(name, middle):
    schedule = build_schedule(name, start=1.0, stop=0.01, begin=10, end=30)
    assert schedule(1) == schedule(10) == pytest.approx(1.0)
    assert schedule(30) == schedule(1000) == pytest.approx(0.01)
    assert schedule(20) == pytest.approx(middle)
    values = [schedule(i) for i in range(10, 31)]
    assert values == sorted(values, reverse=True)


def test_cosine_is_flat_at_both_ends():
    schedule = build_schedule('cosine', start=1.0, stop=0.0, end=100)
    assert schedule(25) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


@pytest.mark.parametrize(('options', 'message'), [
    (dict(schedule='cosin', start=1, stop=0, end=2), "did you mean 'cosine'"),
    (dict(schedule='step', milestones=[5, 3], values=[1, 2, 3]), 'ascending milestones'),
    (dict(schedule='step', milestones=[5], values=[1]), 'one value more'),
    (dict(schedule='linear', start=1, stop=0, end=0), 'begin < end'),
    (dict(schedule='exponential', start=1, stop=0, end=5), 'must be positive'),
    (dict(schedule='linear', start=1, stop=0, finish=5), 'finish'),
])
def test_wrong_schedules_are_named(options, message):
    with pytest.raises(OptionError, match=message):
        build_schedule(**options)


class _Model:
    def __init__(self):
        self.net_g = torch.nn.Sequential(DPBM())
        self.cri_bm = torch.nn.Module()
        self.cri_bm.loss_weight = 5.0
        self.cri_pix = torch.nn.Module()
        self.cri_pix.loss_weight = 1.0

    def get_bare_model(self, net):
        return net


def test_hooks_set_what_they_name():
    model = _Model()
    hooks = build_hooks([
        {'type': 'TemperatureHook', 'schedule': 'step', 'milestones': [2], 'values': [0.01, 0.001]},
        {'type': 'LossWeightHook', 'loss': 'bm_opt', 'schedule': 'linear', 'start': 10, 'stop': 0, 'end': 10},
        {'type': 'LossWeightHook', 'loss': 'pixel_opt', 'schedule': 'step', 'milestones': [], 'values': [7]},
    ])
    for hook in hooks:
        hook.before_step(model, 5)
    assert model.net_g[0].temperature == 0.001
    assert model.cri_bm.loss_weight == 5.0
    assert model.cri_pix.loss_weight == 7
    log = {key: value for hook in hooks for key, value in hook.log().items()}
    assert log == {'temperature': 0.001, 'weight_bm': 5.0, 'weight_pixel': 7}


def test_a_hook_without_its_target_says_so():
    model = _Model()
    model.net_g = torch.nn.Conv2d(1, 1, 1)
    with pytest.raises(OptionError, match='no module with a temperature'):
        TemperatureHook('step', milestones=[], values=[1]).before_step(model, 1)
    with pytest.raises(OptionError, match="no loss 'one_hot_opt'"):
        LossWeightHook('one_hot_opt', 'step', milestones=[], values=[1]).before_step(model, 1)


def test_wrong_entries_are_named():
    with pytest.raises(OptionError, match=r"train.hooks\[0\]: unknown hook 'TempratureHook'; did you mean 'TemperatureHook'"):
        build_hooks([{'type': 'TempratureHook'}])
    with pytest.raises(OptionError, match=r"train.hooks\[0\]: expected a mapping with a 'type'"):
        build_hooks(['TemperatureHook'])
    with pytest.raises(OptionError, match=r'train.hooks\[0\] .LossWeightHook.: .*loss'):
        build_hooks([{'type': 'LossWeightHook'}])


def test_own_hooks_can_be_registered():
    @HOOK_REGISTRY.register()
    class _CountingHook(Hook):
        count = 0

        def after_step(self, model, current_iter):
            self.count += 1

    hook, = build_hooks([{'type': '_CountingHook'}])
    hook.before_step(None, 1)
    hook.after_step(None, 1)
    assert hook.count == 1
