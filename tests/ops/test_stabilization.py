import math

import pytest
import torch

from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.ops.stabilization import Stabilizer, noise_levels

LEVELS = [(2.5e-3, 1e-2), (6.4e-3, 2e-2), (1e-2, 3.16e-2), (1e-4, 1e-3)]


def _stabilizer(shot, read):
    return Stabilizer.from_levels(torch.tensor(shot, dtype=torch.float64), torch.tensor(read ** 2, dtype=torch.float64))


@pytest.mark.parametrize(('shot', 'read'), LEVELS)
def test_it_is_the_root_of_the_variance_scaled_to_keep_0_and_1(shot, read):
    y = torch.linspace(0, 1, 11, dtype=torch.float64)
    offset = read ** 2 + 3 / 8 * shot ** 2
    expected = [(math.sqrt(shot * v + offset) - math.sqrt(offset)) / (math.sqrt(shot + offset) - math.sqrt(offset))
                for v in y.tolist()]
    t = _stabilizer(shot, read).apply(y)
    torch.testing.assert_close(t, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(_stabilizer(shot, read).invert(t), y)


@pytest.mark.cpu_only
@pytest.mark.parametrize(('shot', 'read'), LEVELS[:3])
@pytest.mark.parametrize('value', [0.2, 0.5, 0.9])
def test_noise_has_the_stated_deviation_everywhere(shot, read, value):
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(200_000, generator=generator, dtype=torch.float64)
    y = value + normal * NoiseModel.of(shot, read).std(torch.tensor(value))
    stabilizer = _stabilizer(shot, read)
    assert stabilizer.apply(y).std().item() == pytest.approx(stabilizer.sigma.item(), rel=0.04)


def test_no_noise_at_all_is_a_finite_transform():
    stabilizer = _stabilizer(0.0, 0.0)
    y = torch.linspace(-0.1, 1.1, 25, dtype=torch.float64)
    t = stabilizer.apply(y)
    assert torch.isfinite(t).all() and (t.diff() >= 0).all()
    torch.testing.assert_close(stabilizer.invert(t)[y >= 0], y[y >= 0])


def test_gradients_are_those_of_differences():
    shot, read = LEVELS[1]
    stabilizer = _stabilizer(shot, read)
    y = torch.rand(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(stabilizer.apply, y)
    assert torch.autograd.gradcheck(stabilizer.invert, y)


def test_levels_are_read_off_the_noise_map_plane_by_plane():
    raw = torch.rand(2, 4, 12, 16)
    shot = torch.tensor([1e-3, 2e-3, 3e-3, 4e-3])[:, None, None]
    read = torch.tensor([0.01, 0.02, 0.03, 0.005])[:, None, None]
    found_shot, found_read = noise_levels(raw, NoiseModel.of(shot, read).std(raw))
    torch.testing.assert_close(found_shot, shot.expand(2, 4, 1, 1), rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(found_read, read.square().expand(2, 4, 1, 1), rtol=1e-3, atol=1e-7)


def test_a_plane_without_spread_takes_the_line_of_all():
    raw = torch.rand(4, 12, 16)
    raw[3] = 1.0
    shot, read = noise_levels(raw, NoiseModel.of(3e-3, 2e-2).std(raw))
    torch.testing.assert_close(shot, torch.full_like(shot, 3e-3), rtol=1e-2, atol=0)
    torch.testing.assert_close(read, torch.full_like(read, 4e-4), rtol=1e-2, atol=0)


def test_a_black_frame_has_read_noise_alone():
    shot, read = noise_levels(torch.zeros(4, 8, 8), torch.full((4, 8, 8), 0.02))
    assert not shot.any()
    torch.testing.assert_close(read, torch.full_like(read, 4e-4))
