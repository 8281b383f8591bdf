"""The scripts of the demo, in this process; those of the benchmarks start."""
import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from jddb_plugin import GatedUNet
from jddb_plugin.data.frame_source import FrameSource
from jddb_plugin.data.moving_photograph_dataset import MovingPhotographDataset
from jddb_plugin.weights import load_weights

from ..conftest import ROOT
from ..restoration.samples import make_net


@pytest.fixture
def prepare(monkeypatch, capsys, tmp_path):
    """Run scripts/demo/prepare.py in this process; returns (status, stderr)."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location('prepare', ROOT / 'scripts' / 'demo' / 'prepare.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*arguments):
        if '--frames' in arguments:  # so few photographs will do
            monkeypatch.setattr(module, 'PHOTOGRAPHS', module.PHOTOGRAPHS[:1])
        monkeypatch.setattr(sys, 'argv', ['prepare.py', *map(str, arguments)])
        return module.main(), capsys.readouterr().err

    return call


def test_the_demo_prepares_its_clips(prepare, texture_folder, tmp_path):
    small = tmp_path / 'small.yml'
    small.write_text(f"_base_: {ROOT / 'options' / 'test' / 'demo_two_stage.yml'}\nval: {{tile: 32}}\n")
    status, error = prepare('--clips', '--output', 'photographs', '--test', small)
    assert status == 0, error
    train = FrameSource(str(tmp_path / 'photographs' / 'train.lmdb'), {'type': 'lmdb'}, 'test')
    test = FrameSource(str(tmp_path / 'photographs' / 'test.lmdb'), {'type': 'lmdb'}, 'test')
    assert {name.rsplit('_', 1)[0] for name in train.clips}.isdisjoint(name.rsplit('_', 1)[0] for name in test.clips)
    assert len(train.clips) >= 9 and list(test.clips) == ['astronaut_0']

    status, error = prepare('--clips', '--output', texture_folder.parent, '--frames', texture_folder, '--test', small)
    assert len(list(texture_folder.iterdir())) == 2  # the user's own frames are left alone
    assert status == 0, error
    assert list(FrameSource(str(texture_folder.parent / 'test.lmdb'), {'type': 'lmdb'}, 'test').clips) == ['b']
    assert 'own_a' in FrameSource(str(texture_folder.parent / 'train.lmdb'), {'type': 'lmdb'}, 'test').clips


def test_the_demo_prepares_its_photographs(prepare, texture_folder, tmp_path):
    status, error = prepare('--output', tmp_path / 'demo', '--frames', texture_folder, '--test',
                            ROOT / 'options' / 'test' / 'demo.yml')
    assert status == 0, error
    names = {path.stem for path in (tmp_path / 'demo' / 'photographs').iterdir()}
    assert 'own_a' in names and 'own_b' not in names and len(names) == 4  # one photograph in three orders of its channels
    assert not (tmp_path / 'demo' / 'train.lmdb').exists()
    sample = MovingPhotographDataset({'dataroot_gt': str(tmp_path / 'demo' / 'photographs'), 'gt_size': 16})[0]
    assert sample['lq'].shape == (5, 8, 8, 8)


def test_the_demo_names_what_is_wrong(prepare):
    status, error = prepare('--frames', 'nowhere')
    assert status == 2 and 'FRAMES: nowhere: no such folder' in error


def test_the_demo_knows_a_bad_test_clip_before_it_trains(prepare, texture_folder, tmp_path):
    for path in sorted((texture_folder / 'b').iterdir())[3:]:
        path.unlink()
    status, error = prepare('--frames', texture_folder, '--output', tmp_path / 'demo', '--test',
                            ROOT / 'options' / 'test' / 'demo_two_stage.yml')
    assert status == 2
    assert 'clip b has 3 frames, a burst needs 5' in error


@pytest.mark.slow
@pytest.mark.parametrize('script', sorted(path.name for path in (ROOT / 'scripts' / 'benchmark').glob('*.py')
                                          if '__main__' in path.read_text()))
def test_benchmarks_start_in_a_process_of_their_own(script):
    """What this process has imported already does not help them."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    result = subprocess.run([sys.executable, str(ROOT / 'scripts' / 'benchmark' / script), '--help'], capture_output=True,
                            text=True, env=environment)
    assert result.returncode == 0 and 'usage' in result.stdout, result.stderr


@pytest.fixture
def change_weights():
    spec = importlib.util.spec_from_file_location('change_weights', ROOT / 'scripts' / 'change_weights.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_deeper_weights_compute_the_same(change_weights, tmp_path, capsys):
    net = GatedUNet([8, 12, 16], [1, 0, 2]).eval()
    torch.save({'params': net.state_dict()}, tmp_path / 'x.pth')
    command = [str(tmp_path / 'x.pth'), '-o', str(tmp_path / 'y.pth'), '--blocks']
    assert change_weights([*command, '2', '1', '2']) == 0
    deeper, tiles = load_weights(tmp_path / 'y.pth'), torch.rand(1, 3, 8, 16, 16)
    assert len(deeper.down1) == 2 and len(deeper.up2) == 1
    with torch.no_grad():
        assert torch.equal(deeper.restore(tiles, 1), net.restore(tiles, 1))
    deeper.requires_grad_().restore(tiles, 1).sum().backward()
    assert deeper.down1[1].second.weight.grad.any()  # the new blocks learn
    assert change_weights([*command, '1', '0', '1']) == 2
    assert 'expected at least [1, 0, 2]' in capsys.readouterr().err


def test_the_coarsest_gate_of_other_weights_is_taken(change_weights, tmp_path, capsys):
    output = tmp_path / 'y.pth'
    assert change_weights(['tiny', '-o', str(output)]) == 2
    assert 'give --blocks, --gate-of, or both' in capsys.readouterr().err
    assert change_weights(['tiny', '-o', str(output), '--gate-of', 'small']) == 0
    expected = load_weights('tiny').state_dict()
    expected.update({key: value for key, value in load_weights('small').state_dict().items() if key.startswith('gates.2.')})
    changed = load_weights(output).state_dict()
    assert all(torch.equal(value, changed[key]) for key, value in expected.items())
    torch.save({'params': make_net().state_dict()}, tmp_path / 'two_stage.pth')
    assert change_weights(['tiny', '-o', str(output), '--gate-of', str(tmp_path / 'two_stage.pth')]) == 2
    assert 'holds a TwoStageJDDB; expected a GatedUNet' in capsys.readouterr().err
