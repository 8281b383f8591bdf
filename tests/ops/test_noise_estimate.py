import pytest
import torch

from jddb_plugin.checks import ShapeError
from jddb_plugin.data.images import to_float
from jddb_plugin.data.photographs import photograph
from jddb_plugin.noise_option import TEST_LEVELS
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.camera import reference_camera
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.ops.noise_estimate import estimate_noise

LEVELS = [(1e-4, 1e-3), (1e-3, 5e-3), TEST_LEVELS['low'], TEST_LEVELS['high'], (1e-2, 10 ** -1.5)]


def ramp(low, high):
    return (low + (high - low) * torch.linspace(0, 1, 256)).expand(4, 192, 256)


def raw_photograph(name):
    image = photograph(name)
    if image is None:
        pytest.skip(f'this version of scikit-image does not carry {name}')
    height, width = (size // 2 * 2 for size in image.shape[:2])
    return mosaic_rgb(reference_camera().unprocess(to_float(image[:height, :width]).to(torch.get_default_device())))


def error(clean, shot, read, at, *, frames=3):
    """Largest error of the estimated standard deviation at signal ``at``, relative to the true one."""
    burst = torch.stack([NoiseModel.of(shot, read).sample(clean) for _ in range(frames)])
    estimate = estimate_noise(burst)
    assert all(value.shape == (4,) and value.isfinite().all() and (value >= 0).all() for value in estimate)
    at = torch.full((4,), at)
    return float((NoiseModel.of(*estimate).std(at) / NoiseModel.of(shot, read).std(at) - 1).abs().max())


@pytest.mark.parametrize('cap', [0.97, 0.9, 0.6])
def test_a_sensor_that_saturates_below_white(cap):
    torch.manual_seed(0)
    clean = torch.nn.functional.interpolate(torch.rand(1, 4, 24, 24), size=(384, 384), mode='bicubic')[0].clamp(min=0) * 1.4
    model = NoiseModel.of(2e-3, 5e-3)
    burst = torch.stack([model.sample(clean) for _ in range(3)]).clamp(max=cap)
    assert (burst == cap).float().mean() > 0.15
    shot, read = estimate_noise(burst)
    for at in (0.1, 0.5):
        found, true = (NoiseModel(*levels).std(torch.full((4,), at)) for levels in ((shot, read), (model.shot, model.read)))
        assert (found / true - 1).abs().max() < 0.15


@pytest.mark.parametrize(('shot', 'read'), LEVELS)
@pytest.mark.parametrize('at', [0.02, 0.2, 0.5, 0.9])
def test_noise_on_a_smooth_scene(shot, read, at):
    assert error(ramp(0, 1), shot, read, at) < 0.1


@pytest.mark.parametrize(('shot', 'read'), LEVELS)
def test_noise_of_a_scene_that_is_half_clipped_at_black(shot, read):
    assert error(ramp(0, 0.05), shot, read, 0.03) < 0.1


@pytest.mark.parametrize('name', ['chelsea.png', 'coffee.png', 'motorcycle_left.png', 'rocket.jpg'])
@pytest.mark.parametrize(('shot', 'read'), LEVELS[1:])
def test_noise_on_photographs(name, shot, read):
    # The photographs' own noise and texture come on top; at the least noise of the training range they dominate.
    assert error(raw_photograph(name), shot, read, 0.3) < 0.2


@pytest.mark.parametrize(('shot', 'read'), LEVELS[3:])
def test_noise_on_dense_texture(shot, read):
    assert error(raw_photograph('ihc.png'), shot, read, 0.3) < 0.2


def test_motion_and_highlights_do_not_matter():
    clean = raw_photograph('coffee.png').clone()
    clean[:, 20:80, 30:120] = 1.2  # saturated
    clean[:, 100:140, 30:120] = 0  # black
    burst = torch.stack([NoiseModel.of(2.5e-3, 1e-2).sample(clean.roll((7 * k, 11 * k), dims=(1, 2))) for k in range(5)])
    at = torch.full((4,), 0.3)
    ratio = NoiseModel.of(*estimate_noise(burst)).std(at) / NoiseModel.of(2.5e-3, 1e-2).std(at)
    assert (ratio - 1).abs().max() < 0.2


@pytest.mark.cpu_only
def test_planes_are_told_apart():
    shot, read = torch.tensor([1e-3, 2e-3, 4e-3, 8e-3]), torch.tensor([1e-2, 5e-3, 2e-2, 1e-2])
    noisy = NoiseModel.of(shot[:, None, None], read[:, None, None]).sample(ramp(0, 1)[None].repeat(3, 1, 1, 1))
    estimated_shot, estimated_read = estimate_noise(noisy)
    torch.testing.assert_close(estimated_shot, shot, rtol=0.12, atol=0)
    torch.testing.assert_close(estimated_read, read, rtol=0.3, atol=0)


def test_noise_below_black_needs_no_mending():
    clean = ramp(0, 0.1)[None].repeat(3, 1, 1, 1)
    at = torch.full((4,), 0.05)
    estimate = estimate_noise(clean + 0.02 * torch.randn(clean.shape))  # not clamped
    torch.testing.assert_close(NoiseModel.of(*estimate).std(at), torch.full((4,), 0.02), rtol=0.08, atol=0)


def test_a_single_grey_gives_its_variance():
    burst = 0.4 + 0.02 * torch.randn(3, 4, 96, 128)
    std = NoiseModel.of(*estimate_noise(burst)).std(torch.full((4,), 0.4))
    torch.testing.assert_close(std, torch.full((4,), 0.02), rtol=0.08, atol=0)


@pytest.mark.parametrize('value', [0.0, 0.5, 1.0, -0.1, 2.0, float('nan'), float('inf')])
def test_constants_have_no_noise(value):
    shot, read = estimate_noise(torch.full((2, 4, 32, 40), value))
    assert float(shot.max()) < 1e-9 and float(read.max()) < 1e-6


def test_clipped_frames_give_finite_answers():
    for level in (0.0, 1.0):
        estimate = estimate_noise(NoiseModel.of(6.4e-3, 2e-2).sample(torch.full((2, 4, 64, 64), level)))
        assert all(value.isfinite().all() and (value >= 0).all() for value in estimate)


def test_one_broken_sample_costs_one_block():
    burst = NoiseModel.of(2.5e-3, 1e-2).sample(ramp(0, 1)[None].repeat(2, 1, 1, 1))
    burst[0, :, 5, 5] = float('nan')
    at = torch.full((4,), 0.5)
    assert (NoiseModel.of(*estimate_noise(burst)).std(at) / NoiseModel.of(2.5e-3, 1e-2).std(at) - 1).abs().max() < 0.1


def test_the_smallest_frames_and_other_types():
    shot, read = estimate_noise(torch.rand(1, 4, 8, 8, dtype=torch.float64, requires_grad=True))
    assert shot.dtype == read.dtype == torch.float32 and not shot.requires_grad
    estimate_noise(torch.rand(1, 4, 9, 17).half())


@pytest.mark.parametrize('shape', [(4, 16, 16), (2, 3, 16, 16), (2, 4, 7, 16), (0, 4, 16, 16)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ShapeError, match='expected'):
        estimate_noise(torch.zeros(shape))
