import math

import pytest
import torch

from jddb_plugin.ops.noise import TRAIN_READ_LOG10, TRAIN_SHOT_LOG10, NoiseModel


@pytest.mark.cpu_only
@pytest.mark.parametrize('signal', [0.3, 0.5, 0.7])
def test_noise_has_the_variance_of_its_map(signal):
    shot, read = 2.5e-3, 1e-2
    clean = torch.full((400, 400), signal)
    noisy = NoiseModel.of(shot, read).sample(clean, generator=torch.Generator().manual_seed(1))
    expected = NoiseModel.of(shot, read).std(clean)[0, 0].item()
    count = clean.numel()
    assert abs((noisy - clean).mean().item()) < 4 * expected / math.sqrt(count)
    # The sample variance of a Gaussian has a standard error of sqrt(2 / n).
    assert abs((noisy - clean).var().item() / expected ** 2 - 1) < 4 * math.sqrt(2 / count)


def test_levels_of_planes_and_the_noise_map():
    noise = NoiseModel(torch.tensor([1e-3, 2e-3, 3e-3, 4e-3]), torch.tensor([0.01, 0.02, 0.03, 0.04]))
    raw = torch.rand(2, 4, 6, 8)
    both = noise.planes().with_map(raw)
    assert both.shape == (2, 8, 6, 8) and torch.equal(both[:, :4], raw)
    torch.testing.assert_close(both[1, 6], (3e-3 * raw[1, 2] + 9e-4).sqrt())
    torch.testing.assert_close(noise.at(1).with_map(raw)[0, 4], (2e-3 * raw[0, 0] + 4e-4).sqrt())


@pytest.mark.cpu_only
def test_a_level_by_name_by_numbers_and_by_estimate():
    assert [float(level) for level in NoiseModel.parse('low')] == [2.5e-3, 1e-2]
    assert [float(level) for level in NoiseModel.parse('0.001, 0.02')] == [1e-3, 2e-2]
    clean = torch.linspace(0.1, 0.9, 128).expand(2, 4, 128, 128)
    found = NoiseModel.estimate(NoiseModel.parse('high').sample(clean, generator=torch.Generator().manual_seed(0)))
    at = torch.full((4,), 0.5)
    torch.testing.assert_close(found.std(at), NoiseModel.parse('high').std(at), rtol=0.1, atol=0)


@pytest.mark.cpu_only
def test_test_noise_has_the_variance_of_its_map():
    clean = torch.full((4, 200, 200), 0.5)
    error = NoiseModel.of(6.4e-3, 2e-2).sample_test_frame(clean, frame_number=3) - clean
    assert error.var().item() == pytest.approx(6.4e-3 * 0.5 + 4e-4, rel=4 * math.sqrt(2 / clean.numel()))


@pytest.mark.cpu_only
def test_test_noise_is_reproducible_and_differs_between_frames():
    clean = torch.rand(4, 8, 8)
    first = NoiseModel.of(1e-3, 1e-2).sample_test_frame(clean, frame_number=1)
    assert torch.equal(first, NoiseModel.of(1e-3, 1e-2).sample_test_frame(clean, frame_number=1))
    assert not torch.equal(first, NoiseModel.of(1e-3, 1e-2).sample_test_frame(clean, frame_number=2))


def test_noise_stays_in_range():
    noisy = NoiseModel.of(1e-2, 10 ** -1.5).sample(torch.rand(4, 64, 64))
    assert noisy.min() >= 0 and noisy.max() <= 1


@pytest.mark.cpu_only
def test_training_levels_fill_the_papers_ranges():
    generator = torch.Generator().manual_seed(0)
    levels = torch.tensor([NoiseModel.random(generator) for _ in range(2000)]).log10()
    for values, (low, high) in zip(levels.T, (TRAIN_SHOT_LOG10, TRAIN_READ_LOG10)):
        assert low <= values.min() < low + 0.01 * (high - low) + 1e-2
        assert high - 0.01 * (high - low) - 1e-2 < values.max() <= high
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.05)
