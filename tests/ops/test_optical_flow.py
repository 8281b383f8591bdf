import cv2
import numpy as np
import pytest
import torch

from jddb_plugin.checks import ShapeError
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.ops.optical_flow import PatchMotion, align_burst, estimate_motion, match_patches, settle, shrink
from jddb_plugin.ops.stabilization import Stabilizer

SHOT, READ = 6.4e-3, 2e-2


def _scene(side=900):
    """A random texture with detail of all sizes, [side, side, 3] in 0 .. 1."""
    rng = np.random.default_rng(0)
    image = sum(cv2.resize(rng.random((side // size, side // size, 3)), (side, side), interpolation=cv2.INTER_CUBIC)
                for size in (3, 12, 50))
    return ((image - image.min()) / (image.max() - image.min())).astype(np.float32)


def _burst(shifts, size=(384, 448), noisy=True):
    """Frames at shifts (y, x) in RGB px from the scene's middle: lq [1, N, 8, h, w], clean packed raw [N, 4, h, w]."""
    scene = _scene()
    clean = []
    for y, x in shifts:
        matrix = np.float32([[1, 0, 200 + x], [0, 1, 200 + y]])
        frame = cv2.warpAffine(scene, matrix, size[::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
        clean.append(mosaic_rgb(torch.from_numpy(frame.clip(0, 1)).permute(2, 0, 1)))
    device = torch.get_default_device()
    clean = torch.stack(clean).to(device)
    raw = NoiseModel.of(SHOT, READ).sample(clean, generator=torch.Generator(device).manual_seed(0)) if noisy else clean
    return torch.cat((raw, NoiseModel.of(SHOT, READ).std(raw)), dim=1)[None], clean


def _stabilizer():
    return Stabilizer.from_levels(torch.tensor(SHOT), torch.tensor(READ ** 2))


# The outermost 60 px of the last show what the reference does not; the flow errs some more beside them.
@pytest.mark.parametrize(('shift', 'border'), [((0, 0), 70), ((3, -2), 70), ((9, 14), 70), ((120, -110), 76)])
def test_motion_of_a_shifted_scene(shift, border):
    lq, _ = _burst([(0, 0), (shift[0] / 2, shift[1] / 2), shift])
    motion = estimate_motion(lq[0, :, :4], _stabilizer(), 0)
    assert not motion[0].any()
    inner = motion[2, border:-border, border:-border]
    expected = torch.tensor([-shift[0] / 2, -shift[1] / 2])  # packed px; what moves down in the picture is found higher up
    assert (inner - expected).abs().mean() < 0.25


def test_a_scene_that_stands_still_does_not_move():
    lq, _ = _burst([(0, 0), (0, 0)])
    assert (estimate_motion(lq[0, :, :4], _stabilizer(), 0)[1] == 0).float().mean() > 0.95


def test_motion_of_less_than_a_pixel_stays():
    lq, _ = _burst([(0, 0), (1, -0.6)])
    motion = estimate_motion(lq[0, :, :4], _stabilizer(), 0)[1, 70:-70, 70:-70]
    assert (motion.mean(dim=(0, 1)) - torch.tensor([-0.5, 0.3])).abs().max() < 0.1


def test_a_small_object_that_moves_in_a_scene_that_stands_still():
    motion = np.zeros((90, 80, 2), np.float32)
    motion[40:44, 50:54] = (3, -1)
    assert np.array_equal(settle(motion), motion)


def test_settled_motion_is_that_of_nested_loops():
    rng = np.random.default_rng(3)
    ramp = np.linspace(-0.1, 0.5, 140)[None, :, None]
    motion = (rng.normal(0, 0.2, (90, 140, 2)) + ramp).astype(np.float32)
    found = settle(motion)
    kept = np.empty((90 - 64, 140 - 64))
    for y in range(32, 90 - 32):
        for x in range(32, 140 - 32):
            square = motion[y - 32:y + 33, x - 32:x + 33].astype(np.float64)
            around = np.linalg.norm(square.clip(-1, 1).mean(axis=(0, 1)))
            own = np.linalg.norm(motion[y, x].astype(np.float64))
            kept[y - 32, x - 32] = min(max((max(around, own / 3) - 0.15) / 0.15, 0), 1)
    assert (kept == 0).any() and (kept == 1).any()
    np.testing.assert_allclose(found[32:-32, 32:-32], motion[32:-32, 32:-32] * kept[..., None], atol=2e-5)


def test_without_the_patches_large_shifts_are_not_found(monkeypatch):
    lq, _ = _burst([(0, 0), (60, -55), (120, -110)])
    still = PatchMotion(torch.zeros(3, 1, 1, 2), torch.zeros(1), torch.zeros(1))
    monkeypatch.setattr('jddb_plugin.ops.optical_flow.match_patches', lambda small, ref_idx: still)
    motion = estimate_motion(lq[0, :, :4], _stabilizer(), 0)
    assert (motion[2, 70:-70, 70:-70] - torch.tensor([-60.0, 55.0])).abs().mean() > 5


def test_aligned_frames_show_the_reference():
    lq, clean = _burst([(-40, 22), (0, 0), (31, -57)])
    aligned = align_burst(lq, 1)
    assert torch.equal(aligned[:, 1], lq[:, 1])
    inner = (..., slice(40, -40), slice(40, -40))
    for k in (0, 2):
        before = (lq[0, k, :4] - clean[1])[inner].square().mean().sqrt()
        after = (aligned[0, k, :4] - clean[1])[inner].square().mean().sqrt()
        assert after < 0.08 < 0.1 < before
        # Noise maps go with their samples.
        torch.testing.assert_close(aligned[0, k, 4:], NoiseModel.of(SHOT, READ).std(aligned[0, k, :4]))


def test_samples_are_aligned_one_by_one():
    first, _ = _burst([(0, 0), (8, 6)])
    second, _ = _burst([(4, -4), (0, 0)])
    both = align_burst(torch.cat((first, second)), 1)
    assert torch.equal(both, torch.cat((align_burst(first, 1), align_burst(second, 1))))


@pytest.mark.parametrize('size', [(2, 2), (6, 40), (30, 30), (64, 66)])
def test_small_frames_are_no_error(size):
    lq = torch.rand(1, 3, 8, *size)
    assert align_burst(lq, 1).shape == lq.shape


def test_a_frame_alone_and_frames_that_are_black_are_no_error():
    lq, _ = _burst([(0, 0), (0, 0)])
    assert torch.equal(align_burst(lq[:, :1], 0), lq[:, :1])
    black = lq.clone()
    black[:, 1, :4] = 0
    assert torch.isfinite(align_burst(black, 0)).all()
    assert torch.isfinite(align_burst(torch.zeros_like(lq), 0)).all()


def test_patches_are_matched():
    gray = torch.from_numpy(_scene(640)[..., 1]).to(torch.get_default_device())
    frames = torch.stack((gray[100:400, 100:420], gray[124:424, 84:404]))
    patches = match_patches(shrink(frames), 0)
    motion = patches.at(1, 100, 200, 320)
    assert motion.shape == (100, 320, 2) and not patches.at(0, 0, 300, 320).any()
    assert (motion[:, 100:-100] - torch.tensor([-24.0, 16.0])).abs().max() == 0


def test_shapes_are_checked():
    with pytest.raises(ShapeError, match='lq'):
        align_burst(torch.zeros(1, 2, 4, 8, 8), 0)
