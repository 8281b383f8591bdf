import pytest
import torch
from basicsr.losses import build_loss

from jddb_plugin.checks import OptionError
from jddb_plugin.losses.developed_loss import DevelopedLoss
from jddb_plugin.ops.camera import Camera
from jddb_plugin.ops.curves import tone_map, tone_map_softly


def _camera(batch, rgb_gain=1.0):
    return Camera(torch.full((batch,), rgb_gain), torch.full((batch,), 2.0), torch.full((batch,), 1.5),
                  torch.eye(3).expand(batch, 3, 3))


def test_the_soft_isp_is_the_isp_where_nothing_is_clipped():
    linear = torch.rand(2, 3, 8, 8) * 0.45 + 0.001
    camera = _camera(2)
    torch.testing.assert_close(camera.develop_softly(linear), camera.develop(linear))
    x = torch.rand(100)
    torch.testing.assert_close(tone_map_softly(x), tone_map(x))


def test_every_value_has_a_finite_gradient():
    restored = torch.tensor([-0.5, -1e-6, 0.0, 1e-9, 0.3, 0.9, 4.0]).expand(1, 3, 1, 7).clone().requires_grad_()
    DevelopedLoss(linear=0, gamma=1, tone=1)(restored, torch.full((1, 3, 1, 7), 0.31), camera=_camera(1)).backward()
    assert torch.isfinite(restored.grad).all()
    assert (restored.grad != 0).all()


def test_the_terms_are_weighted_means():
    a, b = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    camera = _camera(2, 0.8)

    def mean(x, y):
        return torch.sqrt((x - y) ** 2 + 1e-6).mean()

    first, second = camera.develop_softly(a), camera.develop_softly(b)
    expected = 0.2 * mean(a, b) + 0.5 * mean(first, second) + 2 * mean(tone_map_softly(first), tone_map_softly(second))
    torch.testing.assert_close(DevelopedLoss(linear=0.2, gamma=0.5, tone=2.0)(a, b, camera=camera), expected)
    total = DevelopedLoss(loss_weight=3, reduction='sum', linear=0.2, gamma=0.5, tone=2.0)(a, b, camera=camera)
    torch.testing.assert_close(total, expected * 3 * a.numel())


def test_it_is_built_by_the_toolbox_and_refuses_what_cannot_be():
    assert isinstance(build_loss({'type': 'DevelopedLoss'}), DevelopedLoss)
    with pytest.raises(OptionError, match='weights'):
        DevelopedLoss(linear=0, gamma=0, tone=0)
    with pytest.raises(OptionError, match='reduction'):
        DevelopedLoss(reduction='none')


def test_the_gradient_of_the_soft_isp_is_bit_equal_to_that_of_earlier_trainings():
    """Another order of the same operations rounds differently, and a resumed training would leave its path."""
    linear = torch.linspace(-0.1, 1.2, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    matrix = torch.tensor([[1.6, -0.5, -0.1], [-0.2, 1.5, -0.3], [0.0, -0.6, 1.6]])
    camera = _camera(2, 0.9)._replace(cam2rgb=matrix.expand(2, 3, 3))

    def clamp(x):
        inside = x.clamp(0, 1)
        return inside + 0.02 * (x - inside)

    def develop(image):
        gains = torch.stack((camera.red_gain, torch.ones(2), camera.blue_gain), dim=-1)[..., None, None]
        gains = gains * camera.rgb_gain[..., None, None, None]
        rgb = clamp(torch.einsum('...ij,...jhw->...ihw', camera.cam2rgb, clamp(image * gains)))
        curved = rgb.clamp(min=5e-4).pow(1 / 2.2)
        return curved + (rgb - rgb.clamp(min=5e-4)) * (5e-4 ** (1 / 2.2 - 1) / 2.2)

    gradients = []
    for function in (camera.develop_softly, develop):
        image = linear.clone().requires_grad_()
        function(image).square().sum().backward()
        gradients.append(image.grad)
    assert torch.equal(*gradients)
