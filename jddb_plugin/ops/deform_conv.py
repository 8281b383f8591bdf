"""Modulated deformable convolution (DCNv2) behind one function, with a choice of implementations.

Convention:
    As in torchvision: for group g and kernel tap k, ``offset[:, 2 (g K + k)]`` moves the sample down and
    ``offset[:, 2 (g K + k) + 1]`` to the right, in pixels; samples outside the image are zero.

Backends:
    torchvision  ``torchvision.ops.deform_conv2d``. On the CPU it runs on one thread.
    grid_sample  the same arithmetic written with ``F.grid_sample`` and one matrix product; by far the faster
                 one on a CPU.
    basicsr      the toolbox's compiled extension (``BASICSR_EXT=True`` at its installation), CUDA only.
    mmcv         ``mmcv.ops`` of the full mmcv.
    auto         grid_sample on the CPU, torchvision elsewhere.
"""
from __future__ import annotations

import importlib
import importlib.util
from typing import Callable, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from jddb_plugin.checks import OptionError, ShapeError, check_choice

#: Samples that are computed at once on a CPU where no gradient is wanted.
_CHUNK = 1 << 20
BACKENDS = ('auto', 'torchvision', 'grid_sample', 'basicsr', 'mmcv')


def deform_conv2d(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Optional[Tensor] = None, *,
                  stride: int = 1, padding: int = 0, dilation: int = 1, deformable_groups: int = 1,
                  backend: str = 'auto') -> Tensor:
    """Convolve ``x`` at positions moved by ``offset`` and weighted by ``mask``.

    Computed in float32 at least: no backend has a CPU kernel for bfloat16.

    Args:
        x: [B, C, H, W].
        offset: [B, 2 * G * K, H', W'] in pixels, K taps, G deformable groups.
        mask: [B, G * K, H', W'], usually in [0, 1].
        weight: [C', C, kh, kw]; plain convolution groups are not supported.
        bias: [C'].
        stride, padding, dilation: as in ``torch.nn.Conv2d``, the same on both axes.
        deformable_groups: G, must divide C.
        backend: see the module's docstring.

    Returns:
        [B, C', H', W'].

    Raises:
        ShapeError: the shapes do not belong together.
        OptionError: the backend is unknown or not installed.

    Examples:
        >>> x, weight = torch.rand(1, 2, 8, 8), torch.rand(4, 2, 3, 3)
        >>> still, all_seen = torch.zeros(1, 18, 8, 8), torch.ones(1, 9, 8, 8)
        >>> plain = torch.nn.functional.conv2d(x, weight, padding=1)
        >>> torch.allclose(deform_conv2d(x, still, all_seen, weight, padding=1), plain, atol=1e-5)
        True
    """
    check_choice(backend, BACKENDS, 'dcn_backend')
    taps = weight.shape[2] * weight.shape[3]
    if offset.shape[1] != 2 * deformable_groups * taps or mask.shape[1] != deformable_groups * taps:
        raise ShapeError(f'deform_conv2d: with {deformable_groups} groups of {taps} taps offset and mask need '
                         f'{2 * deformable_groups * taps} and {deformable_groups * taps} channels, '
                         f'got {offset.shape[1]} and {mask.shape[1]}.')
    if x.shape[1] % deformable_groups or weight.shape[1] != x.shape[1]:
        raise ShapeError(f'deform_conv2d: input has {x.shape[1]} channels, weight expects {weight.shape[1]}, '
                         f'{deformable_groups} deformable groups must divide them.')
    if backend == 'auto':
        backend = 'grid_sample' if x.device.type == 'cpu' else 'torchvision'
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        x, offset, mask, weight = (t.to(dtype) for t in (x, offset, mask, weight))
        bias = None if bias is None else bias.to(dtype)
        return _IMPLEMENTATIONS[backend](x, offset, mask, weight, bias, stride, padding, dilation, deformable_groups)


def _torchvision(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Optional[Tensor], stride: int,
                 padding: int, dilation: int, groups: int) -> Tensor:
    from torchvision.ops import deform_conv2d as implementation
    return implementation(x, offset, weight, bias, stride, padding, dilation, mask)


def _grid_sample(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Optional[Tensor], stride: int,
                 padding: int, dilation: int, groups: int) -> Tensor:
    batch, channels, height, width = x.shape
    out_channels, _, kernel_h, kernel_w = weight.shape
    taps = kernel_h * kernel_w
    out_h, out_w = offset.shape[-2:]
    device, dtype = x.device, x.dtype
    rows = torch.arange(out_h, device=device, dtype=dtype) * stride - padding
    cols = torch.arange(out_w, device=device, dtype=dtype) * stride - padding
    tap_y = (torch.arange(kernel_h, device=device, dtype=dtype) * dilation).repeat_interleave(kernel_w)
    tap_x = (torch.arange(kernel_w, device=device, dtype=dtype) * dilation).repeat(kernel_h)
    # Pixel centers lie at odd multiples of 1 / size in grid_sample's coordinates (align_corners=False).
    still_y = (2 * (tap_y.view(-1, 1, 1) + rows.view(-1, 1)) + 1) / height - 1
    still_x = (2 * (tap_x.view(-1, 1, 1) + cols) + 1) / width - 1
    kernel = weight.reshape(out_channels, -1)

    def convolve(images: Tensor, moved: Tensor, weights: Tensor, part: slice) -> Tensor:
        """Rows ``part`` of some images, [b, C', rows * W']."""
        moved = moved.reshape(-1, taps, 2, out_h, out_w)[:, :, :, part]
        grid = torch.stack((still_x + moved[:, :, 1] * (2 / width), still_y[:, part] + moved[:, :, 0] * (2 / height)), dim=-1)
        sampled = F.grid_sample(images.reshape(-1, channels // groups, height, width), grid.flatten(1, 2),
                                mode='bilinear', padding_mode='zeros', align_corners=False)
        weights = weights.reshape(-1, 1, taps, out_h, out_w)[:, :, :, part]
        sampled = sampled.view(-1, channels // groups, *weights.shape[2:]) * weights
        return kernel @ sampled.view(images.shape[0], channels * taps, -1)

    if torch.is_grad_enabled() or torch.compiler.is_compiling() or device.type != 'cpu':
        result = convolve(x, offset, mask, slice(None))
    else:  # without a gradient to keep it for, what is sampled never leaves the processor's cache
        result = x.new_empty(batch, out_channels, out_h * out_w)
        step = max(1, _CHUNK // (channels * taps * out_w))
        for k in range(batch):
            for first in range(0, out_h, step):
                part = slice(first, first + step)
                result[k:k + 1, :, first * out_w:part.stop * out_w] = convolve(
                    x[k:k + 1], offset[k:k + 1], mask[k:k + 1], part)
    result = result.view(batch, out_channels, out_h, out_w)
    return result if bias is None else result + bias.view(-1, 1, 1)


def _basicsr(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Optional[Tensor], stride: int,
             padding: int, dilation: int, groups: int) -> Tensor:
    if not _has_basicsr_extension():
        raise OptionError("dcn_backend 'basicsr': the toolbox's extension is not compiled (install basicsr with "
                          "BASICSR_EXT=True and a CUDA compiler), or use 'auto'.")
    if x.device.type != 'cuda':
        raise OptionError("dcn_backend 'basicsr' runs on CUDA only; use 'auto'.")
    from basicsr.ops.dcn import modulated_deform_conv
    return modulated_deform_conv(x, offset, mask, weight, bias, stride, padding, dilation, 1, groups)


def _mmcv(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Optional[Tensor], stride: int,
          padding: int, dilation: int, groups: int) -> Tensor:
    if not _has_mmcv_ops():
        raise OptionError("dcn_backend 'mmcv': mmcv.ops is not installed (mmcv-lite has none; install the full "
                          "mmcv), or use 'auto'.")
    from mmcv.ops import modulated_deform_conv2d
    return modulated_deform_conv2d(x, offset, mask, weight, bias, stride, padding, dilation, 1, groups)


_IMPLEMENTATIONS: dict[str, Callable[..., Tensor]] = {
    'torchvision': _torchvision, 'grid_sample': _grid_sample, 'basicsr': _basicsr, 'mmcv': _mmcv,
}


def _has_basicsr_extension() -> bool:
    return importlib.util.find_spec('basicsr.ops.dcn.deform_conv_ext') is not None


def _has_mmcv_ops() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ('mmcv', 'mmcv._ext'))


def available_backends() -> dict[str, str]:
    """Backends that are installed, each with the devices it serves.

    Examples:
        >>> 'torchvision' in available_backends()
        True
    """
    found = {'torchvision': 'cpu, cuda', 'grid_sample': 'cpu, cuda'}
    if _has_basicsr_extension():
        found['basicsr'] = 'cuda'
    if _has_mmcv_ops():
        found['mmcv'] = 'cpu, cuda'
    return found
