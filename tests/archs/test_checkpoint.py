import pytest
import torch

from jddb_plugin import TwoStageJDDB
from jddb_plugin.checks import CheckpointError, JDDBError, OptionError
from jddb_plugin.weights import load_weights

_FIRST = 'refine.extract.0.0.weight'
_OFFSETS = 'refine.align.level1.dcn.conv_offset.weight'
_DPBM = {'radius': 1, 'stride': 1}


def _net(**options):
    return TwoStageJDDB(**{'num_feat': 8, 'deformable_groups': 4, 'dpbm': _DPBM, **options}).eval()


@pytest.fixture(scope='module')
def state():
    torch.manual_seed(0)
    return _net().state_dict()


@pytest.mark.parametrize(('num_feat', 'groups'), [(8, 1), (8, 4), (12, 3)])
@pytest.mark.parametrize('refined', ['dcn', 'none'])
@pytest.mark.parametrize('coarse', ['dpbm', 'block_matching', 'none'])
def test_shapes_tell_the_network(num_feat, groups, refined, coarse):
    state = _net(num_feat=num_feat, deformable_groups=groups, refined=refined, coarse=coarse).state_dict()
    expected = {'num_feat': num_feat, 'deformable_groups': groups if refined == 'dcn' else 1, 'refined': refined}
    if coarse == 'dpbm':
        expected['coarse'] = 'dpbm'
    assert TwoStageJDDB.detect(state) and TwoStageJDDB.options_of(state, 'here') == expected


@pytest.mark.parametrize('refined', ['dcn', 'none'])
@pytest.mark.parametrize('coarse', ['dpbm', 'block_matching', 'none'])
def test_a_loaded_network_is_the_saved_one(tmp_path, coarse, refined):
    net = _net(coarse=coarse, refined=refined).requires_grad_(False)
    path = str(tmp_path / 'net.pth')
    torch.save({'params': net.state_dict()}, path)
    loaded = load_weights(path, coarse=None if coarse == 'dpbm' else coarse, dpbm=_DPBM)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    lq = torch.rand(1, 2, 8, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(loaded(lq, tile=16), net(lq, tile=16), rtol=0, atol=0)


def test_the_average_comes_first_then_params_then_the_bare_dict(tmp_path, state):
    path = str(tmp_path / 'net.pth')

    def saved(value):
        return {**state, _FIRST: torch.full_like(state[_FIRST], value)}

    for content, expected in (({'params': saved(1), 'params_ema': saved(2)}, 2), ({'params': saved(1)}, 1), (saved(3), 3),
                              ({f'module.{key}': value for key, value in saved(4).items()}, 4)):
        torch.save(content, path)
        assert (load_weights(path).refine.extract[0][0].weight == expected).all()


def test_the_learned_coarse_stage_can_be_left_unused(tmp_path, state):
    path = str(tmp_path / 'net.pth')
    torch.save(state, path)
    assert load_weights(path).coarse.downsample is not None
    assert load_weights(path, coarse='block_matching').coarse.downsample is None
    assert load_weights(path, coarse='none').coarse is None


def _without(state, *prefixes):
    return {key: value for key, value in state.items() if not key.startswith(prefixes)}


_REFUSED = {
    'a training state': (lambda s: {'epoch': 0, 'iter': 300, 'optimizers': [], 'schedulers': []}, 'models/net_g_300.pth'),
    'the release': (lambda s: {'module.ConvBGRU.conv_1x1.weight': torch.ones(1), 'feature_up.bias': torch.ones(1)},
                    'jddb convert'),
    "the release's downsampler": (lambda s: {'simple_block.0.weight': torch.ones(1)}, 'jddb convert'),
    'another network': (lambda s: {'params': {f'pcd_align.{i}': torch.ones(1) for i in range(5)}},
                        "another network, which holds 'pcd_align.0', 'pcd_align.1', 'pcd_align.2' and 2 more; expected one of "),
    'one key too many': (lambda s: {**s, 'refine.more': torch.ones(1)}, "TwoStageJDDB has no 'refine.more'"),
    'another layout': (lambda s: {'state_dict': {}, 'hyper_parameters': {}}, "found 'state_dict', 'hyper_parameters'"),
    'nothing': (lambda s: {}, 'found nothing'),
    'no first layer': (lambda s: _without(s, _FIRST), f"incomplete, '{_FIRST}' is missing"),
    'no offsets': (lambda s: _without(s, _OFFSETS), f"incomplete, '{_OFFSETS}' is missing"),
    'no fusion': (lambda s: _without(s, 'refine.fuse.'), "incomplete, 'refine.fuse.cell.update.weight', "),
    'half the matching': (lambda s: _without(s, 'coarse.downsample.0'), "'coarse.downsample.0.weight' missing"),
    'raw without noise map': (lambda s: {**s, _FIRST: torch.ones(8, 4, 3, 3)}, 'expected [num_feat, 8, 3, 3]'),
    'flat': (lambda s: {**s, _FIRST: torch.ones(8)}, 'expected four dimensions'),
    'no whole group': (lambda s: {**s, _OFFSETS: torch.ones(54 + 18, 8, 3, 3)}, 'has 72 rows, expected 27'),
    'groups that do not divide': (lambda s: {**s, _OFFSETS: torch.ones(81, 8, 3, 3)}, 'divides 8 features'),
    'wrong shape': (lambda s: {**s, 'refine.fuse.join.bias': torch.ones(9)}, "'refine.fuse.join.bias' is [9], expected [8]"),
    'not a number': (lambda s: {**s, 'refine.fuse.join.bias': torch.full((8,), torch.nan)}, "'refine.fuse.join.bias' holds"),
    'integers': (lambda s: {**s, 'refine.fuse.join.bias': torch.ones(8, dtype=torch.int64)}, 'not finite numbers'),
}


@pytest.mark.parametrize('case', _REFUSED)
def test_what_is_not_its_checkpoint_is_refused_in_one_line(tmp_path, state, case):
    make, message = _REFUSED[case]
    path = str(tmp_path / 'net.pth')
    torch.save(make(state), path)
    with pytest.raises(CheckpointError) as error:
        load_weights(path)
    assert str(error.value).startswith(path) and message in str(error.value) and '\n' not in str(error.value)


def test_files_that_cannot_be_read_are_refused(tmp_path, state):
    path = tmp_path / 'net.pth'
    with pytest.raises(CheckpointError, match='no such checkpoint'):
        load_weights(str(path))
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match='truncated'):
        load_weights(str(path))


def test_the_coarse_stage_must_be_told_where_the_checkpoint_does_not(tmp_path, state):
    path = str(tmp_path / 'net.pth')
    torch.save(_without(state, 'coarse.'), path)
    with pytest.raises(JDDBError, match='--coarse block_matching or --coarse none'):
        load_weights(path)
    with pytest.raises(CheckpointError, match='holds no matching features'):
        load_weights(path, coarse='dpbm')
    with pytest.raises(OptionError, match="'block_matchin' is not a valid choice; did you mean 'block_matching'"):
        load_weights(path, coarse='block_matchin')
    with pytest.raises(OptionError, match="unknown key 'raduis'"):
        load_weights(path, coarse='none', dpbm={'raduis': 3})
