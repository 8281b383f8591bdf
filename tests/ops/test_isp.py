import pytest
import torch

from jddb_plugin.ops.edges import high_frequency_mask
from jddb_plugin.ops.isp import (
    Camera,
    inverse_tone_map,
    process,
    reference_camera,
    sample_camera,
    tone_map,
    unprocess,
)


def _develop(linear, camera):
    return process(linear, red_gain=camera.red_gain, blue_gain=camera.blue_gain, cam2rgb=camera.cam2rgb,
                   rgb_gain=camera.rgb_gain)


def test_unprocess_then_process_gives_the_picture_back():
    camera = reference_camera()
    # Below the highlight protection, and inside the camera's gamut so that nothing is clamped.
    srgb = torch.rand(2, 3, 32, 32) * 0.4 + 0.3
    restored = tone_map(_develop(unprocess(srgb, camera), camera))
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
        torch.testing.assert_close(tone_map(_develop(unprocess(srgb, camera), camera)), srgb, atol=2e-5, rtol=0)


def test_highlights_keep_their_value():
    white = torch.ones(3, 2, 2)
    torch.testing.assert_close(unprocess(white, reference_camera()), white, atol=1e-5, rtol=0)


def test_tone_curve_and_its_inverse():
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(tone_map(inverse_tone_map(x)), x, atol=1e-12, rtol=0)


def test_gains_may_be_numbers_or_one_per_sample():
    camera = reference_camera()
    linear = torch.rand(2, 3, 4, 4)
    numbers = process(linear, red_gain=2.0, blue_gain=1.7, cam2rgb=camera.cam2rgb, rgb_gain=1.1)
    tensors = process(linear, red_gain=torch.full((2,), 2.0), blue_gain=torch.full((2,), 1.7),
                      cam2rgb=camera.cam2rgb.expand(2, 3, 3), rgb_gain=torch.full((2,), 1.1))
    torch.testing.assert_close(numbers, tensors)


def test_process_does_not_write_into_its_input():
    linear = torch.rand(2, 3, 4, 4)
    kept = linear.clone()
    _develop(linear, reference_camera())
    unprocess(linear, Camera(1.2, 2.0, 1.5, torch.eye(3)))
    assert torch.equal(linear, kept)


def test_gradients_of_the_isp_are_right():
    camera = reference_camera()
    linear = (torch.rand(1, 3, 3, 3, dtype=torch.float64) * 0.2 + 0.2).requires_grad_()
    matrix = camera.cam2rgb.double()
    assert torch.autograd.gradcheck(lambda x: process(x, red_gain=1.3, blue_gain=1.2, cam2rgb=matrix), linear)


def test_mask_is_large_on_an_edge_and_zero_on_flat_ground():
    image = torch.zeros(1, 3, 32, 32)
    image[..., 16:] = 1
    mask = high_frequency_mask(image)
    assert mask.shape == image.shape
    assert mask.max() == pytest.approx(1, abs=1e-3)
    assert mask[..., 8:24, 8].abs().max() < 1e-6
    assert mask[..., 8:24, 15:17].min() > 0.5
