import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network

from jddb_plugin import DPBM, TwoStageJDDB
from jddb_plugin.checks import ShapeError
from jddb_plugin.cli.main import main
from jddb_plugin.visual.matching import draw_matching


def _moving(channels):
    scene = torch.nn.functional.avg_pool2d(torch.rand(channels, 150, 150), 5, 1)
    return torch.stack([scene[:, 20 + 8 * t:84 + 8 * t, 40 - 8 * t:120 - 8 * t] for t in range(3)])


@pytest.mark.parametrize('channels', [3, 4, 8], ids=['RGB', 'raw', 'raw and noise map'])
def test_the_picture_shows_what_the_matching_found(channels):
    coarse = DPBM(match_channels=min(channels, 4), features='bicubic', radius=4).train()
    image = draw_matching(_moving(channels), coarse, tile=16, panel_width=160)
    assert image.dtype == np.uint8
    assert image.shape == (22 + 2 * (22 + 128), 5 * 160 + 4 * 6, 3)
    assert coarse.training  # left as it was
    rows = [image[44 + k * 150:44 + k * 150 + 128] for k in range(2)]
    for row in rows:
        before, after = row[:, 4 * 166 - 166:4 * 166 - 6], row[:, 4 * 166:]
        assert after[40:-40, 40:-40].mean() < 0.3 * before[40:-40, 40:-40].mean()
    # The scene moves up and to the right; the two frames lie on opposite sides of the reference.
    colors = [row[:, 166:326].reshape(-1, 3).astype(int) for row in rows]
    saturated = [c[(c.max(axis=1) - c.min(axis=1)) > 150] for c in colors]
    assert all(len(c) > 20 for c in saturated)
    assert np.abs(saturated[0].mean(axis=0) - saturated[1].mean(axis=0)).max() > 50


def test_wrong_input_is_named():
    with pytest.raises(ShapeError, match=r'burst: expected a tensor of shape \[N, C, H, W\]'):
        draw_matching(torch.rand(1, 3, 3, 32, 32), DPBM(match_channels=3))
    with pytest.raises(ShapeError, match='smaller than a tile of 64'):
        draw_matching(torch.rand(3, 3, 32, 32), DPBM(match_channels=3))


def test_the_command_draws_folders_and_lmdbs(texture_folder, texture_lmdb, tmp_path, capsys):
    small = ['--tile', '16', '--radius', '2']
    for name, arguments in {
        'rgb.png': [str(texture_folder / 'a'), *small],
        'raw.jpg': [str(texture_lmdb), '--clip', 'b', '--noise', '0.001,0.01', '--frames', '3', '--interval', '2', *small],
    }.items():
        assert main(['show-matching', *arguments, '-o', str(tmp_path / 'new' / name)]) == 0
        assert cv2.imread(str(tmp_path / 'new' / name)).shape[1] == 1824
    assert '1824 x' in capsys.readouterr().out


def test_the_command_takes_the_features_of_a_checkpoint(texture_lmdb, tmp_path, capsys):
    net = TwoStageJDDB(num_feat=8, deformable_groups=2)
    torch.save({'params': net.state_dict()}, tmp_path / 'net.pth')
    common = [str(texture_lmdb), '--clip', 'a', '--tile', '16', '-o', str(tmp_path / 'x.png')]
    assert main(['show-matching', *common, '--noise', 'low', '--weights', str(tmp_path / 'net.pth')]) == 0
    assert main(['show-matching', *common, '--weights', str(tmp_path / 'net.pth')]) == 2
    assert 'give --noise too' in capsys.readouterr().err
    edvr = build_network({'type': 'EDVR', 'num_feat': 8, 'deformable_groups': 2})
    torch.save({'params': edvr.state_dict()}, tmp_path / 'edvr.pth')
    assert main(['show-matching', *common, '--noise', 'low', '--weights', str(tmp_path / 'edvr.pth')]) == 2
    assert 'edvr.pth: holds no matching features of TwoStageJDDB' in capsys.readouterr().err


@pytest.mark.parametrize(('arguments', 'message'), [
    (['nowhere', '-o', 'x.png'], 'nowhere: no such folder'),
    (['FOLDER', '-o', 'x.png'], 'holds no images; expected the frames of one clip'),
    (['LMDB', '-o', 'x.png'], 'holds 2 clips; choose one by --clip, e.g. --clip a'),
    (['LMDB', '--clip', 'c', '-o', 'x.png'], "'c' is not in"),
    (['FOLDER/a', '--start', '3', '-o', 'x.png'], 'has 7 frames, but frame 7 is asked for'),
    (['FOLDER/a', '--frames', '1', '-o', 'x.png'], 'expected --frames of at least 2'),
    (['FOLDER/a', '-o', 'x.tiff'], 'x.tiff: expected a name that ends in .png or .jpg'),
    (['FOLDER/a', '--noise', 'medium', '-o', 'x.png'], "--noise: expected 'low', 'high', or SHOT,READ"),
    (['FOLDER/a', '--noise', '2,0', '-o', 'x.png'], 'must be in 0 .. 1, got 2 and 0'),
    (['FOLDER/a', '--ref', '5', '-o', 'x.png'], '--ref: expected 0 .. 4, got 5'),
    (['FOLDER/a', '--tile', '10', '-o', 'x.png'], 'multiples of the matching scale 4, got 10'),
    (['FOLDER/a', '--tile', '128', '-o', 'x.png'], 'smaller than a tile of 128'),
])
def test_the_command_says_what_is_wrong(texture_folder, texture_lmdb, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    arguments = [a.replace('FOLDER', str(texture_folder)).replace('LMDB', str(texture_lmdb)) for a in arguments]
    assert main(['show-matching', *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob('x.*'))
