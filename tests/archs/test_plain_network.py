"""The refined stage does what a plain form of it does, which is written without looking at it."""
import pytest
import torch

from jddb_plugin import TwoStageJDDB

from . import plain_network


@pytest.fixture(scope='module')
def case():
    """A network whose deformable convolutions look elsewhere, and tiles."""
    torch.manual_seed(0)
    net = TwoStageJDDB(num_feat=8, deformable_groups=2).eval()
    for name, parameter in net.named_parameters():
        if 'conv_offset' in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return net, torch.rand(2, 5, 8, 24, 20)


@pytest.mark.parametrize('ref_idx', [0, 2, 4])
def test_the_refined_stage_is_the_plain_form(case, ref_idx):
    net, tiles = case
    together = net.refine(tiles, ref_idx).restored  # with gradients all frames are processed at once
    with torch.no_grad():
        expected = plain_network.restore(net.refine, tiles, ref_idx)
        assert expected.std() > 0.05
        torch.testing.assert_close(net.refine(tiles, ref_idx).restored, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(together, expected, rtol=0, atol=1e-5)


def swapped_gates(cell, state, x):
    both = torch.cat((state, x), dim=1)
    r, z = torch.sigmoid(cell.update(both)), torch.sigmoid(cell.reset(both))
    return (1 - z) * state + z * torch.tanh(cell.candidate(torch.cat((r * state, x), dim=1)))


@pytest.mark.parametrize(('name', 'wrong'), [
    ('gru_step', swapped_gates),
    ('deform', lambda layer, x, feat: x),
    ('double', lambda x: torch.nn.functional.interpolate(x, scale_factor=2, mode='nearest')),
])
def test_a_form_that_differs_is_noticed(case, monkeypatch, name, wrong):
    net, tiles = case
    monkeypatch.setattr(plain_network, name, wrong)
    with torch.no_grad():
        assert (plain_network.restore(net.refine, tiles, 2) - net.refine(tiles, 2).restored).abs().max() > 1e-3
