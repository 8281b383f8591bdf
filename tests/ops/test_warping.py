"""Frames moved by fractions of a pixel."""
import math

import numpy as np
import pytest
import torch

from jddb_plugin.checks import ShapeError
from jddb_plugin.ops import warping
from jddb_plugin.ops.bayer import demosaic_malvar, mosaic_rgb, unpack
from jddb_plugin.ops.warping import warp_mosaic

HEIGHT, WIDTH = 8, 10


def _sharp(distance):
    """Keys' cubic kernel, a = -0.75."""
    d = abs(distance)
    if d <= 1:
        return 1.25 * d ** 3 - 2.25 * d ** 2 + 1
    return -0.75 * d ** 3 + 3.75 * d ** 2 - 6 * d + 3 if d < 2 else 0.0


def _oracle(packed, motion):
    """Sample by sample, in float64, on the demosaicked frame."""
    rgb = demosaic_malvar(packed.double()).cpu().numpy()
    result = np.zeros(packed.shape)
    for plane, color in enumerate((0, 1, 1, 2)):
        for i in range(packed.shape[1]):
            for j in range(packed.shape[2]):
                y, x = 2 * i + plane // 2 + motion[i, j, 0].item(), 2 * j + plane % 2 + motion[i, j, 1].item()
                for row in range(math.floor(y) - 1, math.floor(y) + 3):
                    for col in range(math.floor(x) - 1, math.floor(x) + 3):
                        value = rgb[color, min(max(row, 0), rgb.shape[1] - 1), min(max(col, 0), rgb.shape[2] - 1)]
                        result[plane, i, j] += _sharp(row - y) * _sharp(col - x) * value
    return torch.from_numpy(result.clip(0, 1)).float()


def test_malvar_is_the_filters_of_the_paper():
    """On the mosaic, place by place; the paper's figure 2 in eighths."""
    near, far = (((a, 0), (-a, 0), (0, a), (0, -a)) for a in (1, 2))
    corners = ((1, 1), (1, -1), (-1, 1), (-1, -1))
    cross = {(0, 0): 4, **dict.fromkeys(near, 2), **dict.fromkeys(far, -1)}
    along_row = {(0, 0): 5, (0, 1): 4, (0, -1): 4, (0, 2): -1, (0, -2): -1, (2, 0): .5, (-2, 0): .5, **dict.fromkeys(corners, -1)}
    diagonal = {(0, 0): 6, **dict.fromkeys(corners, 2), **dict.fromkeys(far, -1.5)}
    along_column = {(x, y): weight for (y, x), weight in along_row.items()}
    own = {(0, 0): 8}
    filters = {0: (own, cross, diagonal), 1: (along_row, own, along_column),
               2: (along_column, own, along_row), 3: (diagonal, cross, own)}
    packed = torch.rand(4, HEIGHT, WIDTH)
    mosaic, rgb = unpack(packed), demosaic_malvar(packed)
    for y in range(2, 2 * HEIGHT - 2):
        for x in range(2, 2 * WIDTH - 2):
            for color, weights in enumerate(filters[2 * (y % 2) + x % 2]):
                expected = sum(weight * mosaic[y + dy, x + dx].item() for (dy, dx), weight in weights.items()) / 8
                assert rgb[color, y, x].item() == pytest.approx(expected, abs=1e-5)


def test_malvar_keeps_colors_at_the_border():
    color = torch.tensor([0.2, 0.5, 0.9])
    for size in ((2, 2), (3, 5), (1, 1)):
        rgb = color[:, None, None].expand(3, 2 * size[0], 2 * size[1])
        torch.testing.assert_close(demosaic_malvar(mosaic_rgb(rgb)), rgb.contiguous())


@pytest.mark.parametrize('reach', [0.7, 3.0, 40.0])
def test_warp_is_bicubic_sampling_of_the_demosaicked_frame(reach):
    frame = torch.rand(4, HEIGHT, WIDTH)
    motion = (torch.rand(HEIGHT, WIDTH, 2) * 2 - 1) * reach
    torch.testing.assert_close(warp_mosaic(frame, motion).cpu(), _oracle(frame, motion), atol=2e-5, rtol=0)


def test_no_motion_changes_nothing():
    frames = torch.rand(2, 4, HEIGHT, WIDTH)
    torch.testing.assert_close(warp_mosaic(frames, torch.zeros(2, HEIGHT, WIDTH, 2)), frames, atol=1e-5, rtol=0)


def test_a_smooth_scene_moved_by_a_fraction_is_that_scene_there():
    rows, cols = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing='ij')

    def seen(dy, dx):
        wave = torch.sin((rows + dy) * 0.35) * torch.cos((cols + dx) * 0.3)
        return mosaic_rgb(torch.stack((0.5 + 0.3 * wave, 0.45 + 0.25 * wave, 0.4 + 0.2 * wave)))

    moved = warp_mosaic(seen(0, 0), torch.tensor([0.7, -1.4]).expand(32, 32, 2))
    inner = (..., slice(4, -4), slice(4, -4))
    error, motion = ((frame - seen(0.7, -1.4))[inner].square().mean().sqrt() for frame in (moved, seen(0, 0)))
    assert error < 0.15 * motion


@pytest.mark.parametrize('piece', [1, 60, 400])
def test_pieces_windows_and_frames_at_once_do_not_matter(piece, monkeypatch):
    frames, motion = torch.rand(3, 4, 20, 24), torch.randn(3, 20, 24, 2) * 6
    motion[:, :4, :4] = torch.tensor([-90.0, 70.0])
    whole = warp_mosaic(frames, motion)
    monkeypatch.setattr(warping, '_PIECE', piece)
    each = torch.stack([warp_mosaic(frame, field) for frame, field in zip(frames, motion)])
    torch.testing.assert_close(each, whole, atol=2e-5, rtol=0)
    window = warp_mosaic(frames, motion[:, 2:12, 5:19], (2, 5))
    torch.testing.assert_close(window, whole[..., 2:12, 5:19], atol=2e-5, rtol=0)


def test_beyond_the_frame_colors_stay_what_they_are():
    frame = torch.tensor([0.1, 0.5, 0.5, 0.9])[:, None, None].expand(4, HEIGHT, WIDTH)
    for motion in ([1e3, -1e3], [-37.3, 55.1]):
        moved = warp_mosaic(frame, torch.tensor(motion).expand(HEIGHT, WIDTH, 2))
        torch.testing.assert_close(moved, frame.contiguous(), atol=1e-5, rtol=0)


def test_values_stay_in_range():
    frame = (torch.rand(4, 16, 16) > 0.5).float()
    moved = warp_mosaic(frame, torch.rand(16, 16, 2))
    assert moved.min() == 0 and moved.max() == 1


def test_memory_is_bounded_wherever_samples_come_from(monkeypatch):
    monkeypatch.setattr(warping, '_PIECE', 100)
    cells = []
    monkeypatch.setattr(warping, 'demosaic_malvar', lambda piece: cells.append(piece[:, 0].numel()) or demosaic_malvar(piece))
    warp_mosaic(torch.rand(4, 40, 40), torch.rand(40, 40, 2) * 80 - 40)
    assert max(cells) <= 100


def test_shapes_are_checked():
    with pytest.raises(ShapeError, match='packed'):
        warp_mosaic(torch.zeros(3, 4, 4), torch.zeros(4, 4, 2))
    with pytest.raises(ShapeError, match='motion'):
        warp_mosaic(torch.zeros(4, 4, 4), torch.zeros(4, 4))
    with pytest.raises(ShapeError, match='leading'):
        warp_mosaic(torch.zeros(2, 4, 4, 4), torch.zeros(3, 4, 4, 2))
