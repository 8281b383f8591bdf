import copy
import importlib.util
import subprocess
import sys

import pytest
import torch
from torch import nn

from jddb_plugin import TwoStageJDDB
from jddb_plugin.archs.dpbm_arch import SCALE
from jddb_plugin.archs.pixel_align import DeformConvPack
from jddb_plugin.archs.tiled import process_tiles
from jddb_plugin.checks import DataError, ExportError, OptionError
from jddb_plugin.cli.main import main
from jddb_plugin.ops import deform_conv
from jddb_plugin.ops.tiling import make_grid
from jddb_plugin.restoration.export import TOLERANCE, compare_refined, export_refined, is_new_enough, open_refined

from ..conftest import ROOT

if not is_new_enough():
    pytest.skip(f'torch {torch.__version__} cannot export the network', allow_module_level=True)
_MISSING = [name for name in ('onnx', 'onnxscript', 'onnxruntime') if importlib.util.find_spec(name) is None]
_REASON = f'not installed: {", ".join(_MISSING)} (pip install "jddb_plugin[export]")'
needs_onnx = pytest.mark.skipif(bool(_MISSING), reason=_REASON)
_SIZE = (16, 24)


def _has_deform_conv():
    import onnxruntime
    return tuple(int(part) for part in onnxruntime.__version__.split('.')[:2]) >= (1, 25)


def _layers(net):
    return [layer for layer in net.modules() if isinstance(layer, DeformConvPack)]


def _net(**options):
    """A small network whose offsets, which start at zero, are of 1 to 3 px and differ by group, tap and place."""
    torch.manual_seed(1)
    net = TwoStageJDDB(**{'num_feat': 8, 'deformable_groups': 4, 'coarse': 'none',
                          'dpbm': {'radius': 1, 'stride': 1}, **options}).eval().requires_grad_(False)
    for layer in _layers(net):
        nn.init.normal_(layer.conv_offset.weight, std=0.1)
        nn.init.normal_(layer.conv_offset.bias, std=2)
        layer.weight *= 4
    if net.refine.align is not None:
        sizes = net.refine(torch.rand(1, 3, 8, *_SIZE), 1).offset_size
        assert ((sizes > 1) & (sizes < 3)).all(), sizes
    return net


_CASES = {
    'grid_sample, open size': ('onnx', 'grid_sample', dict(refined='dcn', deformable_groups=2), 5, True),
    'deform_conv': ('onnx', 'deform_conv', dict(refined='dcn', deformable_groups=4), 3, False),
    'no deformable convolution': ('onnx', 'grid_sample', dict(refined='none'), 5, False),
    'torch, grid_sample, open size': ('pt2', 'grid_sample', dict(refined='dcn', deformable_groups=4), 3, True),
    'torch, deform_conv': ('pt2', 'deform_conv', dict(refined='dcn', deformable_groups=2), 5, False),
}


@pytest.mark.parametrize('case', [
    pytest.param(name, marks=() if name == 'torch, deform_conv' else pytest.mark.slow) for name in _CASES])
def test_an_export_computes_what_the_network_does(tmp_path, case):
    suffix, form, options, frames, open_size = _CASES[case]
    if suffix == 'onnx' and _MISSING:
        pytest.skip(_REASON)
    if suffix == 'onnx' and form == 'deform_conv' and not _has_deform_conv():
        pytest.skip('this onnxruntime has no DeformConv on a CPU (1.25 or later has)')
    net = _net(**options)
    path = str(tmp_path / f'refined.{suffix}')
    result = export_refined(net, path, frames=frames, size=_SIZE, form=form, open_size=open_size)
    assert result.difference <= TOLERANCE and (1 < result.offset_size < 3 or options['refined'] == 'none')
    assert [p.name for p in tmp_path.iterdir()] == [f'refined.{suffix}']
    assert str(ROOT).encode() not in (tmp_path / f'refined.{suffix}').read_bytes()
    for layer in _layers(net):
        assert layer.backend == 'auto'  # the network itself is left as it was
        layer.backend = 'torchvision'
    run = open_refined(path)
    for batch, size in [(1, _SIZE), (2, _SIZE), (5, _SIZE)] + ([(1, (8, 8)), (2, (40, 28))] if open_size else []):
        tiles = torch.rand(batch, frames, 8, *size)
        torch.testing.assert_close(run(tiles), net.refine(tiles, frames // 2).restored, rtol=0, atol=TOLERANCE)


@needs_onnx
def test_the_file_says_what_it_takes(exported):
    import onnx
    import onnxruntime
    path = exported
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    (tiles,), (rgb,) = session.get_inputs(), session.get_outputs()
    assert (tiles.name, tiles.type, tiles.shape[1:]) == ('tiles', 'tensor(float)', [3, 8, 24, 24])
    assert (rgb.name, rgb.type, rgb.shape[1:]) == ('rgb', 'tensor(float)', [3, 48, 48])
    assert isinstance(tiles.shape[0], str)
    assert session.get_modelmeta().custom_metadata_map['ref_idx'] == '1'


def _swap(layer):
    """Exchange the two directions of the offsets."""
    for value in (layer.conv_offset.weight, layer.conv_offset.bias):
        offsets = value[:2 * len(value) // 3].unflatten(0, (-1, 2))
        offsets.copy_(offsets.flip(1).clone())


def _by_tap(layer):
    """Take offsets that lie by group, then tap, for ones that lie by tap, then group."""
    groups = layer.deformable_groups
    for value in (layer.conv_offset.weight, layer.conv_offset.bias):
        offsets = value[:2 * len(value) // 3].unflatten(0, (groups, 9, 2))
        offsets.copy_(offsets.transpose(0, 1).reshape(offsets.shape).clone())


def _stay(layer):
    """No offsets."""
    for value in (layer.conv_offset.weight, layer.conv_offset.bias):
        value[:2 * len(value) // 3] = 0


def _full_mask(layer):
    layer.conv_offset.bias[2 * len(layer.conv_offset.bias) // 3:] = 20


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    path = str(tmp_path_factory.mktemp('export') / ('refined.pt2' if _MISSING else 'refined.onnx'))
    export_refined(_net(), path, frames=3, size=(24, 24))
    return path


def test_the_comparison_finds_no_difference(exported):
    assert compare_refined(_net(), exported, [(1, 3, 8, 24, 24)], ref_idx=1).difference < TOLERANCE


@pytest.mark.parametrize('change', [_swap, _by_tap, _stay, _full_mask])
@pytest.mark.parametrize('level', [1, 2, 3])
def test_the_comparison_notices_another_deformable_convolution(exported, change, level):
    net = _net()
    wrong = copy.deepcopy(net)
    change(getattr(wrong.refine.align, f'level{level}').dcn)
    assert compare_refined(wrong, exported, [(1, 3, 8, 24, 24)], ref_idx=1).difference > 5 * TOLERANCE


def test_the_comparison_notices_another_reference_and_what_is_no_number(exported):
    net = _net()
    assert compare_refined(net, exported, [(1, 3, 8, 24, 24)], ref_idx=0).difference > 10 * TOLERANCE
    net.refine.fuse.join.bias[0] = torch.nan
    assert compare_refined(net, exported, [(1, 3, 8, 24, 24)], ref_idx=1).difference == torch.inf


@pytest.mark.parametrize('coarse', ['dpbm', 'none'])
def test_an_export_restores_whole_frames(exported, coarse):
    net = _net()
    whole = TwoStageJDDB(num_feat=8, deformable_groups=4, coarse=coarse,
                         dpbm={'radius': 1, 'stride': 1}).eval().requires_grad_(False)
    whole.refine = net.refine
    lq = torch.rand(1, 3, 8, 38, 50)
    grid = make_grid(38, 50, tile=16, overlap=4, multiple=SCALE, layout='inside')
    found = process_tiles(lq, grid, open_refined(exported), coarse=whole.coarse, tile_batch=4, ref_idx=1)
    torch.testing.assert_close(found, whole(lq, tile=16), rtol=0, atol=TOLERANCE)


_RIGHT = deform_conv._IMPLEMENTATIONS['torchvision']


def _wrong_implementation(x, offset, *rest):
    return _RIGHT(x, offset.unflatten(1, (-1, 2)).flip(2).flatten(1, 2), *rest)


def script(arguments):
    return main(['export', *arguments])


def test_a_wrong_export_leaves_the_file_before_it_and_the_command_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(deform_conv._IMPLEMENTATIONS, 'torchvision', _wrong_implementation)
    torch.save(_net().state_dict(), tmp_path / 'net.pth')
    path = tmp_path / 'refined.pt2'
    path.write_text('the one before')
    status = script(['--weights', str(tmp_path / 'net.pth'), '--output', str(path), '--frames', '3', '--tile', '8',
                     '--form', 'deform_conv'])
    stderr = capsys.readouterr().err
    assert status == 1 and stderr.count('\n') == 1
    assert stderr.startswith(f'error: {path}: not written; what was exported differs from the network by ')
    assert 'more than 1e-04' in stderr and path.read_text() == 'the one before'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['net.pth', 'refined.pt2']


@pytest.mark.parametrize(('error', 'arguments', 'message'), [
    (OptionError, dict(path='refined.pth'), 'ends in .onnx or .pt2'),
    (OptionError, dict(form='deform_con'), "did you mean 'deform_conv'"),
    (OptionError, dict(size=(16, 18)), 'multiples of 4 from 8 on, got 16 x 18'),
    (OptionError, dict(size=(4, 8)), 'multiples of 4 from 8 on, got 4 x 8'),
    (OptionError, dict(ref_idx=3), '0 .. 2; got 3'),
    (OptionError, dict(frames=0), 'a burst of 0 frames'),
    (DataError, dict(path='file/refined.pt2'), 'cannot be written'),
])
def test_what_cannot_be_exported_is_refused(tmp_path, monkeypatch, error, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').touch()
    with pytest.raises(error, match=message):
        export_refined(_net(refined='none'), **{'path': 'refined.pt2', 'frames': 3, 'size': _SIZE, **arguments})
    assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_the_exporters_errors_become_one_line(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError('it is\na long story')

    monkeypatch.setattr(torch.export, 'export', fail)
    with pytest.raises(ExportError, match=r'refined\.pt2: torch .* cannot export the network \(it is\)\.$'):
        export_refined(_net(refined='none'), str(tmp_path / 'refined.pt2'), size=_SIZE)
    monkeypatch.setattr(torch, '__version__', '2.4.0+cpu')
    message = r'torch 2\.4\.0\+cpu cannot export the network \(it is\); torch 2\.8 and later can\.$'
    with pytest.raises(ExportError, match=message):
        export_refined(_net(refined='none'), str(tmp_path / 'refined.pt2'), size=_SIZE)
    monkeypatch.undo()
    path = tmp_path / 'torn.pt2'
    path.write_bytes(b'PK')
    with pytest.raises(ExportError, match='cannot run it'):
        open_refined(str(path))


@pytest.mark.parametrize('name', ['onnx', 'onnxscript', 'onnxruntime'])
def test_a_missing_package_is_named(tmp_path, monkeypatch, name):
    for other in ('onnx', 'onnxscript', 'onnxruntime'):
        monkeypatch.setitem(sys.modules, other, None if other == name else sys)
    with pytest.raises(DataError, match=rf"refined\.onnx: needs the package '{name}' .*; run: pip install {name}$"):
        export_refined(_net(refined='none'), str(tmp_path / 'refined.onnx'), size=_SIZE)
    assert not list(tmp_path.iterdir())


def test_the_command_exports_and_says_what_it_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({'params': _net().state_dict()}, 'net.pth')
    arguments = ['--weights', 'net.pth', '--frames', '3', '--tile', '8', '--output']
    assert script([*arguments, 'exports/refined.pt2']) == 0
    stdout = capsys.readouterr().out
    assert 'exports/refined.pt2: tiles [B, 3, 8, 16, 16] to rgb, ' in stdout
    assert 'on random tiles [1, 3, 8, 16, 16], [3, 3, 8, 16, 16]' in stdout
    assert 'stays in Python: noise map, matching, cutting of tiles, merging' in stdout
    assert (tmp_path / 'exports' / 'refined.pt2').exists()

    assert script([*arguments, 'refined.pt3']) == 2
    assert capsys.readouterr().err == 'error: refined.pt3: expected a name that ends in .onnx or .pt2.\n'
    assert script(['--weights', 'nowhere.pth', '--output', 'refined.pt2']) == 2
    assert capsys.readouterr().err == 'error: nowhere.pth: no such checkpoint.\n'


@pytest.mark.slow
@needs_onnx
def test_the_command_writes_onnx_without_remarks(tmp_path):
    torch.save(TwoStageJDDB(num_feat=8, deformable_groups=2, coarse='block_matching').state_dict(), tmp_path / 'net.pth')
    command = [sys.executable, '-m', 'jddb_plugin', 'export', '--weights', 'net.pth', '--frames', '2',
               '--tile', '16', '--overlap', '0', '--output', 'refined.onnx']
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert result.stdout.count('\n') == 4 and 'offsets of the deformable convolutions were 0 px' in result.stdout
    assert 'so this does not test them' in result.stdout
