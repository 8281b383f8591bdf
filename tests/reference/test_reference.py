"""Reference numbers of the paper's released code that need no files from outside, see make.py; test_golden.py has all of them."""
import numpy as np
import pytest
import torch

from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.block_matching import SearchWindow, match_tiles
from jddb_plugin.ops.camera import Camera, reference_camera
from jddb_plugin.ops.noise import NoiseModel

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
    linear = camera.unprocess(srgb)
    _close(samples(linear), numbers['linear'], 1e-5)
    raw = mosaic_rgb(linear)
    _close(samples(raw), numbers['bayer_rggb'], 1e-5)
    noisy = NoiseModel.of(6.4e-3, 2e-2).sample_test_frame(raw, frame_number=1)
    _close(samples(noisy), numbers['noisy'], 1e-5)
    _close(samples(NoiseModel.of(6.4e-3, 2e-2).std(noisy)), numbers['noise_map'], 1e-5)
    _close(samples(camera.develop(linear)), numbers['srgb_test'], 1e-5)
    _close(samples(camera.develop(linear)), numbers['srgb_train'], 1e-5)


def test_isp_with_other_gains(numbers):
    camera = Camera.of(rgb_gain=1.25, red_gain=1.9, blue_gain=1.5, cam2rgb=reference_camera().cam2rgb)
    linear = camera.unprocess(torch.from_numpy(numbers['srgb']).float() / 255)
    _close(samples(linear), numbers['alt_linear'], 1e-5)
    _close(samples(camera.develop(linear)), numbers['alt_srgb_test'], 1e-5)


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
