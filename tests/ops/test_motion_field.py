import cv2
import numpy as np
import pytest
import torch

from jddb_plugin.ops.motion_field import FINER, MotionField, refine_offsets, replace_outliers


def _picture(side=96, *, seed=0, smooth=2.0):
    picture = np.random.default_rng(seed).random((side, side, 4))
    return cv2.GaussianBlur(picture, (0, 0), smooth) * 8


def _tensor(picture):
    return torch.from_numpy(picture).to(torch.get_default_device())


def _moved(picture, y, x):
    """What lies at (r, c) of the result lies at (r - y, c - x) of the picture."""
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float64)
    return cv2.warpAffine(picture, matrix, picture.shape[1::-1], flags=cv2.INTER_CUBIC)


@pytest.mark.parametrize(('y', 'x'), [(0, 0), (1, -2), (0.5, 0.25), (-1.3, 2.4), (-0.7, -0.1)])
@pytest.mark.parametrize('noise', [0, 0.02])
def test_fractions_of_a_pixel_are_found(y, x, noise):
    rng = np.random.default_rng(1)
    reference = _picture()
    frame = _moved(reference, 8 + y, -4 + x)
    reference, frame = (_tensor(image + rng.normal(0, noise, image.shape)) for image in (reference, frame))
    corners = torch.tensor([[20, 20], [40, 30], [24, 44]])
    found = refine_offsets(reference, frame, corners, torch.tensor([[8, -4]]).expand(3, 2), (32, 32))
    assert (found - torch.tensor([8 + y, -4 + x])).abs().max() < 0.2


def test_the_best_whole_pixel_is_that_of_nested_loops():
    reference, frame = (_tensor(_picture(40, seed=seed)) for seed in (0, 1))
    corners, offsets, size = torch.tensor([[10, 12], [14, 9]]), torch.tensor([[1, -2], [0, 3]]), (7, 9)
    found = refine_offsets(reference, frame, corners, offsets, size)
    for k, (corner, offset) in enumerate(zip(corners.tolist(), offsets.tolist())):
        best = None
        for y in range(-FINER, FINER + 1):
            for x in range(-FINER, FINER + 1):
                total = 0.0
                for i in range(size[0]):
                    for j in range(size[1]):
                        a = reference[corner[0] + i, corner[1] + j]
                        b = frame[corner[0] + i + offset[0] + y, corner[1] + j + offset[1] + x]
                        total += float((a - b).abs().sum())
                best = min(best or (total, y, x), (total, y, x))
        assert (found[k] - torch.tensor([offset[0] + best[1], offset[1] + best[2]])).abs().max() <= 0.5


def test_a_flat_picture_moves_by_finite_numbers_and_not_far():
    flat = torch.full((40, 40, 4), 0.3)
    found = refine_offsets(flat, flat, torch.tensor([[8, 8]]), torch.tensor([[4, -4]]), (8, 8))
    assert torch.isfinite(found).all() and (found - torch.tensor([4, -4])).abs().max() <= FINER


def _slow(field, frame, y, x):
    """Motion of one pixel by the definition."""
    def around(centers, place):
        place = min(max(place, float(centers[0])), float(centers[-1]))
        for k in range(len(centers) - 1):
            if centers[k] <= place <= centers[k + 1]:
                part = (place - float(centers[k])) / float(centers[k + 1] - centers[k])
                return [(k, 1 - part), (k + 1, part)]
        return [(0, 1.0)]

    corners = [(wy * wx, field.offsets[frame, i, j])
               for i, wy in around(field.rows, y + 0.5) for j, wx in around(field.cols, x + 0.5)]
    nearest = max(corners, key=lambda corner: corner[0])[1]
    alike = [(weight, motion) for weight, motion in corners if (motion - nearest).abs().max() <= field.jump]
    return sum(weight * motion for weight, motion in alike) / sum(weight for weight, _ in alike)


@pytest.mark.parametrize(('rows', 'cols'), [((8., 20., 36.), (6., 19.)), ((10.,), (5., 17., 30.)), ((9.,), (12.,))])
@pytest.mark.parametrize('jump', [3.0, 1e9])
def test_the_field_is_that_of_nested_loops(rows, cols, jump):
    torch.manual_seed(0)
    field = MotionField(torch.tensor(rows), torch.tensor(cols), 4 * torch.randn(2, len(rows), len(cols), 2), jump)
    whole = field.at(1, 0, 44, 36)
    for y in range(44):
        for x in range(36):
            assert (whole[y, x] - _slow(field, 1, y, x)).abs().max() < 1e-5, (y, x)
    assert torch.equal(field.at(1, 13, 29, 36), whole[13:29])


def test_things_that_move_apart_are_not_mixed():
    offsets = torch.zeros(1, 2, 2, 2)
    offsets[0, :, 1] = 20  # the right half moves
    apart = MotionField(torch.tensor([4., 12.]), torch.tensor([4., 12.]), offsets, 8.0).at(0, 0, 16, 16)
    assert set(apart.unique().tolist()) == {0.0, 20.0} and (apart[:, :8] == 0).all() and (apart[:, 8:] == 20).all()


def test_what_one_window_alone_says_is_not_believed():
    torch.manual_seed(0)
    offsets = torch.rand(2, 6, 7, 2)
    offsets[0, :, 4:] += 20  # an object that several windows see, to stay
    expected = offsets.clone()
    offsets[1, 2, 3], offsets[1, 2, 4], offsets[1, 0, 0] = torch.tensor([40., 0.]), torch.tensor([44., 3.]), -30.0
    found = replace_outliers(offsets, 8.0)
    assert (found - expected).abs().max() < 1
    unchanged = torch.ones(2, 6, 7, dtype=torch.bool)
    unchanged[1, 2, 3:5] = unchanged[1, 0, 0] = False
    assert torch.equal(found[unchanged], offsets[unchanged])
    around = [offsets[1, y, x] for y, x in ((0, 1), (1, 0), (1, 1))]
    assert torch.equal(found[1, 0, 0], torch.stack(around).median(dim=0).values)
    alone = torch.full((1, 1, 1, 2), 5.0)
    assert torch.equal(replace_outliers(alone, 8.0), alone)
