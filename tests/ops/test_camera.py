import pytest
import torch
from torch.utils.data import default_collate

from jddb_plugin.ops.camera import Camera, exposure_stride, reference_camera, sample_camera
from jddb_plugin.ops.curves import inverse_tone_map, tone_map
from jddb_plugin.ops.edges import high_frequency_mask
from jddb_plugin.ops.noise import NoiseModel


def test_unprocess_then_develop_gives_the_picture_back():
    camera = reference_camera()
    # Below the highlight protection, and inside the camera's gamut so that nothing is clamped.
    srgb = torch.rand(2, 3, 32, 32) * 0.4 + 0.3
    restored = camera.develop(camera.unprocess(srgb), tone_curve=True)
    torch.testing.assert_close(restored, srgb, atol=2e-5, rtol=0)


@pytest.mark.cpu_only
def test_every_drawn_camera_gives_the_picture_back():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        camera = sample_camera(generator)
        assert 1.9 <= camera.red_gain <= 2.4
        assert 1.5 <= camera.blue_gain <= 1.9
        torch.testing.assert_close(camera.cam2rgb.sum(dim=1), torch.ones(3))
        srgb = torch.rand(3, 8, 8) * 0.1 + 0.5
        torch.testing.assert_close(camera.develop(camera.unprocess(srgb), tone_curve=True), srgb, atol=2e-5, rtol=0)


def test_highlights_keep_their_value():
    white = torch.ones(3, 2, 2)
    torch.testing.assert_close(reference_camera().unprocess(white), white, atol=1e-5, rtol=0)


def test_tone_curve_and_its_inverse():
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(tone_map(inverse_tone_map(x)), x, atol=1e-12, rtol=0)


def test_gains_may_be_numbers_or_one_per_sample():
    camera = reference_camera()
    linear = torch.rand(2, 3, 4, 4)
    numbers = Camera.of(red_gain=2.0, blue_gain=1.7, cam2rgb=camera.cam2rgb, rgb_gain=1.1)
    batch = Camera(torch.full((2,), 1.1), torch.full((2,), 2.0), torch.full((2,), 1.7), camera.cam2rgb.expand(2, 3, 3))
    for step in ('develop', 'develop_linear', 'develop_softly', 'unprocess', 'to_sensor'):
        torch.testing.assert_close(getattr(numbers, step)(linear), getattr(batch, step)(linear))


@pytest.mark.cpu_only
def test_loaders_collate_cameras_and_noise():
    cameras = [sample_camera(torch.Generator().manual_seed(k)).to(torch.float32) for k in range(3)]
    noises = [NoiseModel.of(0.01 * k, 0.02).to(torch.float32) for k in range(3)]
    batch = default_collate([{'camera': camera, 'noise': noise} for camera, noise in zip(cameras, noises)])
    camera, noise = batch['camera'], batch['noise']
    assert isinstance(camera, Camera) and isinstance(noise, NoiseModel)
    assert camera.cam2rgb.shape == (3, 3, 3) and camera.red_gain.dtype == noise.shot.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(camera.at(1), cameras[1]))
    linear = torch.rand(3, 3, 4, 4)
    torch.testing.assert_close(camera.develop(linear)[2], cameras[2].develop(linear[2]))
    one = cameras[0].at(None)
    assert one.red_gain.shape == (1,) and one.cam2rgb.shape == (1, 3, 3)


def test_auto_exposure_makes_one_percent_white():
    raw = torch.rand(4, 200, 300, dtype=torch.float64) * 0.1
    camera = Camera.of(red_gain=2.0, blue_gain=0.5, cam2rgb=torch.eye(3))
    gain = camera.auto_exposure(raw)
    balanced = torch.stack((raw[0] * 2, raw[1:3].mean(dim=0), raw[3] * 0.5)) * 2 * gain  # all gains raised until the least is 1
    assert (balanced >= 1).double().mean().item() == pytest.approx(0.01, abs=1e-3)
    stride = exposure_stride(2000, 3000)
    assert stride == 8 and exposure_stride(20, 30) == 1
    assert camera.auto_exposure(raw[:, ::3, ::3]) == pytest.approx(gain, rel=0.05)
    assert camera.auto_exposure(torch.ones(4, 8, 8)) == 1 and camera.auto_exposure(torch.zeros(4, 8, 8)) == pytest.approx(1000)


def test_develop_does_not_write_into_its_input():
    linear = torch.rand(2, 3, 4, 4)
    kept = linear.clone()
    reference_camera().develop(linear, tone_curve=True)
    Camera.of(rgb_gain=1.2, red_gain=2.0, blue_gain=1.5, cam2rgb=torch.eye(3)).unprocess(linear)
    assert torch.equal(linear, kept)


def test_gradients_of_the_isp_are_right():
    camera = reference_camera()
    linear = (torch.rand(1, 3, 3, 3, dtype=torch.float64) * 0.2 + 0.2).requires_grad_()
    other = Camera.of(red_gain=1.3, blue_gain=1.2, cam2rgb=camera.cam2rgb.double())
    for step in (other.develop, other.develop_linear, other.develop_softly, other.unprocess):
        assert torch.autograd.gradcheck(step, linear)


def test_mask_is_large_on_an_edge_and_zero_on_flat_ground():
    image = torch.zeros(1, 3, 32, 32)
    image[..., 16:] = 1
    mask = high_frequency_mask(image)
    assert mask.shape == image.shape
    assert mask.max().item() == pytest.approx(1, abs=1e-3)
    assert mask[..., 8:24, 8].abs().max() < 1e-6
    assert mask[..., 8:24, 15:17].min() > 0.5
