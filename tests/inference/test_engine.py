import dataclasses

import numpy as np
import pytest
import torch

from jddb_plugin.archs.tiled import process_tiles
from jddb_plugin.checks import OptionError, ShapeError
from jddb_plugin.inference.engine import TiledInference, default_alignment, make_alignment, restore_frame
from jddb_plugin.inference.memory import Plan, make_plan
from jddb_plugin.inference.tiling import TilingOptions
from jddb_plugin.ops.tiling import make_grid
from jddb_plugin.restoration.frames import load_frames
from jddb_plugin.restoration.source import FramesSource
from tests.restoration.samples import CAMERA, MATCHING, make_burst, make_net

TILE, OVERLAP = 16, 4


def grid_of(frames, layout='inside'):
    return make_grid(*frames.packed_size, tile=TILE, overlap=OVERLAP, multiple=4, layout=layout)


def tensor_of(frames):
    """lq [1, N, 8, H, W]."""
    raw = torch.stack([frames.raw(index, 0, frames.packed_size[0]) for index in range(len(frames.mosaics))])
    return frames.noise.planes().with_map(raw)[None]


def _whole(net, frames, layout='inside'):
    """What the network gives for the whole frames, and where it finds the tiles."""
    lq, grid, reference = tensor_of(frames), grid_of(frames, layout), frames.ref_idx
    restored = net(lq, ref_idx=reference, tile=TILE, overlap=OVERLAP, layout=layout)[0]
    if net.coarse is None:
        return restored, torch.zeros(len(grid), len(frames.mosaics), 2, dtype=torch.int64)
    match = net.coarse.match(grid.pad(lq), grid.positions(lq.device)[None], grid.size, reference)
    return restored, match.offset[0] * 4


def _streamed(net, frames, *, step=2, tile_batch=2, layout='inside', align='tiles', **options):
    """The rows put together; each comes once, from top to bottom."""
    tiling = TilingOptions(TILE, OVERLAP, layout)
    alignment = make_alignment(net, FramesSource(frames), align, tiling)
    stream, rows, expected = TiledInference(net, alignment, Plan(grid_of(frames, layout), tile_batch, step, 0), **options), [], 0
    for first, values in stream:
        assert first == expected
        rows.append(values.clone())
        expected += values.shape[1]
    return torch.cat(rows, dim=1), stream


_CASES = [  # coarse, window, layout, frames, reference, size
    ('dpbm', 'symmetric', 'inside', 3, 1, (150, 84)), ('dpbm', 'symmetric', 'inside', 2, 0, (150, 82)),
    ('dpbm', 'symmetric', 'inside', 4, 3, (150, 80)), ('dpbm', 'released', 'released', 3, 2, (150, 80)),
    ('dpbm', 'released', 'inside', 3, 0, (128, 82)), ('dpbm', 'symmetric', 'released', 2, 1, (128, 64)),
    ('block_matching', 'symmetric', 'inside', 3, 1, (151, 82)), ('block_matching', 'released', 'released', 4, 1, (150, 81)),
    ('block_matching', 'symmetric', 'inside', 6, 4, (180, 64)),
    ('none', 'symmetric', 'inside', 3, 0, (150, 82)), ('none', 'released', 'released', 2, 1, (150, 82))]


@pytest.mark.parametrize(('coarse', 'window', 'layout', 'count', 'reference', 'size'), _CASES)
def test_bands_of_tiles_are_the_whole_frame(coarse, window, layout, count, reference, size):
    net = make_net(coarse=coarse, dpbm={**MATCHING, 'window': window})
    frames = load_frames(make_burst(count, size, shift=(8, 12)), reference=reference, count=None, noise='metadata')
    expected, offsets = _whole(net, frames, layout)
    assert coarse == 'none' or (offsets != 0).any(dim=-1).float().mean() > 0.1  # the scene moves
    rows = len(grid_of(frames, layout).rows)
    assert rows >= 4
    for step, tile_batch in ((1, 3), (2, 1), (rows, 100)):
        found, stream = _streamed(net, frames, step=step, tile_batch=tile_batch, layout=layout,
                                  align='none' if coarse == 'none' else 'tiles')
        assert coarse == 'none' or torch.equal(stream.alignment.offsets, offsets.float()), step
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_deformable_offsets_and_neighboring_tiles_matter_here():
    # Else the comparison above would not notice much.
    net = make_net()
    frames = load_frames(make_burst(), reference=1, count=None, noise='metadata')
    expected, _ = _whole(net, frames)
    assert float(expected.std()) > 0.01
    for layer in (net.refine.align.level1.dcn.conv_offset, net.refine.align.level2.dcn.conv_offset):
        layer.weight.zero_()
        layer.bias.zero_()
    assert (_whole(net, frames)[0] - expected).abs().max() > 1e-3


def test_tiles_are_counted_and_the_time_is_told():
    net, counted = make_net(), []
    frames = load_frames(make_burst(size=(100, 90)), reference=1, count=None, noise='metadata')
    _, stream = _streamed(net, frames, on_tiles=counted.append)
    assert sum(counted) == len(stream.grid) and max(counted) == 2
    assert set(stream.seconds) == {'alignment', 'restoration'} and min(stream.seconds.values()) > 0


def test_bf16_is_near_float32_and_matches_the_same():
    net = make_net()
    frames = load_frames(make_burst(), reference=1, count=None, noise='metadata')
    exact, plain = _streamed(net, frames)
    coarse, stream = _streamed(net, frames, bf16=True)
    assert torch.equal(stream.alignment.offsets, plain.alignment.offsets) and coarse.dtype == torch.float32
    assert 0 < float((coarse - exact).abs().max()) < 0.1 * float(exact.abs().max())


@pytest.mark.parametrize('pattern', ['rggb', 'grbg', 'gbrg', 'bggr'])
def test_raw_and_noise_follow_the_pattern(pattern):
    camera = dataclasses.replace(CAMERA, cfa=pattern)
    frames = load_frames(make_burst(2, (33, 43), camera=camera), reference=0, count=None, noise='metadata')
    y, x = divmod(pattern.index('r'), 2)
    assert frames.packed_size == ((33 - y) // 2, (43 - x) // 2)
    raw = frames.raw(1, 2, 5)
    for plane in range(4):
        i, j = divmod(plane, 2)
        place = 2 * ((y + i) % 2) + (x + j) % 2
        samples = frames.mosaics[1].read(0, 33)[y + i::2, x + j::2][2:5, :frames.packed_size[1]].astype(np.float64)
        black, white = camera.black_level[place], camera.white_level[place]
        expected = np.clip((samples - black) / (white - black), 0, 1)
        assert np.abs(raw[plane].numpy() - expected).max() < 1e-6
        assert frames.noise.shot[1, plane] == pytest.approx(camera.noise_shot[place])
        std = np.sqrt(camera.noise_shot[place] * expected + camera.noise_read[place] ** 2)
        assert np.abs(frames.noise.planes().std(torch.stack((raw, raw)))[1, plane].numpy() - std).max() < 1e-6


def test_the_walk_stays_in_the_reach_of_a_band():
    # A row that no band needs may hold anything; here: the rows above the last band.
    net = make_net(coarse='block_matching', dpbm={'radius': 1, 'stride': 1})
    frames = load_frames(make_burst(2, (200, 64)), reference=0, count=None, noise='metadata')
    asked = []

    class Watched(type(frames)):
        def raw(self, index, first, last):
            asked.append((first, last))
            return super().raw(index, first, last)

    _streamed(net, Watched(**vars(frames)), step=1, tile_batch=4)
    tallest = max(last - first for first, last in asked)
    assert tallest <= 24 + 2 * (4 * net.coarse.window.max_displacement(2, 0) + 16) < 100


def test_walk_tiles_is_the_oracle_of_the_network():
    net = make_net(coarse='none')
    lq = torch.rand(1, 2, 8, 24, 28)
    grid = make_grid(24, 28, tile=16, overlap=4, multiple=4)
    expected = process_tiles(lq, grid, lambda t: net.refine(t, 1).restored, coarse=None, tile_batch=1, ref_idx=1)
    torch.testing.assert_close(net(lq, tile=16), expected)


def test_a_tensor_and_files_are_restored_alike():
    """What validation scores is what the restore command delivers."""
    net = make_net()
    frames = load_frames(make_burst(3, (100, 90)), reference=0, count=None, noise='metadata')
    for align in ('tiles', 'smooth', 'flow', 'none'):
        expected, _ = _streamed(net, frames, align=align)
        found = restore_frame(net, tensor_of(frames), 0, align=align, tiling=TilingOptions(TILE, OVERLAP))[0]
        # Flow: levels of the noise are known there, and read off the noise map here.
        assert (found - expected).abs().mean() < (1e-3 if align == 'flow' else 1e-6), align


def test_a_batch_is_restored_burst_by_burst():
    net = make_net()
    lq = torch.rand(2, 2, 8, 22, 27)
    together = restore_frame(net, lq)
    assert together.shape == (2, 3, 44, 54)
    assert torch.equal(together[1], restore_frame(net, lq[1:])[0])


def test_the_network_chooses_its_alignment():
    assert default_alignment(make_net()) == default_alignment(make_net(coarse='block_matching')) == 'smooth'
    assert default_alignment(make_net(coarse='none')) == 'none'
    net = make_net(coarse='none')
    net.aligned_input = True
    assert default_alignment(net) == 'flow'


def test_wrong_input_is_named():
    net, lq = make_net(), torch.rand(1, 2, 8, 24, 28)
    with pytest.raises(OptionError, match="align: 'smoth' is not a valid choice; did you mean 'smooth'"):
        restore_frame(net, lq, align='smoth')
    with pytest.raises(OptionError, match='layout: released pads frames by zeros, which must not be moved'):
        restore_frame(net, lq, align='smooth', tiling=TilingOptions(layout='released'))
    with pytest.raises(OptionError, match='tile: expected a multiple of 4 in 4 .. 4096, got 18'):
        restore_frame(net, lq, tiling=TilingOptions(18))
    with pytest.raises(ShapeError, match='ref_idx is 2, but the burst has 2 frames'):
        restore_frame(net, lq, 2)
    with pytest.raises(ShapeError, match=r'lq: expected \[N, 8, H, W\]'):
        restore_frame(net, lq[:, :, :4])
    with pytest.raises(OptionError, match='not enough memory for a single tile'):
        restore_frame(net, lq, memory=1 << 16)


def test_strips_cover_a_frame_more_cheaply_than_squares():
    net = make_net(coarse='none')
    net.context = 4
    burst = make_burst(2, (400, 600))
    frames = load_frames(burst, reference=0, count=None, noise='metadata')
    alignment = make_alignment(net, FramesSource(frames), 'flow', TilingOptions())
    plan = make_plan(net, alignment, TilingOptions(), free=264 << 20)
    assert plan.tile_batch == 1 and plan.grid.size[1] >= 300
    small = make_plan(net, alignment, TilingOptions(), free=88 << 20)
    assert len(small.grid) > 1 and small.bytes <= 88 << 20
    assert all(a + small.grid.size[0] - b >= 8 for a, b in zip(small.grid.rows, small.grid.rows[1:]))
