import itertools

import cv2
import numpy as np
import pytest
import torch

from jddb_plugin.checks import OptionError, ShapeError
from jddb_plugin.ops.bayer import mosaic_rgb, pack, unpack
from jddb_plugin.ops.cfa import (
    CFA_PATTERNS,
    cell_to_rggb,
    flip_mosaic,
    normalize,
    orient,
    restore_frame,
    to_rggb,
)

SIZES = list(itertools.product((6, 7), (8, 9)))


def numbered(cfa, height, width):
    """Mosaic [2, H, W]: in which color (0, 1, 2) each sample was taken, and where."""
    colors = torch.tensor(['rgb'.index(letter) for letter in cfa]).view(2, 2)
    where = torch.arange(height * width).view(height, width)
    return torch.stack((colors.repeat(5, 5)[:height, :width], where))


def is_rggb(colors):
    height, width = colors.shape
    return height % 2 == 0 and width % 2 == 0 and torch.equal(colors, numbered('rggb', height, width)[0])


@pytest.mark.parametrize('cfa', CFA_PATTERNS)
@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_every_pattern_becomes_rggb_and_goes_back(cfa, height, width):
    mosaic = numbered(cfa, height, width)
    cropped, (y, x) = to_rggb(mosaic, cfa)
    assert is_rggb(cropped[0])
    h, w = cropped.shape[-2:]
    assert torch.equal(cropped, mosaic[..., y:y + h, x:x + w])
    assert y in (0, 1) and x in (0, 1) and height - h - y in (0, 1) and width - w - x in (0, 1)
    restored = restore_frame(cropped, (y, x), (height, width))
    assert restored.shape == mosaic.shape
    assert torch.equal(restored[..., y:y + h, x:x + w], cropped)
    expected = np.pad(cropped[1].numpy(force=True), ((y, height - h - y), (x, width - w - x)), mode='edge')
    assert np.array_equal(restored[1].numpy(force=True), expected)


def test_restored_frames_pass_gradients():
    image = torch.rand(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: restore_frame(t, (1, 0), (5, 5)), image)


@pytest.mark.parametrize(('origin', 'size'), [((0, 0), (7, 4)), ((2, 0), (6, 4)), ((0, 0), (4, 3)), ((1, 1), (4, 5))])
def test_restore_frame_refuses_what_is_no_crop(origin, size):
    with pytest.raises(ShapeError, match='at most one line'):
        restore_frame(torch.rand(3, 4, 4), origin, size)


@pytest.mark.parametrize('cfa', CFA_PATTERNS)
def test_cell_values_follow_the_planes(cfa):
    values = [10., 20., 30., 40.]  # each sample of the mosaic carries the value of its cell position
    mosaic = torch.tensor(values).view(2, 2).repeat(4, 4)
    planes = pack(to_rggb(mosaic, cfa)[0])
    assert cell_to_rggb(values, cfa) == tuple(planes[:, 1, 1].tolist())
    assert ''.join(cell_to_rggb(cfa, cfa)) == 'rggb'


def test_gr_is_the_green_beside_red():
    assert cell_to_rggb(('Gr', 'R', 'B', 'Gb'), 'grbg') == ('R', 'Gr', 'Gb', 'B')
    assert cell_to_rggb(('Gb', 'B', 'R', 'Gr'), 'gbrg') == ('R', 'Gr', 'Gb', 'B')
    assert cell_to_rggb(('B', 'Gb', 'Gr', 'R'), 'bggr') == ('R', 'Gr', 'Gb', 'B')


def test_wrong_patterns_and_sizes_are_refused():
    with pytest.raises(OptionError, match="did you mean 'rggb'"):
        to_rggb(torch.rand(4, 4), 'rgbg')
    with pytest.raises(ShapeError, match='at least 3 x 2'):
        to_rggb(torch.rand(2, 4), 'gbrg')
    with pytest.raises(ShapeError, match='four'):
        cell_to_rggb((1, 2, 3), 'rggb')


def test_normalize_puts_black_at_0_and_white_at_1():
    black, white = (64, 60, 62, 66), (1023, 1000, 990, 1020)
    packed = torch.tensor([black, white, (0, 0, 0, 0), (4095,) * 4]).T.reshape(4, 2, 2)
    result = normalize(packed, black, white)
    assert result.dtype == torch.float32
    assert torch.equal(result, torch.tensor([[0., 1.], [0., 1.]]).expand(4, 2, 2))
    middle = normalize(torch.full((3, 4, 1, 1), 500.), black, white)
    torch.testing.assert_close(middle[2, :, 0, 0], torch.tensor([(500 - b) / (w - b) for b, w in zip(black, white)]))


def test_normalize_is_differentiable():
    packed = torch.full((2, 4, 3, 3), 500., dtype=torch.float64) + torch.rand(2, 4, 3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: normalize(t, (1, 2, 3, 4), (1000,) * 4), packed.requires_grad_())


def test_normalize_refuses_other_shapes():
    with pytest.raises(ShapeError, match='4, H, W'):
        normalize(torch.rand(3, 4, 4), (0,) * 4, (1,) * 4)
    with pytest.raises(ShapeError, match='4 levels'):
        normalize(torch.rand(4, 4, 4), (0,) * 3, (1,) * 4)


FLIPS = list(itertools.product((False, True), repeat=3))


@pytest.mark.parametrize(('flip_y', 'flip_x', 'transpose'), FLIPS)
@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_flipped_mosaics_stay_rggb(flip_y, flip_x, transpose, height, width):
    mosaic = numbered('rggb', height, width)
    flipped = flip_mosaic(mosaic, flip_y=flip_y, flip_x=flip_x, transpose=transpose)
    assert is_rggb(flipped[0])
    # The samples are those of the plainly flipped mosaic, less at most one line on each side.
    where = mosaic[1].numpy(force=True)
    where = where[::-1] if flip_y else where
    where = where[:, ::-1] if flip_x else where
    where = where.T if transpose else where
    h, w = flipped.shape[-2:]
    y, x = (int(v[0]) for v in np.nonzero(where == flipped[1, 0, 0].item()))
    assert y in (0, 1) and x in (0, 1) and where.shape[0] - y - h in (0, 1) and where.shape[1] - x - w in (0, 1)
    assert np.array_equal(where[y:y + h, x:x + w], flipped[1].numpy(force=True))


@pytest.mark.parametrize(('flip_y', 'flip_x', 'transpose'), FLIPS)
def test_flipped_mosaics_match_flipped_images(flip_y, flip_x, transpose):
    rgb = torch.rand(3, 8, 10)
    flips = {'flip_y': flip_y, 'flip_x': flip_x, 'transpose': transpose}
    flipped = flip_mosaic(unpack(mosaic_rgb(rgb)), **flips)
    assert torch.equal(pack(flipped), mosaic_rgb(flip_mosaic(rgb, **flips)))


def test_a_mosaic_too_small_to_flip_is_refused():
    with pytest.raises(ShapeError, match='at least'):
        flip_mosaic(torch.rand(2, 4), flip_y=True)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_agrees_with_pillow(orientation, tmp_path):
    from PIL import Image, ImageOps
    stored = np.arange(20, dtype=np.uint8).reshape(4, 5)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(stored).save(tmp_path / 'a.png', exif=exif)
    with Image.open(tmp_path / 'a.png') as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(orient(torch.from_numpy(stored), orientation).numpy(force=True), upright)


def test_turning_by_90_degrees_agrees_with_opencv():
    image = np.arange(20, dtype=np.uint8).reshape(4, 5)
    assert np.array_equal(orient(torch.from_numpy(image), 6).numpy(force=True), cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE))
    with pytest.raises(OptionError, match='orientation'):
        orient(torch.from_numpy(image), 9)
