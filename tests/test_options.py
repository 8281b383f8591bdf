import copy
from dataclasses import dataclass
from typing import Optional

import pytest
from basicsr.archs import build_network
from basicsr.losses import build_loss

from jddb_plugin.checks import OptionError
from jddb_plugin.compat.options import check_options
from jddb_plugin.config import load_options
from jddb_plugin.options import Options, option
from jddb_plugin.restoration import Settings

from .conftest import ROOT

#: What is merged on top of others, and no file by itself.
OVERLAYS = {ROOT / 'options' / 'train' / name for name in (
    'tables/small/base.yml', 'tables/claims/base.yml')}
FILES = sorted(set((ROOT / 'options').rglob('*.yml')) - OVERLAYS)


def _load(name='train/demo_two_stage.yml'):
    return load_options(str(ROOT / 'options' / name))


@pytest.mark.usefixtures('random_vgg')
@pytest.mark.parametrize('path', FILES, ids=lambda p: p.stem + '-' + p.parent.name)
def test_every_option_file_is_valid_and_its_parts_can_be_built(path):
    is_train = 'train' in path.relative_to(ROOT).parts
    opt = check_options(load_options(str(path)), is_train=is_train)
    build_network(opt['network_g'])
    for key, value in (opt.get('train') or {}).items():
        if key.endswith('_opt') and value:  # a variant may have dropped it
            build_loss(value)


def _change(opt, key, value):
    keys = key.split('.')
    for part in keys[:-1]:
        opt = opt[part]
    if value is KeyError:
        del opt[keys[-1]]
    else:
        opt[keys[-1]] = value


@pytest.mark.parametrize(('key', 'value', 'message'), [
    ('model_type', 'JDDModel', "model_type: 'JDDModel' is not registered; did you mean 'JDDBModel'"),
    ('model_type', KeyError, "'model_type' is missing"),
    ('netwrok_g', {}, "options: unknown key 'netwrok_g'; did you mean 'network_g'"),
    ('network_g.type', 'TwoStageJDB', "did you mean 'TwoStageJDDB'"),
    ('train', 5, "section 'train' is missing or not a mapping"),
    ('val', True, "section 'val' is missing or not a mapping"),
    ('network_g.num_feats', 8, "network_g: unknown key 'num_feats'; did you mean 'num_feat'"),
    ('path.pretrained_network_g', 'x', "did you mean 'pretrain_network_g'"),
    ('train.totel_iter', 10, "train: unknown key 'totel_iter'; did you mean 'total_iter'"),
    ('train.total_iter', KeyError, 'train.total_iter: expected a positive whole number, got None'),
    ('train.total_iter', '10', "expected a positive whole number, got '10'"),
    ('train.total_iter', 2000, 'train.scheduler.periods: add up to'),
    ('train.pixel_opt', KeyError, "train: 'pixel_opt' is missing"),
    ('train.pixel_opt.wieght', 1, "train.pixel_opt: unknown key 'wieght'"),
    ('train.hooks', [{'type': 'TemperatureHok'}], "did you mean 'TemperatureHook'"),
    ('logger.print_frequency', 1, "logger: unknown key 'print_frequency'; did you mean 'print_freq'"),
    ('datasets.train.gt_sise', 64, "datasets.train: unknown key 'gt_sise'; did you mean 'gt_size'"),
    ('datasets.train.gt_size', '64', 'datasets.train.gt_size: expected an integer'),
    ('datasets.train.dataroot_gt', KeyError, "datasets.train: 'dataroot_gt' is missing"),
    ('datasets.train.batch_size_per_gpu', 0, 'datasets.train.batch_size_per_gpu: expected an integer, got 0'),
    ('datasets.train.exclude_clips', [11], 'expected a list of text'),
    ('datasets.training', {}, 'datasets.training: unknown phase'),
    ('datasets', KeyError, "section 'datasets' is missing"),
    ('num_gpu', 64, 'num_gpu: 64 asked for'),
])
def test_wrong_options_are_named(key, value, message):
    opt = _load()
    _change(opt, key, value)
    with pytest.raises(OptionError) as error:
        check_options(opt, is_train=True)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_noise_of_a_test_has_no_default():
    opt = _load('test/demo_two_stage.yml')
    del opt['datasets']['test']['noise']
    with pytest.raises(OptionError, match="datasets.test: 'noise' is missing"):
        check_options(opt, is_train=False)


def test_unknown_metric_keys_are_named():
    opt = _load('test/demo_two_stage.yml')
    opt['val']['metrics']['psnr']['type'] = 'calculate_pnsr'
    with pytest.raises(OptionError, match="metrics.psnr.type: 'calculate_pnsr' is not .*; did you mean 'calculate_psnr'"):
        check_options(opt, is_train=False)


def test_misspelt_metric_keys_are_named():
    opt = _load('test/demo_two_stage.yml')
    opt['val']['metrics']['psnr']['test_y_chanel'] = True
    with pytest.raises(OptionError, match="val.metrics.psnr: unknown key 'test_y_chanel'; did you mean 'test_y_channel'"):
        check_options(opt, is_train=False)


def test_recipe_is_the_papers():
    opt = _load('train/jddb_reds.yml')
    assert opt['train']['total_iter'] == 600000 == sum(opt['train']['scheduler']['periods'])
    assert (opt['train']['optim_g']['lr'], opt['train']['optim_g']['lr_coarse']) == (1e-4, 1e-5)
    weights = [opt['train'][key]['loss_weight'] for key in ('interpolation_opt', 'one_hot_opt', 'bm_opt')]
    assert weights == [1.0, 1e5, 1e3]
    assert opt['datasets']['train']['gt_size'] == 720 and opt['datasets']['train']['batch_size'] == 4
    assert opt['network_g']['num_feat'] == 64
    assert not {'precision', 'compile', 'max_grad_norm', 'ema_decay'} & opt['train'].keys()


def test_todays_practice_differs_by_its_switches_alone():
    paper, modern = _load('train/jddb_reds.yml'), _load('train/jddb_reds_modern.yml')
    switches = {key: modern['train'].pop(key) for key in ('precision', 'compile', 'max_grad_norm', 'max_skipped', 'ema_decay')}
    assert switches['precision'] == 'bf16' and modern.pop('channels_last') and modern.pop('name') == 'jddb_reds_modern'
    practice = {'type': 'AdamW', 'fused': True, 'weight_decay': 1e-4}
    assert modern['train'].pop('optim_g') == {**paper['train'].pop('optim_g'), **practice}
    del paper['name']
    assert modern == paper


def test_checking_does_not_need_what_it_fills_in():
    opt = _load('test/demo_two_stage.yml')
    bare = copy.deepcopy(opt)
    del bare['val'], bare['path'], bare['num_gpu']
    checked = check_options(bare, is_train=False)
    assert checked['val'] == {'save_img': False, 'suffix': None, 'metrics': None}
    assert checked['num_gpu'] == 'auto'


@dataclass(frozen=True)
class _Sizes(Options):
    tile: int = option(8, help='side')
    scale: Optional[float] = None
    name: str = option('a', parse=str.upper)
    pair: tuple[float, float] = (0, 1)

    def check(self):
        if self.tile < 1:
            raise OptionError(f'expected at least 1, got {self.tile}.', field='tile')


def test_options_are_checked_when_they_are_made():
    assert _Sizes(tile=4, scale=2, pair=[1, 2]).tile == 4
    for wrong, message in (
            ({'tile': '64'}, "^tile: expected an integer, got '64'"), ({'tile': True}, 'tile: expected an integer'),
            ({'scale': 'x'}, 'scale: expected a number or nothing'), ({'tile': 0}, '^tile: expected at least 1'),
            ({'pair': (1, 2, 3)}, r'pair: expected \(a number, a number\)'), ({'name': None}, 'name: expected text')):
        with pytest.raises(OptionError, match=message):
            _Sizes(**wrong)


def test_options_of_a_section_name_it():
    assert _Sizes.read({'tile': 3, 'type': 'x'}, 'a.b', ignore=('type',)) == _Sizes(tile=3)
    for wrong, message in (({'tile': 0}, '^a.b.tile: expected at least 1'), ({'tile': '1'}, '^a.b.tile: expected an integer'),
                           ({'tiel': 1}, "^a.b: unknown key 'tiel'; did you mean 'tile'")):
        with pytest.raises(OptionError, match=message):
            _Sizes.read(wrong, 'a.b')


def test_texts_of_a_command_line_are_parsed():
    assert _Sizes.parse({'tile': '12', 'scale': '1e-1', 'name': 'b'}) == _Sizes(tile=12, scale=0.1, name='B')
    for name, text in (('tile', '1.5'), ('tile', ''), ('tile', '9' * 5000), ('scale', 'big')):
        with pytest.raises(OptionError, match=f'^{name}: expected'):
            _Sizes.parse({name: text})


def test_settings_accept_from_python_what_the_command_line_does():
    assert Settings(noise='low').noise == (2.5e-3, 1e-2) and Settings(memory='2G').memory == 2 << 30
    for wrong, message in (
            ({'tile': '64'}, "^tile: expected an integer or nothing .*, got '64'"), ({'noise': None}, '^noise: expected'),
            ({'reference': -1}, '^reference: expected the index'), ({'noise': 'lo'}, "^noise: expected 'metadata', .* got 'lo'"),
            ({'noise': (0.1, 2.0)}, '^noise: shot and read must be in 0 .. 1'), ({'memory': 'x'}, '^memory: expected a size'),
            ({'reference': 'first'}, "^reference: 'first' is not a valid choice"), ({'tile': 6}, '^tile: expected a multiple')):
        with pytest.raises(OptionError, match=message):
            Settings(**wrong)


def test_a_stock_model_does_not_score_raw_bursts_unless_that_is_asked_for():
    opt = _load('test/demo_two_stage.yml')
    opt.update(model_type='VideoBaseModel', network_g={'type': 'GatedUNet'})
    with pytest.raises(OptionError, match="'VideoBaseModel' would score the raw bursts of 'unseen' .*its psnr and ssim .*"
                                          'model_type: BurstModel, or set val.linear_scores: true'):
        check_options(copy.deepcopy(opt), is_train=False)
    opt['val']['linear_scores'] = 'yes'
    with pytest.raises(OptionError, match="val.linear_scores: expected true or false, got 'yes'"):
        check_options(copy.deepcopy(opt), is_train=False)
    opt['val']['linear_scores'] = True
    check_options(copy.deepcopy(opt), is_train=False)
    del opt['val']['linear_scores'], opt['val']['metrics']
    check_options(opt, is_train=False)
    check_options(_load('test/demo_two_stage.yml'), is_train=False)


def test_our_models_have_no_linear_scores():
    opt = _load('test/demo_two_stage.yml')
    opt['val']['linear_scores'] = True
    with pytest.raises(OptionError, match="val: unknown key 'linear_scores'"):
        check_options(opt, is_train=False)
