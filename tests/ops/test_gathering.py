import pytest
import torch

from jddb_plugin.checks import ShapeError
from jddb_plugin.ops.bayer import pack
from jddb_plugin.ops.gathering import gather_mosaic

HEIGHT, WIDTH = 8, 10


def _coordinates():
    """Packed images of each sample's row and column in the mosaic."""
    rows, columns = torch.meshgrid(torch.arange(2 * HEIGHT), torch.arange(2 * WIDTH), indexing='ij')
    return torch.stack((pack(rows.float()), pack(columns.float())))


def _distance(plane, dy, dx):
    return abs(dy) + abs(dx) if plane in (1, 2) else max(abs(dy), abs(dx))


def _colors(plane):
    """(row, column) parities of the samples of a plane's color."""
    return [(0, 1), (1, 0)] if plane in (1, 2) else [(plane // 2, plane % 2)]


@pytest.mark.parametrize('seed', range(3))
def test_every_sample_is_the_nearest_of_its_color(seed):
    motion = torch.randn(HEIGHT, WIDTH, 2, generator=torch.Generator(torch.get_default_device()).manual_seed(seed)) * 2.5
    rows, columns = gather_mosaic(_coordinates(), motion)
    checked = 0
    for plane in range(4):
        for i in range(HEIGHT):
            for j in range(WIDTH):
                y, x = 2 * i + plane // 2 + motion[i, j, 0].item(), 2 * j + plane % 2 + motion[i, j, 1].item()
                row, column = rows[plane, i, j].item(), columns[plane, i, j].item()
                assert (row % 2, column % 2) in _colors(plane)
                if not (2 <= y <= 2 * HEIGHT - 3 and 2 <= x <= 2 * WIDTH - 3):
                    continue
                nearest = min(_distance(plane, a - y, b - x) for a in range(2 * HEIGHT) for b in range(2 * WIDTH)
                              if (a % 2, b % 2) in _colors(plane))
                assert _distance(plane, row - y, column - x) == pytest.approx(nearest, abs=1e-4)
                checked += 1
    assert checked > 100


def test_no_motion_changes_nothing():
    frames = torch.rand(2, 4, HEIGHT, WIDTH)
    assert torch.equal(gather_mosaic(frames, torch.zeros(HEIGHT, WIDTH, 2)), frames)


def test_a_shift_by_whole_cells_is_a_shift_of_the_planes():
    frames = torch.rand(1, 4, HEIGHT, WIDTH)
    moved = gather_mosaic(frames, torch.tensor([4.0, -2.0]).expand(HEIGHT, WIDTH, 2))
    assert torch.equal(moved[..., :-2, 1:], frames[..., 2:, :-1])


def test_frames_at_once_equal_one_after_the_other():
    frames, motion = torch.rand(3, 2, 4, HEIGHT, WIDTH), torch.randn(3, 6, 5, 2) * 4
    each = torch.stack([gather_mosaic(frame, field, (1, 2)) for frame, field in zip(frames, motion)])
    assert torch.equal(gather_mosaic(frames, motion, (1, 2)), each)


def test_a_window_is_what_the_whole_frame_has_there():
    frames = torch.rand(2, 4, HEIGHT, WIDTH)
    motion = torch.randn(HEIGHT, WIDTH, 2) * 4
    whole = gather_mosaic(frames, motion)
    assert torch.equal(gather_mosaic(frames, motion[2:6, 3:9], corner=(2, 3)), whole[..., 2:6, 3:9])


def test_beyond_the_frame_colors_stay_what_they_are():
    frames = torch.tensor([1.0, 2.0, 2.0, 3.0])[None, :, None, None].expand(1, 4, HEIGHT, WIDTH)
    for motion in ([1e3, -1e3], [-37.3, 55.1]):
        assert torch.equal(gather_mosaic(frames, torch.tensor(motion).expand(HEIGHT, WIDTH, 2)), frames)


def test_shapes_are_checked():
    with pytest.raises(ShapeError, match='packed'):
        gather_mosaic(torch.zeros(1, 3, 4, 4), torch.zeros(4, 4, 2))
    with pytest.raises(ShapeError, match='motion'):
        gather_mosaic(torch.zeros(1, 4, 4, 4), torch.zeros(4, 4))
    with pytest.raises(ShapeError, match='same leading dimensions'):
        gather_mosaic(torch.zeros(2, 1, 4, 4, 4), torch.zeros(3, 4, 4, 2))
