"""Reference numbers of the paper's released code that need no files from outside, see make.py; test_golden.py has all of them."""
import numpy as np
import pytest
import torch

from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.block_matching import SearchWindow, match_tiles
from jddb_plugin.ops.isp import Camera, process, reference_camera, unprocess
from jddb_plugin.ops.noise import add_test_noise, noise_std

from .make import FILE, network_results, samples


@pytest.fixture(scope='module')
def numbers():
    with np.load(FILE) as file:
        return dict(file)


def _close(found, expected, atol):
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_isp_and_noise(numbers):
    srgb, camera = torch.from_numpy(numbers['srgb']).float() / 255, reference_camera()
    _close(camera.cam2rgb, numbers['cam2rgb'], 1e-6)
    _close(camera.rgb2cam, numbers['rgb2cam'], 1e-6)
    linear = unprocess(srgb, camera)
    _close(samples(linear), numbers['linear'], 1e-5)
    raw = mosaic_rgb(linear)
    _close(samples(raw), numbers['bayer_rggb'], 1e-5)
    noisy = add_test_noise(raw, 6.4e-3, 2e-2, frame_number=1)
    _close(samples(noisy), numbers['noisy'], 1e-5)
    _close(samples(noise_std(noisy, 6.4e-3, 2e-2)), numbers['noise_map'], 1e-5)
    gains = {'red_gain': 2.0, 'blue_gain': 1.7, 'cam2rgb': camera.cam2rgb}
    _close(samples(process(linear, **gains, rgb_gain=1.0)), numbers['srgb_test'], 1e-5)
    _close(samples(process(linear, **gains)), numbers['srgb_train'], 1e-5)


def test_isp_with_other_gains(numbers):
    camera = Camera(1.25, 1.9, 1.5, reference_camera().cam2rgb)
    linear = unprocess(torch.from_numpy(numbers['srgb']).float() / 255, camera)
    _close(samples(linear), numbers['alt_linear'], 1e-5)
    srgb = process(linear, red_gain=1.9, blue_gain=1.5, cam2rgb=camera.cam2rgb, rgb_gain=1.25)
    _close(samples(srgb), numbers['alt_srgb_test'], 1e-5)


def test_offsets_of_the_first_tile(numbers):
    features = torch.from_numpy(numbers['features']).float()[None]
    match = match_tiles(features, torch.zeros(1, 1, 2, dtype=torch.long), (18, 18), ref_idx=2,
                        window=SearchWindow(6, 2, 'released'))
    assert match.offset[0, 0].tolist() == numbers['offsets'].tolist()
    assert numbers['offsets'].any()


def test_network(numbers):
    for key, found in network_results().items():
        _close(found, numbers[key], 0 if key == 'network_offsets' else 2e-5)
        assert np.ptp(numbers[key]) > 0.05, key
