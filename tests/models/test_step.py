"""The step's switches, what happens when something is not finite, and what is told about a step."""
import json
import math
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from basicsr.models import build_model

from jddb_plugin.archs.jddb_arch import TwoStageJDDB
from jddb_plugin.checks import OptionError, TrainingError
from jddb_plugin.compat.options import check_options
from jddb_plugin.config import load_options
from jddb_plugin.models.step import SkipCounter, StepOptions, clip_gradients, joined_loss, joined_values
from jddb_plugin.ops.block_matching import Search, match_entropy
from jddb_plugin.ops.camera import Camera
from jddb_plugin.train import main

from ..small_run import equal, validation, weights, write_options


@pytest.fixture(autouse=True)
def _workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _model(options, **changes):
    overrides = [(key, value) for key, value in changes.items()]
    opt = check_options(load_options(options, overrides), is_train=True)
    opt.update(is_train=True, dist=False, rank=0, world_size=1, num_gpu=0)
    torch.manual_seed(0)
    return build_model(opt)


def _batch():
    generator = torch.Generator().manual_seed(1)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    return {'lq': torch.cat([rand(2, 5, 4, 32, 32), 0.05 * rand(2, 5, 4, 32, 32)], dim=2), 'gt': rand(2, 3, 64, 64),
            'clean': rand(2, 5, 4, 32, 32), 'positions': torch.tensor([[0, 4], [8, 16]]),
            'camera': Camera(torch.ones(2), torch.full((2,), 2.0), torch.full((2,), 1.7), torch.eye(3).expand(2, 3, 3))}


def _steps(model, count=1, batch=None):
    for iteration in range(1, count + 1):
        model.feed_data(batch or _batch())
        for hook in model.hooks:
            hook.before_step(model, iteration)
        model.optimize_parameters(iteration)
    return model


@pytest.fixture
def options(texture_lmdb, tmp_path):
    return write_options(tmp_path, texture_lmdb, train={'total_iter': 4, 'warmup_iter': -1, 'ema_decay': 0.9})


def test_bfloat16_stays_near_float32(options):
    """Matching, sampling and losses are in float32: the match is the same, gradients point the same way."""
    models = [_model(options, **{'train.precision': precision}) for precision in ('float32', 'bf16')]
    seen = {}
    for model, name in zip(models, ('float32', 'bf16')):
        dtypes = []
        model.net_g.refine.reconstruct.register_forward_hook(lambda m, i, o, d=dtypes: d.append(o.dtype))
        model.net_g.coarse.downsample[-1].register_forward_hook(lambda m, i, o, d=dtypes: d.append(o.dtype))
        _steps(model)
        gradient = torch.cat([p.grad.flatten() for p in model.net_g.parameters()])
        assert gradient.dtype == torch.float32
        seen[name] = dtypes, gradient, model.get_current_log()
    assert seen['float32'][0] == [torch.float32, torch.float32] and seen['bf16'][0] == [torch.float32, torch.bfloat16]
    assert torch.cosine_similarity(seen['float32'][1], seen['bf16'][1], dim=0) > 0.99
    assert seen['bf16'][2]['match_entropy'] == seen['float32'][2]['match_entropy']
    assert seen['bf16'][2]['l_pix'] == pytest.approx(seen['float32'][2]['l_pix'], rel=0.02)
    assert seen['bf16'][2]['l_pix'] != seen['float32'][2]['l_pix']


def test_each_stage_is_clipped_as_a_whole(options):
    """The matching's losses are large; they must not scale down what the rest of the network learns."""
    free, clipped = _steps(_model(options)), _steps(_model(options, **{'train.max_grad_norm': 10.0}))
    groups = zip(free.optimizer_g.param_groups, clipped.optimizer_g.param_groups)
    for name, (group, ours) in zip(('grad_norm', 'grad_norm_coarse'), groups):
        norm = free.get_current_log()[name]
        assert norm > 20 and clipped.get_current_log()[name] == pytest.approx(norm)
        assert norm == pytest.approx(float(torch.cat([p.grad.flatten() for p in group['params']]).norm()), rel=1e-4)
        for p, q in zip(ours['params'], group['params']):
            torch.testing.assert_close(p.grad, q.grad * (10 / norm), rtol=1e-4, atol=1e-8)
    values = [torch.tensor([3.0]), torch.tensor([4.0])]
    parameters = [torch.nn.Parameter(v.clone()) for v in values]
    for p, v in zip(parameters, values):
        p.grad = v.clone()
    assert clip_gradients(parameters, None) == 5 and parameters[0].grad == 3


@pytest.mark.parametrize('broken', ['loss', 'gradient'])
def test_a_step_that_is_not_finite_is_skipped_and_counted(options, broken, caplog):
    model = _model(options, **{'train.max_skipped': 2})
    before = {key: value.clone() for key, value in model.net_g.state_dict().items()}
    averaged = {key: value.clone() for key, value in model.net_g_ema.state_dict().items()}
    bad = _batch()
    if broken == 'loss':
        bad['gt'][0, 0, 3, 20] = math.nan
    else:
        model.net_g.refine.extract[0][0].weight.register_hook(lambda g: g * math.inf)
    for k in (1, 2):
        _steps(model, batch=bad)
        assert model.get_current_log()['skipped_steps'] == k
        assert equal(before, model.net_g.state_dict()) and equal(averaged, model.net_g_ema.state_dict())
        assert not model.optimizer_g.state
    with pytest.raises(TrainingError, match='iteration 1: training has diverged, 3 steps in a row .*Not finite: .*grad_norm'):
        _steps(model, batch=bad)
    if broken == 'loss':
        model.skipped.in_a_row = 1
        _steps(model)  # a good one starts the count anew
        assert model.skipped.in_a_row == 0 and model.get_current_log()['skipped_steps'] == 3
        assert not equal(before, model.net_g.state_dict())


def test_a_run_that_diverges_ends_with_its_last_checkpoint(options, capsys, monkeypatch):
    step = torch.optim.Adam.step
    taken = []

    def explode(self, *args, **kwargs):
        step(self, *args, **kwargs)
        taken.append(1)
        if len(taken) == 2:
            self.param_groups[0]['params'][0].data.fill_(math.inf)

    monkeypatch.setattr(torch.optim.Adam, 'step', explode)
    assert main(['-opt', options, '--set', 'train.total_iter=20', 'train.max_skipped=3', 'logger.save_checkpoint_freq=1']) == 2
    assert re.search(r'error: iteration 6: training has diverged, 4 steps in a row', capsys.readouterr().err)
    assert torch.isfinite(weights('experiments/small', 'net_g_1.pth')['refine.extract.0.0.weight']).all()


def test_compiled_steps_are_the_same(options):
    plain, compiled = _model(options), _model(options, **{'train.compile': True})
    assert compiled.net_g.refine._compiled_call_impl is not None
    assert compiled.net_g.state_dict().keys() == plain.net_g.state_dict().keys()  # no _orig_mod
    refine = compiled.net_g.refine  # one graph without breaks; the backend that needs no compiler
    refine._compiled_call_impl = torch.compile(refine._call_impl, backend='aot_eager', fullgraph=True)
    for model in (plain, compiled):
        _steps(model)
    assert compiled.get_current_log() == pytest.approx(plain.get_current_log(), rel=1e-3, abs=1e-6)
    for ours, theirs in zip(compiled.net_g.parameters(), plain.net_g.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-2)


def test_a_term_of_weight_0_stays_in_the_graph_for_nothing(options, monkeypatch):
    """DDP needs every parameter in the graph; the clean burst is not searched."""
    with_weight, without = _model(options), _model(options)
    without.cri_bm.loss_weight = 0
    without.hooks = [hook for hook in without.hooks if 'weight_bm' not in hook.log()]
    calls = []
    monkeypatch.setattr(type(without), '_clean_distances', lambda *_: calls.append(1))
    _steps(without)
    assert not calls and without.get_current_log()['l_bm'] == 0
    monkeypatch.undo()
    _steps(with_weight)
    assert with_weight.get_current_log()['l_bm'] > 0
    assert all(p.grad is not None for p in without.net_g.parameters())


@pytest.mark.parametrize(('coarse', 'refined'), [('dpbm', 'dcn'), ('dpbm', 'none'), ('none', 'dcn'), ('none', 'none'),
                                                 ('block_matching', 'dcn')])
@pytest.mark.parametrize('interpolation', [True, False])
def test_no_parameter_is_unused_in_any_variant(coarse, refined, interpolation):
    """DDP without find_unused_parameters waits forever for a gradient that does not come."""
    net = TwoStageJDDB(8, 2, coarse, refined, {'radius': 2}).train()
    output = net(_batch()['lq'], _batch()['positions'], tile=16)
    loss = output.restored.sum() + (output.interpolated.sum() if interpolation else 0)
    loss.backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    assert output.offset_size.shape == ((3,) if refined == 'dcn' else (0,)) and not output.offset_size.requires_grad


def test_offset_sizes_are_means_of_what_moves_the_samples():
    net = TwoStageJDDB(8, 2, 'none', 'dcn')
    with torch.no_grad():
        for level, value in ((net.refine.align.level1, 1.5), (net.refine.align.level2, -2.0), (net.refine.align.level3, 0.25)):
            level.dcn.conv_offset.bias.fill_(value)
    assert net(_batch()['lq'], _batch()['positions'], tile=16).offset_size.tolist() == [1.5, 2.0, 0.25]


def test_entropy_of_a_match():
    """0 for one-hot, 1 for uniform over the valid candidates, the mean over searches that have a choice."""
    weight = torch.zeros(1, 1, 4, 8)
    valid = torch.ones(1, 1, 4, 8, dtype=torch.bool)
    weight[0, 0, 0, 3] = 1
    weight[0, 0, 1] = 1 / 8
    valid[0, 0, 2, 2:] = False
    weight[0, 0, 2, :2] = torch.tensor([0.9, 0.1])
    valid[0, 0, 3, 1:] = False
    weight[0, 0, 3, 0] = 1  # no choice: does not count
    search = Search(torch.zeros(1, 1, 4, 2), weight, valid, weight)
    third = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / math.log(2)
    assert match_entropy(search).item() == pytest.approx((0 + 1 + third) / 3)


def test_sums_and_means_of_one_process_are_themselves():
    terms = OrderedDict(l_a=torch.tensor(2.0), l_b=torch.tensor(3.0))
    assert joined_loss(terms, ['l_a']) == 5
    assert joined_values(terms, ['l_a']) == {'l_a': 2, 'l_b': 3}


def test_several_processes_add_up_sums_and_average_means(monkeypatch):
    from jddb_plugin.models import step
    monkeypatch.setattr(step.processes, 'is_distributed', lambda: True)
    monkeypatch.setattr(step.dist, 'get_world_size', lambda: 4)
    monkeypatch.setattr(step.dist, 'all_reduce', lambda tensor: tensor.mul_(4))  # four equal processes
    terms = OrderedDict(l_a=torch.tensor(2.0), l_b=torch.tensor(3.0))
    assert joined_loss(terms, ['l_a']) == 11  # DDP divides by 4: 2 + 3 / 4 per process, 8 / 4 + 3 / 4
    assert joined_values(terms, ['l_a']) == {'l_a': 8, 'l_b': 3}


@pytest.mark.usefixtures('random_vgg')
def test_the_toolboxs_perceptual_loss_sees_developed_pictures(options):
    loss = {'type': 'PerceptualLoss', 'layer_weights': {'conv1_2': 1.0}, 'style_weight': 0.5, 'criterion': 'l1'}
    model = _steps(_model(options, **{'train.perceptual_opt': loss}))
    log = model.get_current_log()
    assert log['l_percep'] > 0 and log['l_style'] > 0
    parts = [value for name, value in log.items() if name.startswith('l_') and name != 'l_total']
    assert log['l_total'] == pytest.approx(sum(parts))
    seen = []
    model.cri_perceptual.register_forward_pre_hook(lambda module, images: seen.extend(images))
    model.perceptual_losses(model.gt, model.gt)
    developed = model.batch['camera'].develop(model.gt, tone_curve=True)
    torch.testing.assert_close(seen[1].clamp(0, 1), developed, rtol=0, atol=0.05)


@pytest.mark.parametrize(('change', 'message'), [
    ({'precision': 'fp16'}, "train.precision: 'fp16' is not a valid choice"), ({'max_grad_norm': 0}, 'must be positive, got 0'),
    ({'max_skipped': -1}, 'must be at least 0'), ({'compile': 'yes please'}, 'expected true or false'),
    ({'precison': 'bf16'}, "unknown key 'precison'; did you mean 'precision'"),
])
def test_bad_switches_are_named(options, change, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        _model(options, **{f'train.{key}': value for key, value in change.items()})


def test_defaults_are_the_plain_step():
    assert StepOptions() == StepOptions('float32', False, None, 10)
    counter = SkipCounter(0)
    assert counter.accepts({'a': 1.0}, 1)
    with pytest.raises(TrainingError, match='1 steps in a row'):
        counter.accepts({'a': math.inf}, 2)


def test_the_log_and_tensorboard_tell_how_it_goes(texture_lmdb, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    data, val = validation(texture_lmdb, pictures=True, matching_figure=True)
    first = write_options(tmp_path, texture_lmdb, val=val, train={'total_iter': 2, 'ema_decay': 0.9, 'max_grad_norm': 1.0e6},
                          logger={'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': True},
                          datasets={'train': {'dataroot_gt': str(texture_lmdb), 'gt_size': 48, 'num_worker_per_gpu': 0,
                                              'dataset_enlarge_ratio': 1}, 'val': data})
    assert main(['-opt', first, '--set', 'datasets.val_2=' + json.dumps({**data, 'name': 'again', 'clips': ['b']})]) == 0
    events = EventAccumulator('tb_logger/small', size_guidance={'images': 0})
    events.Reload()
    tags = events.Tags()
    scalars = {'losses/l_pix', 'losses/l_interpolation', 'losses/l_one_hot', 'losses/l_bm', 'losses/l_total', 'grad_norm',
               'dcn_offset_l1', 'dcn_offset_l2', 'dcn_offset_l3', 'match_entropy', 'match_entropy_fine', 'temperature',
               'weight_bm', 'iterations_per_second', 'samples_per_second', 'data_wait', 'peak_memory_gb',
               'metrics/clips/psnr_all/average', 'metrics/again/psnr_center/b'}
    assert scalars <= set(tags['scalars'])
    assert {event.step for event in events.Scalars('metrics/clips/psnr_all/average')} == {2}
    speed = events.Scalars('samples_per_second')[-1].value / events.Scalars('iterations_per_second')[-1].value
    assert speed == pytest.approx(2)
    assert 0 <= events.Scalars('data_wait')[-1].value < 1 and events.Scalars('peak_memory_gb')[-1].value > 0.1
    assert set(tags['images']) == {f'{kind}/{name}/{clip}' for kind in ('restored', 'matching')
                                   for name, clip in (('clips', 'a'), ('clips', 'b'), ('again', 'b'))}
    picture = events.Images('restored/clips/a')[0]
    assert (picture.width, picture.height) == (3 * 112, 96)
    assert Path('experiments/small/validation.jsonl').read_text().count('"again"') == 2
