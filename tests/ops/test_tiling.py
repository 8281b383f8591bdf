import pytest
import torch

from jddb_plugin.checks import OptionError, ShapeError
from jddb_plugin.ops.tiling import cheapest_cover, make_grid

FRAMES = [(64, 64), (65, 67), (70, 130), (180, 320), (360, 640), (128, 66), (72, 72), (133, 201)]


def _rebuild(grid, frame, scale=1):
    padded = grid.pad(frame)
    tiles = torch.stack([padded[..., y:y + grid.size[0], x:x + grid.size[1]]
                         for y, x in grid.positions(frame.device).tolist()], dim=1)
    tiles = tiles.repeat_interleave(scale, dim=-1).repeat_interleave(scale, dim=-2)
    canvas = grid.canvas(frame.shape[0], frame.shape[1], scale, frame)
    grid.add(canvas, tiles[:, :2], 0, scale)
    grid.add(canvas, tiles[:, 2:], 2, scale)
    return grid.crop(canvas, scale)


@pytest.mark.parametrize('layout', ['inside', 'released'])
@pytest.mark.parametrize('size', FRAMES)
@pytest.mark.parametrize('overlap', [0, 4, 16])
def test_cut_and_merge_gives_the_frame_back(size, overlap, layout):
    frame = torch.rand(2, 3, *size, dtype=torch.float64)
    grid = make_grid(*size, tile=64, overlap=overlap, multiple=4, layout=layout)
    torch.testing.assert_close(_rebuild(grid, frame), frame)
    expected = frame.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    torch.testing.assert_close(_rebuild(grid, frame, 2), expected)


@pytest.mark.parametrize('size', FRAMES)
def test_tiles_lie_inside_on_multiples_and_overlap_enough(size):
    grid = make_grid(*size, tile=64, overlap=4, multiple=4)
    for starts, length, side in ((grid.rows, size[0], grid.size[0]), (grid.cols, size[1], grid.size[1])):
        assert starts[0] == 0
        assert starts[-1] + side == length + -length % 4
        assert all(start % 4 == 0 for start in starts)
        assert all(a + side - b >= 8 for a, b in zip(starts, starts[1:]))


@pytest.mark.parametrize('size', FRAMES)
def test_shifted_tiles_cover_the_frame_too(size):
    grid = make_grid(*size, tile=32, overlap=4, multiple=4)
    shifted = grid.shifted(12)
    frame = torch.rand(1, 2, *size, dtype=torch.float64)
    torch.testing.assert_close(_rebuild(shifted, frame), frame)
    assert shifted.rows[:2] == (0, 12) and shifted.rows[-1] == grid.rows[-1]
    assert [start + 12 for start in grid.rows[1:-1]] == [start for start in shifted.rows[2:] if start < grid.rows[-1]]


def test_no_tile_holds_only_padding():
    # Where the size is a multiple of the tile, the released code adds a whole row and column of padding, and restores them.
    for height, width, count in ((128, 128, 4), (128, 132, 6), (540, 960, 9 * 15)):
        for layout in ('released', 'inside'):
            grid = make_grid(height, width, tile=64, overlap=4, multiple=4, layout=layout)
            left, _, top, _ = grid.padding
            assert all(row < top + height for row in grid.rows) and all(col < left + width for col in grid.cols)
            if layout == 'released':
                assert len(grid) == count and grid.rows[-1] + 64 >= height and grid.cols[-1] + 64 >= width
    assert len(make_grid(128, 128, tile=64, overlap=0, multiple=4)) == 4


def test_wrong_input_is_named():
    with pytest.raises(OptionError, match='multiples of the matching scale 4, got 62, 4'):
        make_grid(128, 128, tile=62, overlap=4, multiple=4)
    with pytest.raises(ShapeError, match='60 x 100 px .* is smaller than a tile of 64'):
        make_grid(60, 100, tile=64, overlap=4, multiple=4)


@pytest.mark.parametrize('size', [*FRAMES, (1080, 1920), (8, 4096)])
@pytest.mark.parametrize('overlap', [0, 4, 16])
@pytest.mark.parametrize('pixels', [1, 5000, 40_000, 1 << 18, 1 << 30])
def test_the_cheapest_cover_covers_and_stays_below_its_size(size, overlap, pixels):
    grid = cheapest_cover(*size, pixels=pixels, overlap=overlap, multiple=4)
    least = 2 * overlap + 4
    assert grid.size[0] * grid.size[1] <= max(pixels, least * least)
    if size != (1080, 1920):
        frame = torch.rand(1, 1, *size, dtype=torch.float64)
        torch.testing.assert_close(_rebuild(grid, frame), frame)
    assert all(a + grid.size[0] - b >= 2 * overlap for a, b in zip(grid.rows, grid.rows[1:]))
    assert all(a + grid.size[1] - b >= 2 * overlap for a, b in zip(grid.cols, grid.cols[1:]))


def test_the_cheapest_cover_is_strips_where_they_fit_and_never_dearer_than_squares():
    def dear(grid):
        return len(grid) * grid.size[0] * grid.size[1] / (1080 * 1920)

    whole = cheapest_cover(1080, 1920, pixels=1080 * 1920, overlap=16, multiple=4)
    assert (len(whole), whole.size) == (1, (1080, 1920))
    assert dear(cheapest_cover(1080, 1920, pixels=1 << 19, overlap=16, multiple=4)) < 1.1
    assert len(cheapest_cover(1080, 1920, pixels=1080 * 1900, overlap=16, multiple=4)) == 2
    for side in (64, 128, 256):
        square = make_grid(1080, 1920, tile=side, overlap=16, multiple=4)
        cheap = cheapest_cover(1080, 1920, pixels=(side + 32) ** 2, overlap=16, multiple=4)
        assert dear(cheap) <= dear(square)


def test_tiles_may_be_longer_than_high():
    grid = make_grid(100, 200, tile=(20, 200), overlap=4, multiple=4)
    assert grid.size == (28, 200) and len(grid.cols) == 1 and len(grid.rows) == 5
    released = make_grid(100, 200, tile=(20, 40), overlap=4, multiple=4, layout='released')
    assert released.size == (28, 48) and (len(released.rows), len(released.cols)) == (5, 5)
