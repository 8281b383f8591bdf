"""The benchmarks of restoration, on little: what they compare is the same, what they extrapolate is told, and they report."""
import argparse
import importlib
import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from jddb_plugin.restoration import find_bursts

from ..conftest import ROOT
from ..restoration.samples import save_net, write_tiffs

pytestmark = pytest.mark.slow

NAMES = ('common', 'noisy_raw', 'inference', 'restore_memory', 'tile_borders')
TINY = ['--device', 'cpu', '--features', '8', '--repeats', '2', '--frames', '3']


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'scripts' / 'benchmark'))
    for module in NAMES:
        sys.modules.pop(module, None)
    yield importlib.import_module
    for module in NAMES:
        sys.modules.pop(module, None)


@pytest.fixture
def inference(script, monkeypatch):
    module = script('inference')
    monkeypatch.setattr(module, 'CASES', {'small': (96, 128, 16, 4, 2)})
    return module


@pytest.fixture
def parts(inference):
    """A tiny network with offsets, its burst, and two tiles."""
    args = argparse.Namespace(weights=None, features=8, frames=5, device=torch.device('cpu'))
    frames, net = inference.read_burst('small', 5), inference.make_network('small', args)
    tiles = inference.some_tiles(net, frames, 'small', 2)
    inference.randomise_offsets(net.refine, tiles, frames.ref_idx)
    return frames, net, tiles


def test_the_straightforward_form_is_the_refined_stage(inference, parts):
    frames, net, tiles = parts
    with torch.no_grad():
        expected = net.refine(tiles, 2)
        torch.testing.assert_close(expected.offset_size, torch.ones(3), rtol=1e-4, atol=0)
        assert expected.restored.std() > 0.05
        for switches in ({}, {'backend': 'grid_sample'}, {'one_by_one': True}, {'reuse': True}):
            found = inference.Straightforward(net.refine, **switches)(tiles, 2)
            torch.testing.assert_close(found, expected.restored, rtol=0, atol=1e-5)
        for ref_idx in (0, 4):
            found = inference.Straightforward(net.refine)(tiles, ref_idx)
            torch.testing.assert_close(found, net.refine(tiles, ref_idx).restored, rtol=0, atol=1e-5)
    assert inference.difference(net, tiles[:1], 2)['difference'] < 1e-5


def swapped_gates(cell, state, x):
    both = torch.cat((state, x), dim=1)
    r, z = torch.sigmoid(cell.update(both)), torch.sigmoid(cell.reset(both))
    return (1 - z) * state + z * torch.tanh(cell.candidate(torch.cat((r * state, x), dim=1)))


@pytest.mark.parametrize('break_it', [
    lambda module, monkeypatch: monkeypatch.setattr(module, 'gru_step', swapped_gates),
    lambda module, monkeypatch: monkeypatch.setattr(module.Straightforward, 'deform', lambda self, layer, x, feat: x),
    lambda module, monkeypatch: monkeypatch.setattr(
        module, 'double', lambda x: torch.nn.functional.interpolate(x, scale_factor=2, mode='nearest')),
], ids=['gates', 'deformable convolution', 'pyramid'])
def test_a_form_that_differs_fails_the_benchmark(inference, monkeypatch, capsys, break_it):
    break_it(inference, monkeypatch)
    assert inference.main([*TINY, '--repeats', '1', '--parts', 'speed', '--speed-case', 'small', '--no-bf16']) == 1
    assert 'the straightforward form and ours differ' in capsys.readouterr().err


def test_it_prints_both_tables_and_says_what_is_extrapolated(inference, tmp_path, capsys):
    report = tmp_path / 'new' / 'x.json'
    assert inference.main([*TINY, '--tiles', '5', '--profile', '--json', str(report)]) == 0
    content = json.loads(report.read_text())
    row, = content['restoration']
    assert (row['tiles'], row['tiles_restored'], row['tile_batch']) == (12, 8, 4)
    assert row['seconds'] == pytest.approx(row['seconds_matching'] + row['seconds_rest'])
    assert row['seconds_per_megapixel'] == pytest.approx(row['seconds'] / (96 * 128 * 1e-6))
    assert row['parameters'] > row['parameters_coarse'] > 0 and row['flop_refined'] > row['flop_features'] > 0
    assert row['operations_differences'] == 3 * 12 * 2 * (9 + 25) * 6 * 6 * 16
    rows = content['speed']['rows']
    assert [row['name'] for row in rows] == [
        'straightforward', 'with grid_sample', 'with frames one by one', 'with gates by rows', 'with channels_last',
        'with GRU reuse', 'ours, 1 at once', 'ours, 2 at once', 'ours, 4 at once', 'ours, 4 at once, bf16',
        'straightforward again']
    assert rows[0]['ratio'] == 1 and all(row['samples_per_second'] > 0 and len(row['every_seconds']) == 2 for row in rows)
    assert rows[9]['psnr'] > 30 and content['machine']['torch'] == torch.__version__
    output = capsys.readouterr().out
    assert 'extrapolated from 8 of 12 tiles' in output and '8 features, random weights, offsets of 1 px' in output
    assert re.search(r'\| case +\| precision +\| parameters +\| coarse stage +\| GFLOP +\|.*\| s per megapixel \|', output)
    assert re.search(r'\| form +\| tiles at once +\| median +\| tiles/s +\| ratio +\| least \.\. most +\| peak memory', output)
    assert 'Largest difference of straightforward and ours' in output and 'aten::mkldnn_convolution' in output


def test_extrapolation_is_exact_where_every_tile_counts_as_much(inference, parts, monkeypatch):
    frames, net, _ = parts
    clock = iter(range(10 ** 6))
    monkeypatch.setattr(inference.PartialInference, '_now', lambda self: float(next(clock)))
    args = argparse.Namespace(device=torch.device('cpu'), budget=inference.Budget(2 << 30, 0))
    walks = {}
    for tiles in (None, 4, 12):
        walks[tiles] = inference.PartialInference(net, *inference.planned(net, frames, 'small', args), tiles=tiles)
        height = sum(rows.shape[1] for _, rows in walks[tiles])
        assert height == 96
    assert [walks[tiles].restored for tiles in (None, 4, 12)] == [12, 4, 12]
    assert walks[None].chosen == {0, 1, 2} and walks[4].chosen == {1}
    # Each row of tiles, one batch: two readings of the clock around it and two within.
    assert walks[None].rest() == walks[None].seconds['restoration'] == 9
    assert walks[4].seconds['restoration'] == 5
    assert walks[4].rest() == 5 - 1 + 3 * 1


def test_options_that_cannot_be_are_told(inference, capsys):
    assert inference.main([*TINY, '--frames', '4']) == 2
    assert 'an odd number of --frames' in capsys.readouterr().err


def test_a_written_burst_is_a_moving_photograph(script, tmp_path):
    module = script('noisy_raw')
    module.STRIP = 40
    module.write_burst(tmp_path / 'a', (160, 200), 3)
    module.STRIP = 160
    module.write_burst(tmp_path / 'b', (160, 200), 3)
    (strips,), (whole,) = (find_bursts(tmp_path / name) for name in ('a', 'b'))
    frames = [cv2.GaussianBlur(strips.read(k).mosaic[::2, ::2].astype(np.float32), (0, 0), 1.5) for k in (0, 2)]
    again = [cv2.GaussianBlur(whole.read(k).mosaic[::2, ::2].astype(np.float32), (0, 0), 1.5) for k in (0, 2)]
    assert np.corrcoef(frames[0].ravel(), again[0].ravel())[0, 1] > 0.95  # no seams: only the noise is another
    (x, y), still = module.STEP, frames[0][20:60, 30:60]
    moved = frames[1][20 + y:60 + y, 30 + x:60 + x]
    unmoved = frames[1][20:60, 30:60]
    assert abs(moved - still).mean() < 0.7 * abs(unmoved - still).mean()
    assert strips.read(0).metadata.noise_shot == (6.4e-3,) * 4


def test_the_runner_tells_the_peak_of_the_command_alone(script):
    module = script('restore_memory')

    def peak(code):
        command = [sys.executable, '-I', '-S', '-c', module.RUNNER, sys.executable, '-I', '-S', '-c', code]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    status, least, seconds = peak('raise SystemExit(3)')
    assert status == 3 and least < 60e6 and seconds > 0  # this process holds hundreds of MB
    _, more, _ = peak('b"x" * 200_000_000')
    assert 180e6 < more - least < 240e6


def test_restore_memory_on_a_small_burst(script, tmp_path, monkeypatch, capsys):
    module = script('restore_memory')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    report = tmp_path / 'x.json'
    assert module.main(['--megapixels', '0.1', '--frames', '2', '--memory', '3G', '100M', '--json', str(report)]) == 0
    done, refused = json.loads(report.read_text())['rows']
    assert done['within'] == 'yes' and done['status'] == 0 and 3e8 < done['peak_bytes'] < done['limit_bytes'] == 3 << 30
    assert refused['within'] == 'refused' and '--memory: 100 MB is less' in refused['message']
    output = capsys.readouterr().out
    assert 'a small network of 8 features with random weights, whole frames' in output
    assert re.search(r'\| megapixels +\| frame +\| --memory +\| that is +\| peak memory +\| seconds +\| within', output)
    assert not list(tmp_path.glob('*.tif'))


def test_too_much_or_a_failure_is_told(script, monkeypatch, capsys):
    module = script('restore_memory')
    monkeypatch.setattr(module, 'write_burst', lambda *args: None)
    for status, peak, stderr, verdict in (
            (0, 2 << 30, '', 'NO'), (0, 1 << 29, '', 'yes'), (-9, 1 << 29, 'Killed', 'FAILED'),
            (1, 1 << 29, 'error: burst: not enough memory for a single tile', 'refused')):
        done = subprocess.CompletedProcess([], 0, json.dumps([status, peak, 1.0]), stderr)
        monkeypatch.setattr(module.subprocess, 'run', lambda *args, done=done, **kwargs: done)
        assert module.main(['--megapixels', '1', '--memory', '1G']) == int(verdict in ('NO', 'FAILED'))
        output = capsys.readouterr().out
        assert f'| {verdict} ' in output and stderr in output


def test_tile_borders_are_compared(script, tmp_path, monkeypatch, capsys):
    weights = save_net(tmp_path / 'net.pth')
    write_tiffs(tmp_path / 'burst', size=(160, 176))
    arguments = ['tile_borders.py', str(tmp_path / 'burst'), '--weights', str(weights), '--noise', '0.001,0.01', '--tile', '16',
                 '--overlap', '4', '--radius', '2', '-o', str(tmp_path / 'figure.png')]
    monkeypatch.setattr(sys, 'argv', arguments)
    assert script('tile_borders').main() == 0
    rows = [line.split('|') for line in capsys.readouterr().out.splitlines() if line.startswith(('| smooth', '| tiles'))]
    assert [row[2].strip() for row in rows] == ['tiles', 'tiles and matched windows', 'tiles', 'tiles']
    assert all(0 < float(row[3]) < float(row[6]) for row in rows)
    figure = cv2.imread(str(tmp_path / 'figure.png'))
    assert figure.shape[1] > 3 * figure.shape[0] * 0.9 and figure.std() > 0
