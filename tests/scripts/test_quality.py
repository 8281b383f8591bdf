import importlib
import json
import sys

import cv2
import numpy as np
import pytest
import torch

from jddb_plugin.archs.gated_unet_arch import GatedUNet

from ..conftest import ROOT

FOLDER = ROOT / 'scripts' / 'benchmark'


@pytest.fixture
def quality(monkeypatch):
    """scripts/benchmark/quality.py as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ('quality', 'quality_methods', 'quality_scenes'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module('quality')


@pytest.fixture
def photograph():
    image = cv2.GaussianBlur(np.random.default_rng(0).random((300, 420, 3)), (0, 0), 3)
    return ((image - image.min()) / (image.max() - image.min()) * 255).astype(np.uint8)


def test_photographs_move_as_they_should(quality, photograph):
    scenes = sys.modules['quality_scenes']
    frames = scenes.move_photograph(photograph, 'static', 3, 0, size=(96, 128))
    assert np.array_equal(frames[0], frames[1]) and frames[0].shape == (96, 128, 3)
    assert np.array_equal(frames[0], photograph[102:198, 146:274])
    moved = scenes.move_photograph(photograph, 'far', 3, 0, size=(96, 128))
    assert np.abs(moved[0].astype(int) - moved[1]).mean() > 5
    shift, _ = cv2.phaseCorrelate(*(np.float64(scenes.move_photograph(photograph, 'far', 3, 0, size=(200, 280))[k][..., 1])
                                    for k in (0, 1)))
    assert 55 < np.hypot(*shift) < 65


def test_frames_around_the_reference_are_taken(quality):
    scene = sys.modules['quality_scenes'].Scene('x', 'clip', 0, torch.arange(8).view(1, 8, 1, 1, 1), torch.zeros(1), (0, 0))
    assert [scene.frames(n).flatten().tolist() for n in (1, 2, 3, 5)] == [[4], [3, 4], [3, 4, 5], [2, 3, 4, 5, 6]]


def test_tables_of_a_clip_and_a_photograph(quality, photograph, tmp_path, monkeypatch, capsys):
    (tmp_path / 'clips' / 'a').mkdir(parents=True)
    for k in range(5):
        cv2.imwrite(str(tmp_path / 'clips' / 'a' / f'{k}.png'), photograph[:208, 8 * k:8 * k + 216])
    (tmp_path / 'photographs').mkdir()
    cv2.imwrite(str(tmp_path / 'photographs' / 'p.png'), photograph)
    net = GatedUNet(channels=(4, 4, 4), blocks=(1, 1, 1))
    torch.save({'params': net.state_dict()}, tmp_path / 'net.pth')
    arguments = ['--weights', str(tmp_path / 'net.pth'), '--clips', str(tmp_path / 'clips'), '--photographs',
                 str(tmp_path / 'photographs'), '--motions', 'static', '--noise', 'high', '--json', str(tmp_path / 'all.json')]
    monkeypatch.setattr(sys, 'argv', ['quality.py', *arguments])
    assert quality.main() == 0
    results = json.loads((tmp_path / 'all.json').read_text())
    assert set(results['bilinear']) == {'clip, high', 'static, high'}
    # A network that was not trained already is a robust mean, which beats the noisy frame.
    for case in results['bilinear']:
        assert results[str(tmp_path / 'net.pth')][case]['psnr'] > results['bilinear'][case]['psnr'] + 2
        assert results['flow, robust mean, NLM'][case]['psnr'] > results['NLM + bilinear'][case]['psnr'] > 15
    assert '| bilinear |' in capsys.readouterr().out


def test_networks_by_the_number_of_frames(quality, photograph, tmp_path, monkeypatch, capsys):
    (tmp_path / 'photographs').mkdir()
    for name in 'pq':
        cv2.imwrite(str(tmp_path / 'photographs' / f'{name}.png'), photograph if name == 'p' else photograph[::-1])
    arguments = ['--weights', 'tiny', '--photographs', str(tmp_path / 'photographs'), '--motions', 'static', '--noise', 'high',
                 '--counts', '--json', str(tmp_path / 'all.json')]
    monkeypatch.setattr(sys, 'argv', ['quality.py', *arguments])
    assert quality.main() == 0
    means = {title: {int(count): np.mean(found, axis=0) for count, found in figures.items()}
             for title, figures in json.loads((tmp_path / 'all.json').read_text()).items()}
    assert list(means) == [f'tiny: {kind}, high' for kind in ('static', 'black', 'foreign', 'blurred')]
    static = [means['tiny: static, high'][count][1] for count in (1, 2, 3, 5, 8)]
    assert static == sorted(static) and static[-1] > static[0] + 1
    output = capsys.readouterr().out
    assert f'| tiny: static, high | {means["tiny: static, high"][1][0]:.2f} / {static[0]:.2f} |' in output
    black = means['tiny: black, high']
    assert f'| tiny: black, high | {black[5][1] - black[1][1]:+.3f} | ' in output
    monkeypatch.setattr(sys, 'argv', ['quality.py', '--photographs', str(tmp_path / 'photographs'), '--counts', '0', '2'])
    assert quality.main() == 2
    assert '--counts: expected numbers of frames, from 1, got 0' in capsys.readouterr().err


def test_nothing_to_measure_is_told(quality, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['quality.py'])
    assert quality.main() == 2
    assert 'give --clips or --photographs' in capsys.readouterr().err


def test_fusion_shows_what_other_frames_give(quality, photograph, tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, 'fusion', raising=False)
    fusion = importlib.import_module('fusion')
    cv2.imwrite(str(tmp_path / 'p.png'), photograph)
    monkeypatch.setattr(sys, 'argv', ['fusion.py', 'small', '--photographs', str(tmp_path), '--scenes', '1'])
    assert fusion.main() == 0
    cells = capsys.readouterr().out.splitlines()[-1].strip('|').split('|')
    static, far = float(cells[3]), float(cells[5])
    assert static > 0.5 and far > 0.3, cells  # the shipped weights do fuse
