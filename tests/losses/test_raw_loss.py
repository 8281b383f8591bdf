import pytest
import torch
from basicsr.losses import build_loss

from jddb_plugin import KPN, EDVRBurst
from jddb_plugin.checks import OptionError, ShapeError
from jddb_plugin.hooks import LossWeightHook
from jddb_plugin.losses.raw_loss import srgb_gamma
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.camera import Camera


@pytest.fixture
def truth():
    return torch.rand(2, 3, 8, 12, dtype=torch.float64)


def test_gamma_is_that_of_srgb():
    x = torch.tensor([-0.1, 0.0, 0.001, 0.0031308, 0.18, 1.0], dtype=torch.float64, requires_grad=True)
    expected = [12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in x.tolist()]
    torch.testing.assert_close(srgb_gamma(x), torch.tensor(expected, dtype=torch.float64))
    srgb_gamma(x).sum().backward()
    assert x.grad.min() > 0.4 and x.grad.max() < 13


def test_raw_loss_by_hand(truth):
    raw, red, blue = torch.rand(2, 4, 4, 6, dtype=torch.float64), torch.tensor([2.0, 1.9]), torch.tensor([1.5, 1.7])
    clean, total = mosaic_rgb(truth), 0.0
    for b in range(2):
        for k, gain in enumerate((red[b], 1.0, 1.0, blue[b])):
            total += ((raw[b, k] - clean[b, k]).square() + 1e-6).sqrt().sum()
            total += ((srgb_gamma(raw[b, k] * gain) - srgb_gamma(clean[b, k] * gain)).square() + 1e-6).sqrt().sum()
    camera = Camera(torch.ones(2), red, blue, torch.eye(3).expand(2, 3, 3))
    loss = build_loss({'type': 'RawLoss', 'loss_weight': 0.5})
    assert loss.needs_camera and loss.reduction == 'sum'
    torch.testing.assert_close(loss(raw, truth, camera=camera), 0.5 * total)
    mean = build_loss({'type': 'RawLoss', 'reduction': 'mean'})
    torch.testing.assert_close(mean(raw, truth, camera=camera), total / raw.numel())
    raw.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, truth, camera=camera), raw)


def test_kpn_loss_by_hand(truth):
    frames, clean = torch.rand(2, 3, 4, 4, 6, dtype=torch.float64), srgb_gamma(mosaic_rgb(truth))

    def distance(estimate):
        difference = srgb_gamma(estimate) - clean
        rows, cols = difference[..., 1:, :] - difference[..., :-1, :], difference[..., 1:] - difference[..., :-1]
        return (difference ** 2).mean() + rows.abs().mean() + cols.abs().mean()

    loss = build_loss({'type': 'KPNLoss', 'frame_weight': 10.0})
    expected = distance(frames.mean(dim=1)) + 10 * sum(distance(frames[:, n]) for n in range(3))
    torch.testing.assert_close(loss(frames, truth), expected)
    loss.frame_weight = 0.0
    torch.testing.assert_close(loss(frames, truth), distance(frames.mean(dim=1)))
    loss.frame_weight = 2.0
    frames.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, truth), frames)


def test_the_weight_of_the_frames_is_annealed_as_in_the_paper():
    loss = build_loss({'type': 'KPNLoss'})
    model = type('Model', (), {'cri_pix': loss})()
    hook = LossWeightHook('pixel_opt', 'geometric', weight='frame_weight', start=100.0, factor=0.9998)
    for t in (1, 2, 1000, 40000):
        hook.before_step(model, t)
        assert loss.frame_weight == pytest.approx(100 * 0.9998 ** t) == hook.log()['weight_pixel']
        assert loss.loss_weight == 1.0
    with pytest.raises(OptionError, match=r"no loss 'pixel_opt' with a weight \(frame_wait\)"):
        LossWeightHook('pixel_opt', 'geometric', weight='frame_wait', start=1.0, factor=0.5).before_step(model, 1)
    with pytest.raises(OptionError, match='factor must be positive, got 0'):
        LossWeightHook('pixel_opt', 'geometric', start=1.0, factor=0)


def test_what_networks_give_while_training_fits_their_losses(truth):
    truth = truth.float().repeat(1, 1, 4, 3)[..., :32, :32]
    lq = torch.rand(2, 3, 8, 16, 16)
    camera = Camera(torch.ones(2), torch.ones(2), torch.ones(2), torch.eye(3).expand(2, 3, 3))
    build_loss({'type': 'KPNLoss'})(KPN(4, 3, 3)(lq), truth).backward()
    denoiser = EDVRBurst(8, 3, 2, 0, 0, output='raw')
    build_loss({'type': 'RawLoss'})(denoiser(lq), truth, camera=camera).backward()
    with pytest.raises(ShapeError, match=r'KPNLoss: expected an estimate of every frame, .* got \[2, 4, 16, 16\]'):
        build_loss({'type': 'KPNLoss'})(denoiser(lq), truth)
    with pytest.raises(ShapeError, match=r'RawLoss: compares packed raw \[..., 4, 16, 16\], got \[2, 3, 32, 32\]'):
        build_loss({'type': 'RawLoss'})(EDVRBurst(8, 3, 2, 0, 0)(lq), truth, camera=camera)
    for name in ('ReconstructionLoss', 'DevelopedLoss'):
        with pytest.raises(ShapeError, match=rf'{name}: compares .* \[2, 3, 32, 32\], got \[2, 4, 16, 16\]; .* use RawLoss'):
            build_loss({'type': name})(denoiser(lq), truth, camera=camera)


def test_gradients_need_two_pixels():
    loss, gt = build_loss({'type': 'KPNLoss'}), torch.rand(1, 3, 2, 8)
    with pytest.raises(ShapeError, match=r'expected frames of at least 2 x 2, got \[1, 3, 4, 1, 4\]'):
        loss(torch.rand(1, 3, 4, 1, 4), gt)
