"""The high-frequency mask m_h of the interpolation loss (eq. 7)."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jddb_plugin.checks import check_ndim

_LUMA = (0.2989, 0.5870, 0.1140)


def _gaussian5(image: Tensor) -> Tensor:
    """Normalized 5x5 Gaussian of sigma 1 with zero padding, on [B, 1, H, W]."""
    line = torch.exp(-torch.arange(-2, 3, dtype=torch.float64).square() / 2)
    kernel = torch.outer(line, line)
    kernel = (kernel / kernel.sum()).to(image)
    return F.conv2d(image, kernel[None, None], padding=2)


def high_frequency_mask(rgb_linear: Tensor) -> Tensor:
    """Mask that is large on edges and texture.

    The smoothed absolute high-pass of the luma, scaled per image to [0, 1].

    Args:
        rgb_linear: clean linear camera RGB [B, 3, H, W].

    Returns:
        [B, 3, H, W] in [0, 1], the same on the three channels.

    Reference:
        Equation (7), after Liu et al., CVPR 2020 (the paper's [28]).

    Examples:
        >>> picture = torch.zeros(1, 3, 16, 16)
        >>> picture[..., 8:] = 1
        >>> mask = high_frequency_mask(picture)
        >>> bool(mask[0, 0, 8, 8] > mask[0, 0, 8, 3])
        True
    """
    check_ndim(rgb_linear, 'B 3 H W', 'rgb_linear')
    weights = rgb_linear.new_tensor(_LUMA).view(1, 3, 1, 1)
    gray = (rgb_linear * weights).sum(dim=1, keepdim=True)
    edges = _gaussian5((gray - _gaussian5(gray)).abs())
    low = edges.amin(dim=(-2, -1), keepdim=True)
    high = edges.amax(dim=(-2, -1), keepdim=True)
    return ((edges - low) / (high - low + 1e-6)).expand(-1, 3, -1, -1)
