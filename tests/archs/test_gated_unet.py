import pytest
import torch
from basicsr.archs import build_network

from jddb_plugin.archs.gated_unet_arch import GatedUNet, _base_kernel
from jddb_plugin.checks import OptionError, ShapeError
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.weights import load_weights

SHOT, READ = 6.4e-3, 2e-2


def _net():
    torch.manual_seed(1)
    net = GatedUNet(channels=(6, 8, 10), blocks=(1, 1, 1)).eval()
    torch.nn.init.normal_(net.tail.weight, std=0.1)
    return net


def _tiles(frames=5, size=(24, 32), batch=1):
    """Noisy frames of one scene."""
    raw = NoiseModel.of(SHOT, READ).sample(torch.rand(batch, 1, 4, *size).expand(-1, frames, -1, -1, -1))
    return torch.cat((raw, NoiseModel.of(SHOT, READ).std(raw)), dim=2)


def test_it_is_registered_and_restores():
    net = build_network({'type': 'GatedUNet', 'channels': [4, 4, 4], 'blocks': [1, 0, 1]})
    assert net(_tiles(batch=2)).shape == (2, 3, 48, 64)


@pytest.mark.parametrize('frames', [1, 2, 3, 5, 8, 16])
def test_any_number_of_frames(frames):
    net = _net()
    tiles = _tiles(frames)
    for ref_idx in {0, frames // 2, frames - 1}:
        assert torch.isfinite(net.restore(tiles, ref_idx)).all()


def test_every_parameter_gets_a_gradient():
    net = _net().train()
    net(_tiles()).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_frames_that_show_something_else_change_nothing():
    net = _net()
    tiles = _tiles(3)
    other = tiles.clone()
    other[:, [0, 2]] = _tiles(2) * 0
    alone = net.restore(tiles[:, 1:2], 0)
    assert (net.restore(other, 1) - alone).abs().max() < 0.02
    assert (net.restore(tiles[:, 1:2].expand(-1, 3, -1, -1, -1), 1) - alone).abs().max() > 0.001


def test_a_frame_that_shows_the_scene_in_few_places_counts_nowhere():
    net = _net()
    tiles, foreign = _tiles(2, (64, 64)), _tiles(1, (64, 64))[:, 0]
    alone = net.restore(tiles[:, :1], 0)

    def change(columns):
        other = tiles.clone()
        other[:, 1, ..., :columns] = foreign[..., :columns]
        return (net.restore(other, 0) - alone)[..., 112:].abs().max()

    assert change(56) == 0
    assert change(16) > 1e-3


def test_gates_open_for_noise_and_close_for_differences():
    gate = _net().gates[0]
    sigma = torch.full((1, 4, 1, 1), 0.05)
    noise = torch.randn(1, 4, 32, 32) * 0.05 * 2 ** 0.5
    assert gate(noise, sigma).min() > 0.6
    assert gate(noise + 0.3, sigma).max() < 0.05


def test_order_of_frames_equally_far_in_time_is_theirs():
    net = _net()
    tiles = _tiles(5)
    assert not torch.equal(net.restore(tiles, 2), net.restore(tiles.flip(1), 2))


def test_nothing_beyond_the_context_matters():
    net = _net()
    tiles = _tiles(2, (16 * net.context // 4, 32)).double()
    net = net.double()
    changed = tiles.clone()
    row = tiles.shape[-2] // 2 // 4 * 4
    # Values change with their noise maps, so that the noise levels stay what they are.
    changed[:, :, :4, row:] = changed[:, :, :4, row:].flip(-1)
    changed[:, :, 4:, row:] = changed[:, :, 4:, row:].flip(-1)
    difference = (net.restore(tiles, 0) - net.restore(changed, 0)).abs().amax(dim=(0, 1, 3))
    assert difference[2 * row:].max() > 1e-4
    assert difference[:2 * (row - net.context)].max() < 1e-9


def test_base_is_a_smoothing_bilinear_demosaicking():
    kernel = _base_kernel()
    torch.testing.assert_close(kernel.sum(dim=(1, 2, 3)), torch.ones(12))
    # A ramp over the mosaic comes back as a ramp: position (row, column) of every sample is a linear function.
    rows = torch.arange(12.0)[:, None].expand(12, 12)
    packed = torch.nn.functional.pixel_unshuffle(rows[None, None], 2)
    full = torch.nn.functional.pixel_shuffle(torch.nn.functional.conv2d(packed, kernel), 2)
    torch.testing.assert_close(full, rows[2:-2, 2:-2].expand(1, 3, 8, 8))


def test_noise_levels_of_any_strength_are_finite():
    net = _net()
    raw = torch.rand(1, 3, 4, 16, 16)
    for std in (0.0, 1e-6, 1.0, 30.0):
        assert torch.isfinite(net.restore(torch.cat((raw, torch.full_like(raw, std)), dim=2), 1)).all()
    for value in (0.0, 1.0):
        assert torch.isfinite(net.restore(torch.full((1, 3, 8, 16, 16), value), 1)).all()


@pytest.mark.parametrize('name', ['small', 'medium', 'tiny'])
def test_colors_stay_where_noise_is_stronger_than_in_training(name):
    """A smooth scene at five times the strongest noise of training; without care it turns green."""
    random = torch.Generator().manual_seed(0)
    scene = torch.nn.functional.interpolate(torch.rand(1, 3, 3, 4, generator=random), size=(96, 128), mode='bicubic')
    scene = scene.clamp(0, 1) * torch.tensor((0.2, 0.3, 0.1)).view(3, 1, 1)
    clean = mosaic_rgb(scene)[:, None].expand(-1, 5, -1, -1, -1)
    noise = NoiseModel.of(0.05, 0.1)
    raw = noise.sample(clean, generator=random)
    restored = load_weights(name).restore(torch.cat((raw, noise.std(raw)), dim=2).float(), 2)
    found, expected = restored.mean(dim=(0, 2, 3)), scene.mean(dim=(0, 2, 3))
    torch.testing.assert_close(found[:2], expected[:2], rtol=0.15, atol=0)
    assert found[2] > 0.5 * expected[2]  # the darkest color, below its noise


def test_bad_input_is_told():
    net = _net()
    with pytest.raises(ShapeError, match='multiples of 4'):
        net.restore(_tiles(size=(18, 32)), 2)
    with pytest.raises(ShapeError, match='8 planes'):
        net.restore(_tiles()[:, :, :4], 2)
    with pytest.raises(ShapeError, match='ref_idx'):
        net.restore(_tiles(), 5)
    with pytest.raises(OptionError, match='three values'):
        GatedUNet(channels=(8, 8))


def test_what_differs_at_quarter_resolution_counts_nowhere():
    """Single pixels agree by chance with a frame that is brighter by twice its noise; groups of them do not."""
    net = _net()
    clean = torch.full((1, 2, 4, 32, 32), 0.3)
    clean[:, 1] += 0.1
    noisy = clean + torch.randn(clean.shape) * NoiseModel.of(SHOT, READ).std(clean)
    tiles = torch.cat((noisy, NoiseModel.of(SHOT, READ).std(noisy)), dim=2)
    with torch.no_grad():
        alone, both = net.restore(tiles[:, :1], 0), net.restore(tiles, 0)
    assert (both - alone).abs().mean() < 2e-3  # 3e-2 without the veto
