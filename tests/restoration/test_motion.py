import cv2
import numpy as np
import pytest
import torch

from jddb_plugin.checks import OptionError
from jddb_plugin.ops.block_matching import take_tiles
from jddb_plugin.restoration import Burst, Settings
from jddb_plugin.restoration.frames import load_frames
from jddb_plugin.restoration.motion import find_motion, lattice_of, moved_rows
from jddb_plugin.restoration.slabs import Slabs
from jddb_plugin.restoration.stream import TileStream, grid_of
from tests.restoration.samples import CAMERA, make_burst, make_net, mosaic_of

_DPBM = {'tile': 32, 'overlap': 4, 'radius': 4, 'stride': 2}


def _zooming(size=(320, 384), *, noise=20.0):
    """(burst, motion [2, H / 2, W / 2, 2] in packed pixels of its two outer frames): a camera that zooms and turns a little."""
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.random((*size, 3)).astype(np.float32), (0, 0), 3.0)
    scene = 0.05 + 0.7 * (scene - scene.min()) / (scene.max() - scene.min())
    centre = size[1] / 2 + 0.5, size[0] / 2 + 0.5
    y, x = np.meshgrid(np.arange(size[0] // 2), np.arange(size[1] // 2), indexing='ij')
    place = np.stack((2 * x + 0.5, 2 * y + 0.5, np.ones_like(x)), axis=-1)  # of a packed pixel in samples
    frames, motion = [], []
    for step in (-1, 0, 1):
        matrix = cv2.getRotationMatrix2D(centre, 0.6 * step, 1 + 0.05 * step)
        matrix[:, 2] += (6 * step, -10 * step)
        rgb = cv2.warpAffine(scene, matrix, size[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT).clip(0, 1)
        frames.append(np.clip(mosaic_of(rgb) + rng.normal(0, noise, size).round(), 0, 4095).astype(np.uint16))
        if step:
            motion.append((place @ matrix.T - place[..., :2])[..., ::-1] / 2)
    return Burst.from_arrays(frames, CAMERA), np.stack(motion)


def _parts(burst, **options):
    net = make_net(coarse='block_matching', dpbm=_DPBM, ref_idx=1, **options)
    frames = load_frames(burst, reference=1, count=None, noise='metadata')
    return net, frames


def test_motion_that_changes_within_a_tile_is_followed():
    burst, truth = _zooming()
    net, frames = _parts(burst)
    slabs = Slabs(net, frames, grid_of(net, frames.packed_size))
    lattice = lattice_of(net, frames.packed_size)
    assert lattice.size == (40, 40) and lattice.rows[1] - lattice.rows[0] <= 16
    field = find_motion(slabs, lattice, band=2)
    assert float(field.offsets[1].abs().max()) == 0
    inner = slice(32, -32), slice(32, -32)
    for index, expected in ((0, truth[0]), (2, truth[1])):
        found = field.at(index, 0, 160, 192).numpy()
        assert np.ptp(expected[inner], axis=(0, 1)).min() > 4  # one motion for all would not do
        assert np.abs(found - expected)[inner].mean() < 0.3
    # Moved, the frames look like the reference; where they are not, they do not.
    moved = moved_rows(slabs, field, 0, 160)[0][(..., *inner)]
    still = slabs.read(0, 160)[0][(..., *inner)]
    assert torch.equal(moved[1], still[1])
    for index in (0, 2):
        assert (moved[index] - still[1]).abs().mean() < 0.5 * (still[index] - still[1]).abs().mean()


def test_bands_and_rows_do_not_matter():
    burst, _ = _zooming((322, 262))
    net, frames = _parts(burst)
    slabs = Slabs(net, frames, grid_of(net, frames.packed_size))
    lattice = lattice_of(net, frames.packed_size)
    whole = find_motion(slabs, lattice, len(lattice.rows))
    for band in (1, 3):
        torch.testing.assert_close(find_motion(slabs, lattice, band).offsets, whole.offsets, rtol=0, atol=1e-4)
    rows = moved_rows(slabs, whole, 0, slabs.height)
    assert torch.equal(moved_rows(slabs, whole, 37, 141), rows[:, :, :, 37:141])


def test_pixels_are_taken_from_where_they_moved_to():
    burst, _ = _zooming((160, 192))
    net, frames = _parts(burst)
    slabs = Slabs(net, frames, grid_of(net, frames.packed_size))
    field = find_motion(slabs, lattice_of(net, frames.packed_size), 2)
    moved, motion, light = moved_rows(slabs, field, 0, 80)[0, 2], field.at(2, 0, 80, 96).round(), frames.light(2, 0, 80)
    for y in range(80):
        for x in range(96):
            dy, dx = motion[y, x].int().tolist()
            assert torch.equal(moved[:, y, x], light[:, min(max(y + dy, 0), 79), min(max(x + dx, 0), 95)])


class _Averaging(TileStream):
    """Averages the aligned frames in place of restoring them."""

    def _restore(self, slab, positions, offsets):
        light = take_tiles(slab, positions, offsets, self.grid.size)[0].mean(dim=1)[:, :3]
        return light.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)


@pytest.mark.parametrize('coarse', ['dpbm', 'block_matching'])
def test_what_is_restored_does_not_depend_on_where_tiles_lie(coarse):
    burst, _ = _zooming()
    net, frames = _parts(burst)
    net = make_net(coarse=coarse, dpbm=_DPBM, ref_idx=1)
    grid = grid_of(net, frames.packed_size)
    changes = {}
    for smooth in (False, True):
        a, b = (torch.cat([rows.clone() for _, rows in _Averaging(net, frames, band=2, tile_batch=4, smooth=smooth, grid=tiles)],
                          dim=1) for tiles in (grid, grid.shifted(16)))
        changes[smooth] = float((a - b).abs().max())
    assert changes[False] > 0.05 and changes[True] < 1e-6, changes


def test_the_bands_of_a_smooth_walk_do_not_matter():
    burst, _ = _zooming((322, 130))
    net, frames = _parts(burst)
    results = []
    for band, tile_batch in ((1, 1), (100, 3)):
        stream = TileStream(net, frames, band=band, tile_batch=tile_batch, smooth=True)
        results.append(torch.cat([rows.clone() for _, rows in stream], dim=1))
        assert stream.matched.size == (40, 40) and len(stream.offsets) == len(stream.matched) > len(stream.grid)
        assert float(stream.offsets.abs().max()) > 4 and min(stream.seconds.values()) > 0
    assert results[0].shape == (3, 322, 130)
    # A window whose fraction falls just above or below half a pixel may round the other way.
    assert (results[0] - results[1]).abs().mean() < 1e-4


def test_frames_smaller_than_a_tile_and_without_alignment():
    for coarse in ('block_matching', 'none'):
        net = make_net(coarse=coarse, dpbm={'tile': 16, 'overlap': 4, 'radius': 2}, ref_idx=0)
        frames = load_frames(make_burst(2, (34, 38)), reference=0, count=None, noise='metadata')
        stream = TileStream(net, frames, band=1, tile_batch=1, smooth=True)
        assert torch.isfinite(torch.cat([rows.clone() for _, rows in stream], dim=1)).all()
        assert stream.smooth == (coarse != 'none')


def test_padding_of_zeros_is_not_moved():
    net = make_net(dpbm={'tile': 16, 'overlap': 4, 'radius': 2, 'layout': 'published'}, ref_idx=0)
    frames = load_frames(make_burst(2), reference=0, count=None, noise='metadata')
    with pytest.raises(ValueError, match='needs tiles inside the frame'):
        TileStream(net, frames, band=1, tile_batch=1, smooth=True)
    assert Settings().smooth and not Settings(window='published').smooth and not Settings(align='tiles').smooth
    with pytest.raises(OptionError, match='align: smooth does not go with window published'):
        Settings(window='published', align='smooth')
    with pytest.raises(OptionError, match="^align: 'smoth' is not a valid choice"):
        Settings(align='smoth')
