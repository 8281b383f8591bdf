import dataclasses

import numpy as np
import pytest
import torch

from jddb_plugin.archs.tile_walk import walk_tiles
from jddb_plugin.restoration.frames import load_frames
from jddb_plugin.restoration.stream import TileStream, grid_of
from tests.restoration.samples import CAMERA, TILES, make_burst, make_net


def _whole(net, frames):
    """What the network gives for the whole frames, and where it finds the tiles."""
    light = torch.stack([frames.light(index, 0, frames.packed_size[0]) for index in range(len(frames.mosaics))])[None]
    lq = torch.cat((light, frames.noise_map(light)), dim=2)
    grid = grid_of(net, frames.packed_size)
    if net.coarse is None:
        return net(lq)[0], torch.zeros(len(grid), len(frames.mosaics), 2, dtype=torch.int64)
    match = net.coarse.match(grid.pad(lq), grid.positions(lq.device)[None], grid.size)
    return net(lq)[0], match.offset[0] * 4


def _streamed(net, frames, **options):
    """The rows put together; each comes once, from top to bottom."""
    stream, rows, expected = TileStream(net, frames, **options), [], 0
    for first, values in stream:
        assert first == expected
        rows.append(values.clone())
        expected += values.shape[1]
    return torch.cat(rows, dim=1), stream


_CASES = [  # coarse, window, layout, frames, reference, size
    ('dpbm', 'symmetric', 'inside', 3, 1, (150, 84)), ('dpbm', 'symmetric', 'inside', 2, 0, (150, 82)),
    ('dpbm', 'symmetric', 'inside', 4, 3, (150, 80)), ('dpbm', 'published', 'published', 3, 2, (150, 80)),
    ('dpbm', 'published', 'inside', 3, 0, (128, 82)), ('dpbm', 'symmetric', 'published', 2, 1, (128, 64)),
    ('block_matching', 'symmetric', 'inside', 3, 1, (151, 82)), ('block_matching', 'published', 'published', 4, 1, (150, 81)),
    ('block_matching', 'symmetric', 'inside', 6, 4, (180, 64)),
    ('none', 'symmetric', 'inside', 3, 0, (150, 82)), ('none', 'published', 'published', 2, 1, (150, 82))]


@pytest.mark.parametrize(('coarse', 'window', 'layout', 'count', 'reference', 'size'), _CASES)
def test_bands_of_tiles_are_the_whole_frame(coarse, window, layout, count, reference, size):
    options = {**TILES, 'stride': 1, 'window': window, 'layout': layout}
    net = make_net(coarse=coarse, dpbm=options, ref_idx=reference)
    frames = load_frames(make_burst(count, size, shift=(8, 12)), reference=reference, count=None, noise='metadata')
    expected, offsets = _whole(net, frames)
    assert coarse == 'none' or (offsets != 0).any(dim=-1).float().mean() > 0.1  # the scene moves
    rows = len(grid_of(net, frames.packed_size).rows)
    assert rows >= 4
    for band, tile_batch in ((1, 3), (2, 1), (rows, 100)):
        found, stream = _streamed(net, frames, band=band, tile_batch=tile_batch)
        assert torch.equal(stream.offsets, offsets.float()), band
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_deformable_offsets_and_neighbouring_tiles_matter_here():
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
    _, stream = _streamed(net, frames, band=2, tile_batch=2, on_tiles=counted.append)
    assert sum(counted) == len(stream.grid) and max(counted) == 2
    assert set(stream.seconds) == {'matching', 'refined stage'} and min(stream.seconds.values()) > 0


def test_bf16_is_near_float32_and_matches_the_same():
    net = make_net()
    frames = load_frames(make_burst(), reference=1, count=None, noise='metadata')
    exact, plain = _streamed(net, frames, band=2, tile_batch=2)
    coarse, stream = _streamed(net, frames, band=2, tile_batch=2, bf16=True)
    assert torch.equal(stream.offsets, plain.offsets) and coarse.dtype == torch.float32
    assert 0 < float((coarse - exact).abs().max()) < 0.1 * float(exact.abs().max())


@pytest.mark.parametrize('pattern', ['rggb', 'grbg', 'gbrg', 'bggr'])
def test_light_and_noise_follow_the_pattern(pattern):
    camera = dataclasses.replace(CAMERA, cfa=pattern)
    frames = load_frames(make_burst(2, (33, 43), camera=camera), reference=0, count=None, noise='metadata')
    y, x = divmod(pattern.index('r'), 2)
    assert frames.packed_size == ((33 - y) // 2, (43 - x) // 2)
    light = frames.light(1, 2, 5)
    for plane in range(4):
        i, j = divmod(plane, 2)
        place = 2 * ((y + i) % 2) + (x + j) % 2
        samples = frames.mosaics[1].read(0, 33)[y + i::2, x + j::2][2:5, :frames.packed_size[1]].astype(np.float64)
        black, white = camera.black_level[place], camera.white_level[place]
        expected = np.clip((samples - black) / (white - black), 0, 1)
        assert np.abs(light[plane].numpy() - expected).max() < 1e-6
        assert frames.noise[0][1, plane] == pytest.approx(camera.noise_shot[place])
        std = np.sqrt(camera.noise_shot[place] * expected + camera.noise_read[place] ** 2)
        assert np.abs(frames.noise_map(torch.stack((light, light)))[1, plane].numpy() - std).max() < 1e-6


def test_the_walk_stays_in_the_reach_of_a_band():
    # A row that no band needs may hold anything; here: the rows above the last band.
    net = make_net(coarse='block_matching', dpbm={**TILES, 'radius': 1, 'stride': 1})
    frames = load_frames(make_burst(2, (200, 64)), reference=0, count=None, noise='metadata')
    asked = []

    class Watched(type(frames)):
        def light(self, index, first, last):
            asked.append((first, last))
            return super().light(index, first, last)

    _streamed(net, Watched(**vars(frames)), band=1, tile_batch=4)
    tallest = max(last - first for first, last in asked)
    assert tallest <= 24 + 2 * (net.coarse.reach(2) + 16) < 100


def test_walk_tiles_is_the_oracle_of_the_network():
    net = make_net(coarse='none')
    lq = torch.rand(1, 2, 8, 24, 28)
    grid = grid_of(net, (24, 28))
    torch.testing.assert_close(walk_tiles(lq, grid, lambda t: net.refine(t, 1).restored, coarse=None, tile_batch=1), net(lq))
