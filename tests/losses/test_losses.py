import pytest
import torch
from basicsr.losses import build_loss

from jddb_plugin.losses.jddb_loss import BlockMatchingLoss, InterpolationLoss, OneHotLoss, ReconstructionLoss
from jddb_plugin.ops.block_matching import Search
from jddb_plugin.ops.camera import Camera


def _search(weight, valid=None):
    valid = torch.ones_like(weight, dtype=torch.bool) if valid is None else valid
    return Search(torch.zeros(*weight.shape[:-1], 2), weight, valid, weight)


def _camera(batch):
    gains = (torch.full((batch,), gain) for gain in (1.0, 2.0, 1.5))
    return Camera(*gains, torch.eye(3).expand(batch, 3, 3))


def test_one_hot_weights_cost_nothing():
    weight = torch.nn.functional.one_hot(torch.tensor([3, 0]), 25).double()
    assert OneHotLoss()(_search(weight)).item() == pytest.approx(0, abs=1e-12)


def test_uniform_weights_cost_one_over_m():
    weight = torch.full((2, 25), 1 / 25, dtype=torch.float64)
    assert OneHotLoss()(_search(weight)).item() == pytest.approx(2 / 25)
    assert OneHotLoss(loss_weight=1e5, reduction='mean')(_search(weight)).item() == pytest.approx(1e5 / 25)


def test_one_hot_loss_by_the_book():
    weight = torch.rand(4, 9, dtype=torch.float64)
    expected = (weight.sum(-1) - 1).abs() + (weight.var(-1) - 1 / 9).abs()
    torch.testing.assert_close(OneHotLoss()(_search(weight)), expected.sum())


def test_invalid_candidates_do_not_count():
    weight = torch.tensor([[0.5, 0.5, 0.0, 0.0]], dtype=torch.float64)
    valid = torch.tensor([[True, True, False, False]])
    few = OneHotLoss()(_search(weight[:, :2]))
    assert OneHotLoss()(_search(weight, valid)).item() == pytest.approx(few.item())
    alone = _search(torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]]))
    assert OneHotLoss()(alone).item() == 0


def test_block_matching_loss_is_a_sum_of_squares_without_gradient_into_the_clean_side():
    d, c = torch.rand(2, 9, requires_grad=True), torch.rand(2, 9, requires_grad=True)
    loss = BlockMatchingLoss(loss_weight=3.0)((d, d), (c, c))
    assert loss.item() == pytest.approx(2 * 3 * ((d - c) ** 2).sum().item(), rel=1e-5)
    loss.backward()
    assert c.grad is None and d.grad.any()


def test_reconstruction_loss_is_linear_plus_developed():
    a, b = torch.rand(2, 3, 4, 4, dtype=torch.float64), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    expected = torch.sqrt((a - b) ** 2 + 1e-6).sum()
    expected += torch.sqrt((_camera(2).develop(a) - _camera(2).develop(b)) ** 2 + 1e-6).sum()
    torch.testing.assert_close(ReconstructionLoss()(a, b, camera=_camera(2)), expected)
    brighter = _camera(2).with_gain(3.0)  # the brightness does not count
    torch.testing.assert_close(ReconstructionLoss()(a, b, camera=brighter), expected)
    assert ReconstructionLoss(reduction='mean')(a, b, camera=_camera(2)).item() == pytest.approx(expected.item() / a.numel())


def test_interpolation_loss_ignores_flat_ground():
    gt = torch.zeros(1, 3, 32, 32)
    gt[..., 16:] = 1
    wrong_on_flat, wrong_on_edge = gt.clone(), gt.clone()
    wrong_on_flat[..., 2:6] += 0.5
    wrong_on_edge[..., 14:18] += 0.5
    base = InterpolationLoss()(gt, gt)
    assert InterpolationLoss()(wrong_on_flat, gt) - base < 0.01 * (InterpolationLoss()(wrong_on_edge, gt) - base)


def test_terms_are_built_by_the_toolbox():
    assert build_loss({'type': 'OneHotLoss', 'loss_weight': 10.0}).loss_weight == 10.0
    with pytest.raises(ValueError, match="OneHotLoss.reduction: 'none' is not a valid choice"):
        build_loss({'type': 'OneHotLoss', 'reduction': 'none'})
