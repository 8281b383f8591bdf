import cv2
import numpy as np
import pytest
import torch

from jddb_plugin.checks import OptionError
from jddb_plugin.inference.align import SmoothAlignment
from jddb_plugin.inference.engine import TiledInference, make_alignment, restore_frame
from jddb_plugin.inference.flow import FlowAlignment, parts_of_rows
from jddb_plugin.inference.memory import Plan
from jddb_plugin.inference.source import TensorSource
from jddb_plugin.inference.tiling import TilingOptions
from jddb_plugin.ops.optical_flow import align_burst
from jddb_plugin.ops.tile_extraction import extract_tiles
from jddb_plugin.ops.tiling import make_grid
from jddb_plugin.restoration import Burst, Settings
from jddb_plugin.restoration.frames import load_frames
from jddb_plugin.restoration.source import FramesSource
from tests.restoration.samples import CAMERA, make_net, mosaic_of

_DPBM = {'radius': 4, 'stride': 2}
_TILING = TilingOptions(32, 4)
_CPU = torch.device('cpu')


def _zooming(size=(320, 384), *, noise=20.0):
    """(burst, motion [2, H / 2, W / 2, 2] in packed pixels of its two outer frames): a camera that zooms and turns a little."""
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.random((*size, 3)).astype(np.float32), (0, 0), 3.0)
    scene = 0.05 + 0.7 * (scene - scene.min()) / (scene.max() - scene.min())
    center = size[1] / 2 + 0.5, size[0] / 2 + 0.5
    y, x = np.meshgrid(np.arange(size[0] // 2), np.arange(size[1] // 2), indexing='ij')
    place = np.stack((2 * x + 0.5, 2 * y + 0.5, np.ones_like(x)), axis=-1)  # of a packed pixel in samples
    frames, motion = [], []
    for step in (-1, 0, 1):
        matrix = cv2.getRotationMatrix2D(center, 0.6 * step, 1 + 0.05 * step)
        matrix[:, 2] += (6 * step, -10 * step)
        rgb = cv2.warpAffine(scene, matrix, size[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT).clip(0, 1)
        frames.append(np.clip(mosaic_of(rgb) + rng.normal(0, noise, size).round(), 0, 4095).astype(np.uint16))
        if step:
            motion.append((place @ matrix.T - place[..., :2])[..., ::-1] / 2)
    return Burst.from_arrays(frames, CAMERA), np.stack(motion)


def _parts(burst, **options):
    net = make_net(coarse='block_matching', dpbm=_DPBM, **options)
    frames = load_frames(burst, reference=1, count=None, noise='metadata')
    return net, frames


def _smooth(net, frames):
    return SmoothAlignment(FramesSource(frames), net.coarse, net.coarse.window, (32, 4), _CPU)


def _grid(frames):
    return make_grid(*frames.packed_size, tile=32, overlap=4, multiple=4)


def _still(frames):
    return torch.stack([FramesSource(frames).read(k, 0, frames.packed_size[0]) for k in range(len(frames.mosaics))])


def _flow(net, frames):
    return FlowAlignment(FramesSource(frames), _CPU)


@pytest.mark.parametrize('make', [_smooth, _flow])
def test_motion_that_changes_within_a_tile_is_followed(make):
    burst, truth = _zooming()
    net, frames = _parts(burst)
    alignment = make(net, frames)
    alignment.estimate(2)
    inner = slice(32, -32), slice(32, -32)
    for index, expected in ((0, truth[0]), (2, truth[1])):
        found = (alignment.field.at(index, 0, 160, 192) if make is _smooth else alignment.motion(index, 0, 160)).numpy()
        assert np.ptp(expected[inner], axis=(0, 1)).min() > 4  # one motion for all would not do
        assert np.abs(found - expected)[inner].mean() < 0.3
    if make is _smooth:
        assert alignment.windows.size == (40, 40) and alignment.windows.rows[1] - alignment.windows.rows[0] <= 16
        assert float(alignment.field.offsets[1].abs().max()) == 0
    # Moved, the frames look like the reference; where they are not, they do not.
    moved = alignment.aligned_rows(_grid(frames), 0, 160)[0][(..., *inner)]
    still = _still(frames)[(..., *inner)]
    assert torch.equal(moved[1], still[1])
    for index in (0, 2):
        assert (moved[index] - still[1])[:4].abs().mean() < 0.5 * (still[index] - still[1])[:4].abs().mean()


@pytest.mark.parametrize('make', [_smooth, _flow])
def test_parts_and_rows_do_not_matter(make):
    burst, _ = _zooming((322, 262))
    net, frames = _parts(burst)
    grid, found = _grid(frames), {}
    for step in (1, 3, 100):
        alignment = make(net, frames)
        alignment.estimate(step)
        if make is _smooth:
            found[step] = alignment.field.offsets
        else:
            found[step] = torch.stack([alignment.motion(k, 0, 161) for k in range(3)])
    for step in (1, 3):
        difference = (found[step] - found[100]).abs()
        assert difference.mean() < 1e-4 if make is _smooth else difference.quantile(0.99) < 0.1
    rows = alignment.aligned_rows(grid, 0, grid.padded[0])
    assert rows.shape == (1, 3, 8, 164, 132)
    for first, last in ((37, 141), (150, 164)):
        torch.testing.assert_close(alignment.aligned_rows(grid, first, last), rows[:, :, :, first:last], atol=2e-5, rtol=0)
    assert torch.equal(rows[..., 161:, :], rows[..., 160:161, :].expand(-1, -1, -1, 3, -1))  # the border repeats
    assert torch.equal(rows[..., 131], rows[..., 130])


def test_pixels_are_taken_from_where_they_moved_to():
    burst, _ = _zooming((160, 192))
    net, frames = _parts(burst)
    alignment = _smooth(net, frames)
    alignment.estimate(2)
    moved, motion = alignment.aligned_rows(_grid(frames), 0, 80)[0, 2], alignment.field.at(2, 0, 80, 96).round()
    every = _still(frames)[2]
    for y in range(80):
        for x in range(96):
            dy, dx = motion[y, x].int().tolist()
            assert torch.equal(moved[:, y, x], every[:, min(max(y + dy, 0), 79), min(max(x + dx, 0), 95)])


def test_flow_by_strips_is_that_of_whole_frames():
    """The plain form holds whole frames and motion in floating point; here motion is kept in 1 / 32 px."""
    burst, _ = _zooming()
    _, frames = _parts(burst)
    lq = _still(frames)
    expected = align_burst(lq[None], 1)[0]
    alignment = FlowAlignment(TensorSource(lq, 1), _CPU)
    alignment.estimate(alignment.steps)
    found = alignment.aligned_rows(_grid(frames), 0, 160)[0]
    assert torch.equal(found[1], expected[1])
    for index in (0, 2):
        assert (found[index] - expected[index]).abs().mean() < 0.03 * (lq[index] - expected[index]).abs().mean()


@pytest.mark.parametrize(('most', 'count'), [(200, 1), (190, 6), (160, 50)])
def test_parts_cover_a_frame_and_hold_what_moved(most, count):
    moved = torch.tensor([[-8.0, 0], [3.0, 20]])
    parts = parts_of_rows(200, most, moved)
    assert [row for kept, _ in parts for row in kept] == list(range(200))
    for kept, used in parts:
        assert used == range(max(kept.start - 72, 0), min(kept.stop + 84, 200))
        assert len(used) <= most
    assert len(parts) == count


def test_motion_of_a_long_burst_fits_into_what_keeps_it():
    lq = torch.rand(40, 8, 16, 16)
    alignment = FlowAlignment(TensorSource(lq, 0), _CPU)
    assert alignment.max_displacement > 1900
    alignment.estimate(1)
    for motion in (alignment.max_displacement, -alignment.max_displacement):
        alignment._motion[39][:] = np.rint(motion * alignment._fractions)
        assert (alignment.motion(39, 0, 16) - motion).abs().max() < 0.1
    assert FlowAlignment(TensorSource(lq[:5], 2), _CPU)._fractions == 32


class _Averaging(TiledInference):
    """Averages the aligned frames in place of restoring them."""

    def restore(self, band, chosen):
        raw = extract_tiles(band.rows, band.corners[:, chosen], band.offsets[:, chosen], self.grid.size)[0][:, :, :3].mean(dim=1)
        return raw.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)


@pytest.mark.parametrize('coarse', ['dpbm', 'block_matching'])
def test_what_is_restored_does_not_depend_on_where_tiles_lie(coarse):
    burst, _ = _zooming()
    _, frames = _parts(burst)
    net = make_net(coarse=coarse, dpbm=_DPBM)
    changes = {}
    for align in ('tiles', 'smooth', 'flow'):
        pictures = []
        for grid in (_grid(frames), _grid(frames).shifted(16)):
            alignment = make_alignment(net, FramesSource(frames), align, _TILING)
            if align == 'tiles':
                alignment = type(alignment)(alignment.source, net.coarse, net.coarse.window, grid, _CPU)
            inference = _Averaging(net, alignment, Plan(grid, 4, 2, 0))
            pictures.append(torch.cat([rows.clone() for _, rows in inference], dim=1))
        changes[align] = float((pictures[0] - pictures[1]).abs().max())
    assert changes['tiles'] > 0.05 and max(changes['smooth'], changes['flow']) < 1e-6, changes


def test_frames_smaller_than_a_tile_and_any_alignment():
    lq = torch.rand(1, 3, 8, 17, 19)
    lq[:, :, 4:] *= 0.05
    for coarse in ('block_matching', 'none'):
        net = make_net(coarse=coarse, dpbm={'radius': 2})
        for align in ('tiles', 'smooth', 'flow', 'none'):
            restored = restore_frame(net, lq, 0, align=align)
            assert restored.shape == (1, 3, 34, 38) and torch.isfinite(restored).all()


def test_released_padding_is_not_moved():
    net = make_net(dpbm={'radius': 2})
    lq = torch.rand(1, 2, 8, 32, 40)
    tiling = TilingOptions(16, 4, 'released')
    for align in ('smooth', 'flow'):
        with pytest.raises(OptionError, match='layout: released pads frames by zeros'):
            restore_frame(net, lq, align=align, tiling=tiling)
    assert restore_frame(net, lq, align='tiles', tiling=tiling).shape == (1, 3, 64, 80)
    with pytest.raises(OptionError, match='^align: smooth cannot be combined with window released, which moves whole tiles'):
        Settings(window='released', align='smooth')
    with pytest.raises(OptionError, match='^align'):
        Settings(align='smoth')
