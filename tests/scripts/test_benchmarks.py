"""The benchmarks, on little: they run, agree with what they compare, and write their report."""
import importlib
import json
import sys

import cv2
import numpy as np
import pytest
import torch

from ..conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def script(monkeypatch):
    """Import a benchmark by its name."""
    monkeypatch.syspath_prepend(str(ROOT / 'scripts' / 'benchmark'))

    def load(name):
        for module in ('common', name):
            sys.modules.pop(module, None)
        return importlib.import_module(name)

    return load


def test_block_matching_agrees_with_the_plain_loop(script, tmp_path, monkeypatch, capsys):
    module = script('block_matching')
    monkeypatch.setattr(module, 'CASES', {'small': (64, 72, 16, 4, 2)})
    monkeypatch.setattr(module, 'scaling', lambda device, repeats: [])
    assert module.main(['--cases', 'small', '--devices', 'cpu', '--repeats', '1', '--json', str(tmp_path / 'r' / 'x.json')]) == 0
    report, = json.loads((tmp_path / 'r' / 'x.json').read_text())
    row, = report['hard']
    assert row['equal_offsets'] == 1 and row['ratio_matching'] > 0
    assert report['machine']['torch'] == torch.__version__ and report['machine']['name']
    assert '| small | 16 ' in capsys.readouterr().out


def test_a_plain_loop_that_disagrees_fails_the_benchmark(script, monkeypatch):
    module = script('block_matching')
    monkeypatch.setattr(module, 'CASES', {'small': (64, 72, 16, 4, 2)})
    monkeypatch.setattr(module, 'scaling', lambda device, repeats: [])
    loop = module.plain_loop
    monkeypatch.setattr(module, 'plain_loop', lambda *args: loop(*args) + 1)
    assert module.main(['--cases', 'small', '--devices', 'cpu', '--repeats', '1']) == 1


def test_scaling_counts_the_candidates(script):
    rows = script('block_matching').scaling(torch.device('cpu'), repeats=1)
    assert [row['candidates_in_all'] for row in rows[:3]] == [15 * 4 * 74, 30 * 4 * 74, 60 * 4 * 74]
    assert all(row['seconds'] > 0 for row in rows)


def test_planted_shifts_move_as_they_say(script):
    module = script('alignment')
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (300, 340, 3), np.uint8), (0, 0), 2)
    clean, truth = module.planted(image, 30, seed=1)
    assert clean.shape == (5, 4, 512, 512)
    y, x = (int(v) for v in truth[0])
    assert 28 <= (y * y + x * x) ** 0.5 <= 32
    inner = clean[2, :, 100:400, 100:400]
    assert torch.equal(clean[0, :, 100 + y:400 + y, 100 + x:400 + x], inner)
    warped = module.warp(clean[0], truth[0].view(2, 1, 1))[:, 100:400, 100:400]
    torch.testing.assert_close(warped, inner, rtol=0, atol=1e-4)


def test_alignment_ranks_what_it_should(script, tmp_path, monkeypatch, capsys):
    module = script('alignment')
    monkeypatch.setattr(module, 'SIDE', 256)
    assert module.main(['--photographs', '1', '--shifts', '0', '24', '--json', str(tmp_path / 'x.json')]) == 0
    scores = json.loads((tmp_path / 'x.json').read_text())['planted']['scores']
    still, moved = (entries[1] for name, entries in scores.items() if name in ('no alignment', 'block matching, radius 16'))
    assert still['error'] == pytest.approx(24, abs=1)
    assert moved['median_error'] < 4 and moved['psnr'] > still['psnr']
    assert scores['no alignment'][0]['error'] == 0
    assert 'DIS optical flow' in capsys.readouterr().out
    assert module.main(['--photographs', '1', '--shifts', '0', '--frames', str(tmp_path)]) == 2
    assert 'expected a folder of at least nine images, found 0' in capsys.readouterr().err
