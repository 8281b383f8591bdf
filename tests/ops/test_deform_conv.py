import pytest
import torch

from jddb_plugin.checks import OptionError, ShapeError
from jddb_plugin.ops.deform_conv import available_backends, deform_conv2d


def _inputs(dtype=torch.float32, stride=1, dilation=1, groups=2):
    height, width = 10, 13
    out_h = (height + 2 - dilation * 2 - 1) // stride + 1
    out_w = (width + 2 - dilation * 2 - 1) // stride + 1
    return (torch.randn(2, 4, height, width, dtype=dtype), 3 * torch.randn(2, 18 * groups, out_h, out_w, dtype=dtype),
            torch.rand(2, 9 * groups, out_h, out_w, dtype=dtype), torch.randn(6, 4, 3, 3, dtype=dtype),
            torch.randn(6, dtype=dtype))


@pytest.mark.parametrize(('stride', 'dilation', 'groups'), [(1, 1, 2), (2, 1, 1), (1, 2, 4)])
@pytest.mark.parametrize('backend', ['grid_sample', 'mmcv', 'basicsr'])
def test_backend_agrees_with_torchvision(backend, stride, dilation, groups):
    if backend not in available_backends():
        pytest.skip(f'{backend} is not installed')
    if backend == 'basicsr' and not torch.cuda.is_available():
        pytest.skip('the basicsr extension needs CUDA')
    device = 'cuda' if backend == 'basicsr' else 'cpu'
    results = []
    for name in ('torchvision', backend):
        inputs = [t.to(device).requires_grad_() for t in _seeded(stride=stride, dilation=dilation, groups=groups)]
        out = deform_conv2d(*inputs, stride=stride, padding=1, dilation=dilation, deformable_groups=groups, backend=name)
        out.square().sum().backward()
        results.append([out, *(t.grad for t in inputs)])
    for expected, found in zip(*results):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def _seeded(**kwargs):
    torch.manual_seed(3)
    return _inputs(**kwargs)


def test_zero_offset_and_full_mask_is_a_plain_convolution():
    x, offset, mask, weight, bias = _inputs(torch.float64)
    out = deform_conv2d(x, torch.zeros_like(offset), torch.ones_like(mask), weight, bias, padding=1, deformable_groups=2)
    torch.testing.assert_close(out, torch.nn.functional.conv2d(x, weight, bias, padding=1))


def test_gradients_by_finite_differences():
    # Offsets off the pixel grid: bilinear sampling has kinks on it.
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64)
    offset = torch.rand(1, 36, 4, 5, dtype=torch.float64) * 0.6 + 0.2
    mask, weight = torch.rand(1, 18, 4, 5, dtype=torch.float64), torch.randn(2, 2, 3, 3, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (x, offset, mask, weight)]
    assert torch.autograd.gradcheck(lambda *t: deform_conv2d(*t, padding=1, deformable_groups=2), inputs, fast_mode=True,
                                    nondet_tol=1e-9 * (x.device.type == 'cuda'))  # atomic additions


def test_runs_in_float32_under_autocast():
    x, offset, mask, weight, bias = _inputs()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = deform_conv2d(x, offset.bfloat16(), mask, weight, bias, padding=1, deformable_groups=2)
    assert out.dtype == torch.float32


@pytest.mark.parametrize('backend', ['torchvision', 'grid_sample'])
def test_takes_channels_last(backend):
    x, offset, mask, weight, bias = _inputs()
    expected = deform_conv2d(x, offset, mask, weight, bias, padding=1, deformable_groups=2, backend=backend)
    inputs = [t.to(memory_format=torch.channels_last) for t in (x, offset, mask, weight)]
    found = deform_conv2d(*inputs, bias, padding=1, deformable_groups=2, backend=backend)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_wrong_input_is_named():
    x, offset, mask, weight, bias = _inputs()
    with pytest.raises(ShapeError, match='need 36 and 18 channels, got 35 and 18'):
        deform_conv2d(x, offset[:, 1:], mask, weight, bias, padding=1, deformable_groups=2)
    with pytest.raises(OptionError, match="did you mean 'torchvision'"):
        deform_conv2d(x, offset, mask, weight, bias, padding=1, deformable_groups=2, backend='torch_vision')
    for backend in {'mmcv', 'basicsr'} - set(available_backends()):
        with pytest.raises(OptionError, match=f"dcn_backend '{backend}'.*use 'auto'"):
            deform_conv2d(x, offset, mask, weight, bias, padding=1, deformable_groups=2, backend=backend)
