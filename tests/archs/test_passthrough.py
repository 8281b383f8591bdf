"""Initial weights for short trainings: what the networks begin as."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from jddb_plugin import KPN, BasicVSRBurst, EDVRBurst, GCPNet, RViDeNet
from jddb_plugin.ops.bayer import demosaic_bilinear, mosaic_rgb

_SHALLOW = {'deformable_groups': 2, 'num_extract_block': 1, 'num_reconstruct_block': 2}


def _scene(side):
    return F.interpolate(torch.rand(1, 3, side // 14, side // 14), size=(side, side), mode='bicubic').clamp(0, 1)


def test_passthrough_kernels_start_as_half_the_reference_and_half_the_mean():
    network = KPN(4, 3, 3, init='passthrough')
    nn.init.zeros_(network.to_kernels.weight)
    tiles = torch.rand(1, 3, 8, 16, 16)
    raw = tiles[:, :, :4]
    torch.testing.assert_close(network.denoise(tiles, 1), (raw[:, 1] + raw.mean(dim=1)) / 2)
    torch.testing.assert_close(network.train()(tiles).mean(dim=1), (raw[:, 1] + raw.mean(dim=1)) / 2)


def test_passthrough_kernels_keep_the_size_of_the_signal():
    spread = {}
    for init in ('paper', 'passthrough'):
        network = KPN(16, 5, 5, init=init)
        network.to_kernels.bias.data.zero_()
        network.to_kernels.weight.data.mul_(10 if init == 'passthrough' else 1)
        spread[init] = network.kernels(torch.rand(1, 5, 8, 32, 32), 2).std()
    assert spread['paper'] < 0.1 < spread['passthrough'] < 10


def test_passthrough_gcp_net_starts_as_a_picture_of_the_reference():
    scene = _scene(64)
    tiles = torch.zeros(1, 3, 8, 32, 32)
    tiles[:, 1, :4] = mosaic_rgb(scene)
    network = GCPNet(16, 3, 2, init='passthrough')
    with torch.no_grad():
        result = network.restore(tiles, 1)
    assert torch.corrcoef(torch.stack((result.flatten(), scene.flatten())))[0, 1] > 0.8


@pytest.mark.parametrize(('architecture', 'output', 'options'), [
    (EDVRBurst, 'rgb', _SHALLOW),
    (EDVRBurst, 'raw', {**_SHALLOW, 'output': 'raw'}),
    (RViDeNet, 'rgb', _SHALLOW),
    (RViDeNet, 'raw', {**_SHALLOW, 'output': 'raw'}),
    (BasicVSRBurst, 'rgb', {'num_block': 2}),
])
def test_passthrough_starts_as_the_reference_and_keeps_its_planes_up_to_the_last_layer(architecture, output, options):
    scene = _scene(128)
    tiles = torch.zeros(1, 5, 8, 64, 64)
    tiles[:, 2, :4] = mosaic_rgb(scene)
    planes = tiles[0, 2, :4]
    if output == 'rgb':
        planes = planes.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    network = architecture(16, init='passthrough', **options)
    seen = []
    last = network.head.output if output == 'rgb' else network.head
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].flatten(1)))
    with torch.no_grad():
        result = network.restore(tiles, 2)
    features, = seen
    for plane in planes.flatten(1):
        assert torch.corrcoef(torch.cat((plane[None], features)))[0, 1:].max() > 0.9
    assert features.std(dim=1).max() > 0.5 * planes.std()
    torch.testing.assert_close(result, demosaic_bilinear(tiles[:, 2, :4]), atol=0.15, rtol=0)


@pytest.mark.parametrize(('architecture', 'options', 'averaged'), [
    (EDVRBurst, _SHALLOW, range(5)),
    (RViDeNet, _SHALLOW, range(5)),
    (BasicVSRBurst, {'num_block': 2}, range(1, 4)),
])
def test_passthrough_fuses_the_reference_and_the_mean_of_the_frames(architecture, options, averaged):
    network = architecture(16, init='passthrough', **options)
    tiles = torch.zeros(1, 5, 8, 64, 64)
    tiles[:, :, :4] = F.interpolate(torch.rand(5, 4, 8, 8), size=(64, 64), mode='bicubic').clamp(0, 1)
    seen = []
    first = network.trunk if hasattr(network, 'trunk') else network.head
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].flatten(1)))
    with torch.no_grad():
        network.restore(tiles, 2)
    features, = seen
    mean = tiles[0, list(averaged), :4].mean(dim=0)
    for planes in (tiles[0, 2, :4], mean):
        for plane in planes.flatten(1):
            assert torch.corrcoef(torch.cat((plane[None], features)))[0, 1:].max() > 0.95
