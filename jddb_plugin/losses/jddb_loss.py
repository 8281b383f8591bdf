"""The loss terms of section 3.5, each a class in the toolbox's loss registry.

The total, eq. (9), is their sum: every term multiplies its own ``loss_weight``. The released losses are sums
over pixels, candidates and samples, which is what the released weights were tuned for; with
``reduction: mean`` the weights need rescaling.
"""
from __future__ import annotations

from typing import Sequence

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from jddb_plugin.checks import OptionError, ShapeError, check_choice
from jddb_plugin.ops.block_matching import Search
from jddb_plugin.ops.camera import Camera
from jddb_plugin.ops.edges import high_frequency_mask


def charbonnier(a: Tensor, b: Tensor, eps: float = 1e-3) -> Tensor:
    """Charbonnier penalty sqrt((a - b)^2 + eps^2), element by element."""
    return torch.sqrt((a - b).square() + eps * eps)


def check_rgb(restored: Tensor, gt: Tensor, name: str) -> None:
    """Raise ShapeError unless a result has the shape of the truth; ``name`` is that of the loss."""
    if restored.shape != gt.shape:
        raise ShapeError(f'{name}: compares linear camera RGB {list(gt.shape)}, got {list(restored.shape)}; for packed raw, '
                         'which networks with output: raw give while training, use RawLoss (or KPNLoss with KPN).')


class _Term(nn.Module):
    """A loss term with a weight and a reduction over all of its elements."""

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'sum') -> None:
        super().__init__()
        check_choice(reduction, ('sum', 'mean'), f'{type(self).__name__}.reduction')
        self.loss_weight = loss_weight
        self.reduction = reduction

    def _reduce(self, values: Tensor) -> Tensor:
        return self.loss_weight * (values.sum() if self.reduction == 'sum' else values.mean())


@LOSS_REGISTRY.register()
class ReconstructionLoss(_Term):
    """Charbonnier penalty in linear camera RGB plus the same after the ISP (eq. 8).

    Args:
        loss_weight: factor.
        reduction: 'sum' (as released) or 'mean' over pixels and channels.
        eps: of the Charbonnier penalty.
    """

    needs_camera = True

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'sum', eps: float = 1e-3) -> None:
        super().__init__(loss_weight, reduction)
        self.eps = eps

    def forward(self, restored: Tensor, gt: Tensor, *, camera: Camera) -> Tensor:
        """Loss of ``restored`` against ``gt``, both linear camera RGB [B, 3, H, W]; fields of ``camera`` [B].

        Its ``rgb_gain`` is not used: the released training leaves the brightness as the sensor has it.

        Raises:
            ShapeError: ``restored`` is no RGB of that size.
        """
        check_rgb(restored, gt, 'ReconstructionLoss')
        plain = camera.with_gain(1.0)
        linear = charbonnier(restored, gt, self.eps)
        developed = charbonnier(plain.develop(restored), plain.develop(gt), self.eps)
        return self._reduce(linear + developed)


@LOSS_REGISTRY.register()
class InterpolationLoss(_Term):
    """Charbonnier penalty of the reference interpolated from its neighbors, on high frequencies (eq. 7).

    Args:
        loss_weight: beta of eq. (9).
        reduction: 'sum' (as released) or 'mean' over pixels and channels.
        eps: of the Charbonnier penalty.
    """

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'sum', eps: float = 1e-3) -> None:
        super().__init__(loss_weight, reduction)
        self.eps = eps

    def forward(self, interpolated: Tensor, gt: Tensor) -> Tensor:
        """Loss of ``interpolated`` against ``gt``, both linear camera RGB [B, 3, H, W]."""
        return self._reduce(high_frequency_mask(gt) * charbonnier(interpolated, gt, self.eps))


@LOSS_REGISTRY.register()
class OneHotLoss(_Term):
    """Pull the weights of every search towards a one-hot vector (eq. 5).

    |sum(w) - 1| + |var(w) - 1/M| with the unbiased variance, for which a one-hot vector of M elements has exactly
    1/M. M counts the valid candidates.

    Args:
        loss_weight: rho of eq. (9), 1e5 in the paper.
        reduction: 'sum' (as released) or 'mean' over searches.
    """

    def forward(self, *searches: Search) -> Tensor:
        """Loss of soft searches, see :class:`Search`."""
        return self._reduce(torch.cat([self._penalty(search).flatten() for search in searches]))

    @staticmethod
    def _penalty(search: Search) -> Tensor:
        weight, valid = search.weight, search.valid
        if weight is None:
            raise OptionError('OneHotLoss: hard matching has no weights; it needs coarse: dpbm, while training.')
        count = valid.sum(dim=-1).to(weight.dtype)
        total = weight.sum(dim=-1)
        deviation = (weight - (total / count).unsqueeze(-1)).masked_fill(~valid, 0)
        # One candidate alone has no variance to speak of, and its weight is one-hot by itself.
        several = count > 1
        variance = deviation.square().sum(dim=-1) / (count - 1).clamp(min=1)
        return (total - 1).abs() + torch.where(several, (variance - 1 / count).abs(), torch.zeros_like(variance))


@LOSS_REGISTRY.register()
class BlockMatchingLoss(_Term):
    """Pull the distances of noisy features towards those of the clean burst (eq. 6).

    Args:
        loss_weight: eta of eq. (9), 1e3 in the paper during the first 200,000 iterations, then 0.
        reduction: 'sum' (as released) or 'mean' over candidates.
    """

    def forward(self, distances: Sequence[Tensor], clean: Sequence[Tensor]) -> Tensor:
        """Loss between distances [..., M] of the same candidates, one tensor per search.

        Args:
            distances: eq. (1) on learned features.
            clean: eq. (1) on the clean burst; no gradient flows into it.
        """
        return self._reduce(torch.cat([(d - c.detach()).square().flatten() for d, c in zip(distances, clean)]))
