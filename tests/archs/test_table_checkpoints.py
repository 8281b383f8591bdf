"""Checkpoints of the systems of the tables: what they are of, and the released weights of DMN."""
import importlib.util
import os
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from basicsr.archs import build_network
from basicsr.models.base_model import BaseModel
from basicsr.utils.registry import ARCH_REGISTRY

from jddb_plugin import DemosaicNet
from jddb_plugin.archs.denoise_then_demosaic_arch import join_checkpoints
from jddb_plugin.checks import CheckpointError
from jddb_plugin.data.photographs import photograph
from jddb_plugin.ops.bayer import demosaic_bilinear, mosaic_rgb

from .table_networks import CASES, build


def test_checkpoints_of_the_parts_become_one():
    denoiser, demosaicker, system = build('EDVR raw'), build('DemosaicNet'), build('EDVR+DMN')
    joined = join_checkpoints(denoiser.state_dict(), demosaicker.state_dict())
    system.load_state_dict(joined)
    tiles = torch.rand(1, 3, 8, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(system.restore(tiles, 1), demosaicker.demosaic(denoiser.denoise(tiles, 1)))
    with pytest.raises(CheckpointError, match='checkpoint of the denoiser is one of DenoiseThenDemosaic'):
        join_checkpoints(joined, demosaicker.state_dict())


@pytest.mark.parametrize(('denoiser', 'demosaicker', 'message'), [
    ('DemosaicNet', 'KPN', 'denoiser is of DemosaicNet, which is not a denoiser; give one of KPN, or EDVRBurst or RViDeNet with'),
    ('GCPNet', 'DemosaicNet', 'denoiser is of GCPNet, which is not a denoiser'),
    ('KPN', 'EDVR raw', 'demosaicker is of EDVRBurst, which is not a demosaicker; give one of DemosaicNet'),
    ('EDVRBurst', 'DemosaicNet', 'denoiser is of EDVRBurst with output: rgb; a denoiser needs output: raw'),
])
def test_what_is_no_such_part_is_not_joined(denoiser, demosaicker, message):
    with pytest.raises(CheckpointError, match='the checkpoint of the ' + message):
        join_checkpoints(build(denoiser).state_dict(), build(demosaicker).state_dict())


def test_parts_of_networks_of_ones_own_are_joined():
    joined = join_checkpoints({'mine': torch.zeros(1)}, {'weight': torch.zeros(2)})
    assert {key: len(value) for key, value in joined.items()} == {'denoiser.mine': 1, 'demosaicker.weight': 2}


@pytest.mark.parametrize(('parts', 'name'), [
    (('KPN', 'DemosaicNet'), 'KPN + DemosaicNet'), (('GCPNet', 'DemosaicNet'), 'GCPNet + DemosaicNet'),
    (('DemosaicNet', 'EDVR raw'), 'DemosaicNet + EDVRBurst'), ((None, 'DemosaicNet'), 'unknown network + DemosaicNet')])
def test_a_checkpoint_of_another_pair_is_named(parts, name, tmp_path):
    states = [{'weight': torch.zeros(1)} if part is None else build(part).state_dict() for part in parts]
    torch.save({'params': {f'{part}.{key}': value for part, state in zip(('denoiser', 'demosaicker'), states)
                           for key, value in state.items()}}, tmp_path / 'net.pth')
    model = BaseModel({'num_gpu': 0, 'is_train': False, 'dist': False})
    message = f'net.pth: this is a {name} checkpoint, and network_g is EDVRBurst + DemosaicNet: '
    with pytest.raises(CheckpointError, match=re.escape(message)):
        model.load_network(build('EDVR+DMN'), str(tmp_path / 'net.pth'))


@pytest.mark.parametrize('name', CASES)
def test_a_checkpoint_tells_its_network_and_its_options(name):
    state, kind = build(name).state_dict(), CASES[name]['type']
    assert [other for other, network in ARCH_REGISTRY if 'detect' in vars(network) and network.detect(state)] == [kind]
    found = ARCH_REGISTRY.get(kind).options_of(state, 'net.pth')
    network = build_network({'type': kind, **found})
    network.load_state_dict(state)
    whole = {key: value for key, value in CASES[name].items() if key != 'type'}
    for part in ('denoiser', 'demosaicker') if kind == 'DenoiseThenDemosaic' else (None,):
        options, given = (found, whole) if part is None else (found[part], whole[part])
        assert {key: options[key] for key in given} == given


@pytest.mark.parametrize(('name', 'key', 'value', 'message'), [
    ('GCPNet', 'merge.weight', torch.zeros(8, 25, 3, 3), "'merge.weight' has 25 channels, expected a multiple of 8"),
    ('EDVRBurst', 'first.weight', torch.zeros(8), r"'first.weight' is \[8\], expected the weight of a convolution"),
    ('EDVRBurst', 'align.cas_dcnpack.conv_offset.weight', None, "incomplete, 'align.cas_dcnpack.conv_offset.weight' is missing"),
    ('RViDeNet', 'first.weight', torch.zeros(2000, 2, 3, 3), "'first.weight' has 2000 features, expected at most 1024"),
    ('KPN', 'encode.0.0.weight', torch.zeros(4, 3, 3, 3), "'encode.0.0.weight' has -1 channels, expected a multiple of 4"),
])
def test_a_damaged_checkpoint_is_told(name, key, value, message):
    state = dict(build(name).state_dict())
    state[key] = value
    if value is None:
        del state[key]
    with pytest.raises(CheckpointError, match='net.pth: ' + message):
        ARCH_REGISTRY.get(name).options_of(state, 'net.pth')


@pytest.mark.parametrize('name', CASES)
def test_a_checkpoint_of_another_network_is_named(name, tmp_path):
    state = build(name).state_dict()
    torch.save({'params': state}, tmp_path / 'net.pth')
    called = r'EDVRBurst \+ DemosaicNet' if name == 'EDVR+DMN' else CASES[name]['type']
    other = build('EDVRBurst' if name == 'GCPNet' else 'GCPNet')
    model = BaseModel({'num_gpu': 0, 'is_train': False, 'dist': False})
    for strict in (True, False):
        if not strict and state.keys() & other.state_dict().keys():
            continue  # some of it fits, as was asked for
        with pytest.raises(CheckpointError, match=rf'net.pth: this is a {called} checkpoint, and network_g is '):
            model.load_network(other, str(tmp_path / 'net.pth'), strict=strict)


def _released_weights():
    """The weights of the package demosaicnet, installed or unpacked at $JDDB_DEMOSAICNET; skips where there are none."""
    if os.environ.get('JDDB_DEMOSAICNET'):
        folder = Path(os.environ['JDDB_DEMOSAICNET'])
    else:
        spec = importlib.util.find_spec('demosaicnet')
        if spec is None:
            pytest.skip('the package demosaicnet is not installed (pip install --no-deps demosaicnet), nor unpacked at '
                        '$JDDB_DEMOSAICNET')
        folder = Path(spec.submodule_search_locations[0])
    return torch.load(folder / 'data' / 'bayer.pth', weights_only=True)


def released_network(weights, mosaic):
    """The released network by its layers, on a mosaic [B, 3, H, W] of pattern G R / B G."""
    def layer(name, x, **more):
        return F.conv2d(x, weights[f'{name}.weight'], weights[f'{name}.bias'], **more)

    x = layer('main_processor.pack_mosaic', mosaic, stride=2)
    for k in range(1, 16):
        x = layer(f'main_processor.conv{k}', x).relu()
    x = layer('residual_predictor', x[:, :64] * x[:, 64:])
    x = F.conv_transpose2d(x, weights['upsampler.weight'], weights['upsampler.bias'], stride=2, groups=3)
    x = torch.cat((mosaic[..., 30:-30, 30:-30], x), dim=1)
    return layer('fullres_processor.output', layer('fullres_processor.post_conv', x).relu())


def test_the_released_weights_demosaic():
    weights = _released_weights()
    network = DemosaicNet().eval()
    network.load_state_dict(weights)
    image = torch.from_numpy(photograph('astronaut.png'))[40:168, 150:280]
    scene = image.permute(2, 0, 1)[None] / 255
    inner = scene[..., 1:-1]  # begins with Gr R / B Gb
    mosaic = torch.zeros_like(inner)
    for channel, y, x in ((1, 0, 0), (0, 0, 1), (2, 1, 0), (1, 1, 1)):
        mosaic[:, channel, y::2, x::2] = inner[:, channel, y::2, x::2]
    with torch.no_grad():
        expected = released_network(weights, mosaic)
        torch.testing.assert_close(network.process(mosaic), expected, rtol=0, atol=1e-6)
        result = network.demosaic(mosaic_rgb(scene))
    assert result.shape == scene.shape
    torch.testing.assert_close(result[..., 31:-31, 32:-32], expected, rtol=0, atol=2e-6)
    bilinear = demosaic_bilinear(mosaic_rgb(scene))
    assert (result - scene).square().mean() < 0.25 * (bilinear - scene).square().mean()
