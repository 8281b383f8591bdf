import pytest
import torch
from basicsr.archs import build_network
from basicsr.archs.arch_util import DCNv2Pack

from jddb_plugin import DPBM, TwoStageJDDB
from jddb_plugin.archs.pixel_align import DeformConvPack
from jddb_plugin.checks import OptionError, ShapeError
from jddb_plugin.losses.jddb_loss import BlockMatchingLoss, InterpolationLoss, OneHotLoss, ReconstructionLoss
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.camera import Camera

VARIANTS = {
    'full': dict(coarse='dpbm', refined='dcn'),
    'w/o E2E': dict(coarse='block_matching', refined='dcn'),
    'w/ CA': dict(coarse='dpbm', refined='none'),
    'w/ RA': dict(coarse='none', refined='dcn'),
    'w/o Align': dict(coarse='none', refined='none'),
}


def _small(**kwargs):
    return TwoStageJDDB(num_feat=8, deformable_groups=2, dpbm={'radius': 2}, **kwargs)


def _burst(frames=5, height=24, width=28, batch=2):
    return torch.rand(batch, frames, 8, height, width)


def test_parameters_are_those_of_the_paper():
    net = TwoStageJDDB()
    assert sum(p.numel() for p in net.refine.parameters()) == 12_052_144
    assert sum(p.numel() for p in net.coarse.parameters()) == 9_840
    assert len(net.coarse_parameters()) == len(list(net.coarse.parameters()))


@pytest.mark.parametrize('variant', VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_trains_and_evaluates(variant):
    net = build_network({'type': 'TwoStageJDDB', 'num_feat': 8, 'deformable_groups': 2, **variant,
                         'dpbm': {'radius': 2}})
    output = net(_burst(), torch.tensor([[0, 4], [8, 0]]), tile=16)
    assert output.restored.shape == output.interpolated.shape == (2, 3, 32, 32)
    (output.restored.sum() + output.interpolated.sum()).backward()
    net.eval()
    with torch.no_grad():
        assert net(_burst(), tile=16).shape == (2, 3, 48, 56)


def test_every_parameter_receives_a_gradient():
    net = _small()
    # Offsets start at zero, where the alignment's own branch is already alive through its biases.
    output = net(_burst(), torch.zeros(2, 2, dtype=torch.long), tile=16)
    gt = torch.rand(2, 3, 32, 32)
    camera = Camera(torch.ones(2), torch.ones(2), torch.ones(2), torch.eye(3).expand(2, 3, 3))
    match = output.match
    clean = (torch.rand_like(match.coarse.distance), torch.rand_like(match.fine.distance))
    loss = (ReconstructionLoss()(output.restored, gt, camera=camera) + InterpolationLoss()(output.interpolated, gt)
            + OneHotLoss()(match.coarse, match.fine)
            + BlockMatchingLoss()((match.coarse.distance, match.fine.distance), clean))
    loss.backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not silent
    # conv_offset starts at zero, so what lies before it gets a zero gradient in the very first step only.
    zero = [name for name, p in net.named_parameters() if not p.grad.any() and 'offset' not in name]
    assert not zero


def test_offset_convolutions_receive_gradients_once_offsets_move():
    net = _small()
    for module in net.modules():
        if isinstance(module, DeformConvPack):
            torch.nn.init.normal_(module.conv_offset.weight, std=0.05)
    output = net(_burst(), torch.zeros(2, 2, dtype=torch.long), tile=16)
    output.restored.square().sum().backward()
    assert all(p.grad.any() for name, p in net.refine.named_parameters() if 'offset' in name)


def test_the_downsampler_learns_from_the_picture_alone():
    net = _small()
    output = net(_burst(), torch.zeros(2, 2, dtype=torch.long), tile=16)
    output.restored.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.coarse.parameters() if p.ndim == 4)


@pytest.mark.parametrize('variant', VARIANTS.values(), ids=VARIANTS.keys())
def test_passthrough_starts_as_the_demosaicked_reference(variant):
    """A still, noise-free burst comes out as itself, in its colors, before any training."""
    rgb = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), scale_factor=8, mode='bicubic').clamp(0.05, 0.6)
    burst = torch.cat((mosaic_rgb(rgb), torch.full((1, 4, 32, 32), 0.02)), dim=1)[:, None].expand(1, 5, 8, 32, 32)
    options = dict(num_feat=16, deformable_groups=2, **variant)
    correlation = {}
    for init in ('paper', 'passthrough'):
        torch.manual_seed(1)
        net = TwoStageJDDB(**options, init=init).eval()
        with torch.no_grad():
            restored = net(burst, tile=32, overlap=0)
        chroma = [image[:, (0, 2)] - image[:, 1:2] for image in (restored, rgb)]
        correlation[init] = torch.corrcoef(torch.stack([c.flatten() for c in chroma]))[0, 1].item()
    assert correlation['passthrough'] > 0.7 > abs(correlation['paper'])


def test_state_dict_round_trip():
    net, other = _small(), _small()
    other.load_state_dict(net.state_dict(), strict=True)
    burst = _burst()
    net.eval(), other.eval()
    with torch.no_grad():
        assert torch.equal(net(burst, tile=16), other(burst, tile=16))


@pytest.mark.parametrize('frames', [1, 2, 3, 6])
@pytest.mark.parametrize('ref_idx', [None, 0, -1])
def test_any_number_of_frames_and_any_reference(frames, ref_idx):
    net = _small().eval()
    ref_idx = frames - 1 if ref_idx == -1 else ref_idx
    with torch.no_grad():
        assert torch.isfinite(net(_burst(frames, batch=1), ref_idx=ref_idx, tile=16)).all()


@pytest.mark.parametrize('size', [(16, 16), (17, 30), (40, 25)])
def test_any_frame_size(size):
    net = _small().eval()
    with torch.no_grad():
        assert net(_burst(3, *size), tile=16).shape == (2, 3, 2 * size[0], 2 * size[1])


def test_tile_batch_does_not_change_the_result():
    net = _small().eval()
    burst = _burst(3, 40, 40)
    with torch.no_grad():
        single = net(burst, tile=16, tile_batch=1)
        torch.testing.assert_close(net(burst, tile=16, tile_batch=100), single, rtol=1e-4, atol=1e-5)


def test_whole_frames_train_too():
    """A stock model of the toolbox knows lq and gt only."""
    net = _small()
    net(_burst(3, 64, 64, batch=1)).mean().backward()
    assert all(p.grad is not None for p in net.coarse.parameters())


def test_evaluation_matches_hard_and_training_soft():
    net = _small()
    burst = _burst()
    positions = torch.zeros(2, 1, 2, dtype=torch.long)
    assert net.coarse.match(burst, positions, (16, 16)).fine.weight is not None
    net.eval()
    assert net.coarse.match(burst, positions, (16, 16)).fine.weight is None


def test_dpbm_aligns_whole_frames_of_rgb():
    scene = torch.nn.functional.interpolate(torch.rand(1, 3, 40, 40), scale_factor=4, mode='bicubic')[0]
    frames = torch.stack([scene[:, 40 + 8 * t:104 + 8 * t, 40:104] for t in (-1, 0, 1)])[None]
    net = build_network({'type': 'DPBM', 'match_channels': 3, 'features': 'bicubic', 'radius': 4})
    aligned = net.eval()(frames, tile=16, overlap=4)
    assert aligned.shape == frames.shape
    torch.testing.assert_close(aligned[:, 1], frames[:, 1])
    before = (frames - frames[:, 1:2]).abs()[..., 24:-24, 24:-24].mean()
    after = (aligned - frames[:, 1:2]).abs()[..., 24:-24, 24:-24].mean()
    assert after < 0.01 * before


def test_deform_conv_is_interchangeable_with_the_toolbox():
    ours, theirs = DeformConvPack(8, 2, 'grid_sample'), DCNv2Pack(8, 8, 3, padding=1, deformable_groups=2)
    torch.nn.init.normal_(theirs.conv_offset.weight, std=0.3)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x, feat = torch.randn(2, 8, 9, 11), torch.randn(2, 8, 9, 11)
    original = DCNv2Pack.forward.__wrapped__(theirs, x, feat)  # torchvision's kernel
    torch.testing.assert_close(ours(x, feat)[0], original, rtol=1e-4, atol=1e-5)
    patched = theirs(x, feat)
    torch.testing.assert_close(patched, original, rtol=1e-4, atol=1e-5)
    if x.device.type == 'cpu':
        assert not torch.equal(patched, original)  # another kernel, so other last digits


def test_wrong_input_is_named():
    net = _small()
    with pytest.raises(ShapeError, match=r'\[B, N, 8, H, W\].*\[2, 5, 4, 24, 28\]'):
        net(_burst()[:, :, :4])
    with pytest.raises(ShapeError, match='smaller than a tile of 16'):
        net(_burst(height=12), tile=16)
    with pytest.raises(ShapeError, match='ref_idx is 7, but the burst has 5 frames'):
        net(_burst(), ref_idx=7)
    with pytest.raises(OptionError, match='multiples of the matching scale 4, got 18'):
        net(_burst(), tile=18)
    with pytest.raises(OptionError, match="unknown key 'raduis'; did you mean 'radius'"):
        TwoStageJDDB(dpbm={'raduis': 8})
    with pytest.raises(OptionError, match="'dpmb' is not a valid choice; did you mean 'dpbm'"):
        TwoStageJDDB(coarse='dpmb')
    with pytest.raises(OptionError, match='multiple of deformable_groups, got 12 and 8'):
        TwoStageJDDB(num_feat=12)
    with pytest.raises(OptionError, match='temperature: must be positive'):
        DPBM(temperature=0)
    with pytest.raises(ShapeError, match='H and W multiples of 4'):
        DPBM().extract(torch.rand(1, 3, 4, 30, 32))


@pytest.mark.parametrize('refined', ['dcn', 'none'])
def test_frames_one_by_one_give_what_all_at_once_give(refined):
    """Without gradients a CPU takes frames one after another, gates row by row and deformable sampling in chunks."""
    torch.manual_seed(0)
    net = TwoStageJDDB(num_feat=8, deformable_groups=2, refined=refined).eval()
    for name, parameter in net.named_parameters():
        if 'conv_offset' in name:
            torch.nn.init.normal_(parameter, std=0.2)
    tiles = torch.rand(2, 4, 8, 24, 20)
    together = net.refine(tiles, 1)
    with torch.no_grad():
        apart = net.refine(tiles, 1)
    assert together.restored.requires_grad and not apart.restored.requires_grad
    assert torch.allclose(apart.restored, together.restored, atol=1e-5)
    assert torch.allclose(apart.offset_size, together.offset_size, atol=1e-5) and (apart.offset_size > 0.1).all()
