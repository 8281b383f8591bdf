import pytest
import torch
from basicsr.archs import build_network
from basicsr.archs.edvr_arch import EDVR
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from jddb_plugin import CoarseAligned
from jddb_plugin.checks import OptionError, ShapeError
from jddb_plugin.ops.bayer import demosaic_bilinear, half_size_rgb

ALIGN = {'match_channels': 3, 'features': 'bicubic', 'radius': 3}
TILES = {'tile': 16, 'overlap': 4}
EDVR_OPTIONS = {'type': 'EDVR', 'num_feat': 8, 'num_frame': 3, 'deformable_groups': 2, 'num_extract_block': 1,
                'num_reconstruct_block': 1}


class _Mean(nn.Module):
    """Mean of the frames; with ``every_frame`` a recurrent network's output, with ``flat`` one that makes no sense."""

    def __init__(self, every_frame: bool = False, flat: bool = False) -> None:
        super().__init__()
        self.every_frame, self.flat = every_frame, flat

    def forward(self, x):
        if self.flat:
            return x.mean(dim=(1, 2))
        return x + torch.arange(float(x.shape[1]))[:, None, None, None] if self.every_frame else x.mean(dim=1)


@pytest.fixture(autouse=True)
def mean_network():
    ARCH_REGISTRY._obj_map['MeanForTest'] = _Mean
    yield
    del ARCH_REGISTRY._obj_map['MeanForTest']


#: What only tiles cover whose content stays inside the frame.
INNER = (..., slice(24, 40), slice(24, 48))


def _wrap(network='MeanForTest', align=ALIGN, **kwargs):
    network = {'type': network} if isinstance(network, str) else network
    return build_network({'type': 'CoarseAligned', 'align': align, 'network': network, **TILES, **kwargs}).eval()


def _moving(frames=3, channels=3, speed=(8, -8)):
    """Frames [1, N, C, 64, 72] of a texture that moves by whole feature pixels; the middle one stands still."""
    scene = torch.rand(channels, 140, 140)
    middle = frames // 2
    return torch.stack([scene[:, 40 - (t - middle) * speed[0]:104 - (t - middle) * speed[0],
                              40 - (t - middle) * speed[1]:112 - (t - middle) * speed[1]] for t in range(frames)])[None]


def test_frames_reach_the_network_aligned():
    """Where the scene is visible in all frames, the mean of aligned frames is the reference itself."""
    frames = _moving()
    result = _wrap()(frames)
    torch.testing.assert_close(result[INNER], frames[:, 1][INNER])
    assert (frames.mean(dim=1) - frames[:, 1])[INNER].abs().mean() > 0.1


@pytest.mark.parametrize(('network', 'frames', 'scale'), [
    (EDVR_OPTIONS, 3, 4),
    ({**EDVR_OPTIONS, 'hr_in': True, 'with_predeblur': True}, 3, 1),
    ({'type': 'TOFlow'}, 7, 1),
    ({'type': 'DUF', 'num_layer': 16, 'scale': 2}, 7, 2),
], ids=['EDVR', 'EDVR on full-size frames', 'TOFlow', 'DUF'])
def test_sliding_window_networks_of_the_toolbox_train_and_restore(network, frames, scale):
    net = _wrap(network, overlap=8).train()  # these want multiples of 16
    lq = torch.rand(1, frames, 3, 36, 44)
    output = net(lq)
    assert output.shape == (1, 3, 36 * scale, 44 * scale)
    output.mean().backward()
    assert all(p.grad is not None for p in net.network.parameters())
    with torch.no_grad():
        assert net.eval()(lq).shape == output.shape


def test_a_recurrent_network_restores_the_reference_from_an_aligned_burst():
    frames = _moving()
    every = _wrap({'type': 'MeanForTest', 'every_frame': True})(frames)
    torch.testing.assert_close(every, frames[:, 1] + 1)  # the test network adds each frame's number
    net = _wrap({'type': 'BasicVSR', 'num_feat': 8, 'num_block': 1}, tile=48)
    with torch.no_grad():
        assert net(torch.rand(1, 3, 3, 64, 68)).shape == (1, 3, 256, 272)


@pytest.mark.parametrize('channels', [4, 8], ids=['raw', 'raw and noise map'])
def test_raw_bursts(channels):
    frames = _moving(channels=channels)
    align = {**ALIGN, 'match_channels': 4}
    torch.testing.assert_close(_wrap(align=align)(frames)[INNER], frames[:, 1][INNER])
    half = _wrap(align=align, network_input='half_size_rgb')(frames)
    torch.testing.assert_close(half[INNER], half_size_rgb(frames[:, 1, :4])[INNER])
    full = _wrap(align=align, network_input='demosaiced')(frames)
    assert full.shape == (1, 3, 128, 144)
    inner = (..., slice(52, 76), slice(52, 92))
    error = (full - demosaic_bilinear(frames[:, 1, :4]))[inner].abs()
    # The outermost pixels of a tile are demosaicked with fewer neighbors, and count little in the blend.
    assert (error < 1e-5).float().mean() > 0.9 and error.max() < 0.05


def test_learned_features_are_trained_through_the_network():
    net = _wrap(EDVR_OPTIONS, align={**ALIGN, 'features': 'learned'}).train()
    net(torch.rand(2, 3, 3, 32, 36)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.coarse.parameters() if p.ndim > 1)


def test_a_checkpoint_of_the_bare_network_fits(tmp_path):
    from basicsr.models.base_model import BaseModel

    bare = EDVR(**{k: v for k, v in EDVR_OPTIONS.items() if k != 'type'})
    torch.save({'params': bare.state_dict()}, tmp_path / 'edvr.pth')
    net = _wrap(EDVR_OPTIONS)
    model = BaseModel({'num_gpu': 0, 'is_train': False, 'dist': False})
    model.load_network(net, str(tmp_path / 'edvr.pth'))
    assert all(torch.equal(a, b) for a, b in zip(net.network.parameters(), bare.parameters()))
    wrapped = {f'network.{k}': v for k, v in bare.state_dict().items()}
    assert net.adapt_state_dict(wrapped) is wrapped


def test_what_cannot_work_is_explained():
    with pytest.raises(OptionError, match="'EDWR' is not registered; did you mean 'EDVR'"):
        _wrap('EDWR')
    with pytest.raises(OptionError, match="network_g.network: unknown key 'num_feet'; did you mean 'num_feat'"):
        _wrap({'type': 'EDVR', 'num_feet': 8})
    with pytest.raises(OptionError, match="network_g.align: unknown key 'raduis'; did you mean 'radius'"):
        _wrap(align={'raduis': 16})
    with pytest.raises(OptionError, match='made of packed raw, but align.match_channels is 3'):
        _wrap(network_input='demosaiced')
    with pytest.raises(ShapeError, match=r'EDVR takes bursts of 3 frames, got \[1, 5, 3, 36, 44\]'):
        _wrap(EDVR_OPTIONS)(torch.rand(1, 5, 3, 36, 44))
    with pytest.raises(ShapeError, match='MSRResNet failed on aligned tiles .*what is supported, and why'):
        _wrap('MSRResNet')(torch.rand(1, 3, 3, 36, 44))
    with pytest.raises(ShapeError, match=r'MeanForTest made \[6, 24, 24\] of aligned tiles'):
        _wrap({'type': 'MeanForTest', 'flat': True})(torch.rand(1, 3, 3, 36, 44))
    with pytest.raises(ShapeError, match=r'36 x 12 px .* smaller than a tile of 16'):
        _wrap()(torch.rand(1, 3, 3, 36, 12))
    with pytest.raises(ShapeError, match='RGB needs match_channels: 3'):
        CoarseAligned({'type': 'MeanForTest'}, tile=16)(torch.rand(1, 3, 3, 36, 44))
