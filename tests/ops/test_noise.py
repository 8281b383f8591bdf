import math

import pytest
import torch

from jddb_plugin.ops.noise import TRAIN_READ_LOG10, TRAIN_SHOT_LOG10, add_noise, add_test_noise, noise_std, sample_noise_level


@pytest.mark.cpu_only
@pytest.mark.parametrize('signal', [0.3, 0.5, 0.7])
def test_noise_has_the_variance_of_its_map(signal):
    shot, read = 2.5e-3, 1e-2
    clean = torch.full((400, 400), signal)
    noisy = add_noise(clean, shot, read, generator=torch.Generator().manual_seed(1))
    expected = noise_std(clean, shot, read)[0, 0].item()
    count = clean.numel()
    assert abs((noisy - clean).mean().item()) < 4 * expected / math.sqrt(count)
    # The sample variance of a Gaussian has a standard error of sqrt(2 / n).
    assert abs((noisy - clean).var().item() / expected ** 2 - 1) < 4 * math.sqrt(2 / count)


def test_test_noise_has_the_variance_of_its_map():
    clean = torch.full((4, 200, 200), 0.5)
    error = add_test_noise(clean, 6.4e-3, 2e-2, frame_number=3) - clean
    assert error.var().item() == pytest.approx(6.4e-3 * 0.5 + 4e-4, rel=4 * math.sqrt(2 / clean.numel()))


def test_test_noise_is_reproducible_and_differs_between_frames():
    clean = torch.rand(4, 8, 8)
    first = add_test_noise(clean, 1e-3, 1e-2, frame_number=1)
    assert torch.equal(first, add_test_noise(clean, 1e-3, 1e-2, frame_number=1))
    assert not torch.equal(first, add_test_noise(clean, 1e-3, 1e-2, frame_number=2))


def test_noise_stays_in_range():
    noisy = add_noise(torch.rand(4, 64, 64), 1e-2, 10 ** -1.5)
    assert noisy.min() >= 0 and noisy.max() <= 1


@pytest.mark.cpu_only
def test_training_levels_fill_the_papers_ranges():
    generator = torch.Generator().manual_seed(0)
    levels = torch.tensor([sample_noise_level(generator) for _ in range(2000)]).log10()
    for values, (low, high) in zip(levels.T, (TRAIN_SHOT_LOG10, TRAIN_READ_LOG10)):
        assert low <= values.min() < low + 0.01 * (high - low) + 1e-2
        assert high - 0.01 * (high - low) - 1e-2 < values.max() <= high
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.05)
