"""The benchmarks of restoration, on little: they measure, say what they extrapolate, and report."""
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

@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'scripts' / 'benchmark'))
    for module in NAMES:
        sys.modules.pop(module, None)
    yield importlib.import_module
    for module in NAMES:
        sys.modules.pop(module, None)


def test_costs_of_networks_are_printed_and_written(script, monkeypatch, tmp_path, capsys):
    module = script('inference')
    monkeypatch.setitem(module.CASES, '720p', (96, 128, 16, 4, 2))
    report = tmp_path / 'new' / 'x.json'
    arguments = ['--device', 'cpu', '--cases', '720p', '--precision', 'float32', 'bf16', '--json', str(report)]
    assert module.main([*arguments, '--network', 'GatedUNet', '--tile', '16', '--overlap', '4', '--tiles', '3']) == 0
    content = json.loads(report.read_text())
    assert [row['precision'] for row in content['rows']] == ['float32', 'bf16']
    assert content['machine']['torch'] == torch.__version__
    row = content['rows'][0]
    assert (row['network'], row['align']) == ('GatedUNet', 'flow') and 3 <= row['timed'] < row['tiles']
    assert row['flop'] > row['parameters'] > 0 and row['seconds'] >= row['rest'] > 0
    output = capsys.readouterr().out
    assert 'extrapolated from' in output
    assert re.search(r'\| frame +\| network +\| alignment +\| precision +\| parameters ', output)
    assert module.main([*arguments[:-2], '--weights', str(save_net(tmp_path / 'net.pth'))]) == 0
    assert re.search(r'net.pth +\| smooth +\| float32 .*\| all tiles', capsys.readouterr().out)


def test_unknown_networks_and_devices_are_errors(script, capsys):
    module = script('inference')
    assert module.main(['--network', 'GatedUnet', '--cases', '720p']) == 2
    assert "--network: 'GatedUnet' is not a valid choice; did you mean 'GatedUNet'" in capsys.readouterr().err
    assert module.main(['--device', 'gpu']) == 2


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
    assert 'a network of 8 features with random weights, whole frames' in output
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
