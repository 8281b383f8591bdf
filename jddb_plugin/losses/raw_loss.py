"""Losses on mosaics, for burst denoisers that leave demosaicking to another network.

They compare packed raw with the mosaic of the true picture, and get what a network gives while it trains with ``output: raw``.
"""
from __future__ import annotations

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from jddb_plugin.checks import ShapeError, check_choice
from jddb_plugin.losses.jddb_loss import charbonnier
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.camera import Camera


def srgb_gamma(linear: Tensor) -> Tensor:
    """Transfer function of sRGB; below 0.0031308, negative values included, a straight line, so that its slope is finite."""
    curved = 1.055 * linear.clamp(min=0.0031308).pow(1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, 12.92 * linear, curved)


def _clean_mosaic(result: Tensor, gt: Tensor, name: str) -> Tensor:
    """Packed raw [B, 4, H, W] of the truth.

    Raises:
        ShapeError: ``result`` is no packed raw of that size.
    """
    clean = mosaic_rgb(gt)
    if result.shape[-3:] != clean.shape[-3:]:
        raise ShapeError(f'{name}: compares packed raw [..., {", ".join(map(str, clean.shape[-3:]))}], got {list(result.shape)}; '
                         'it belongs to a denoiser, e.g. KPN, or EDVRBurst or RViDeNet with output: raw.')
    return clean


@LOSS_REGISTRY.register()
class RawLoss(nn.Module):
    """Charbonnier penalty of packed raw, plus the same after white balance and gamma: eq. (8) before demosaicking.

    Args:
        loss_weight: factor.
        reduction: 'sum' (as the paper's other losses) or 'mean' over pixels and planes.
        eps: of the Charbonnier penalty.
    """

    needs_camera = True

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'sum', eps: float = 1e-3) -> None:
        super().__init__()
        check_choice(reduction, ('sum', 'mean'), 'RawLoss.reduction')
        self.loss_weight, self.reduction, self.eps = loss_weight, reduction, eps

    def forward(self, raw: Tensor, gt: Tensor, *, camera: Camera) -> Tensor:
        """Loss of packed raw [B, 4, H, W] against linear camera RGB ``gt`` [B, 3, 2H, 2W]; fields of ``camera`` [B]."""
        clean = _clean_mosaic(raw, gt, 'RawLoss')
        one = torch.ones_like(camera.red_gain)
        gains = torch.stack((camera.red_gain, one, one, camera.blue_gain), dim=-1)[..., None, None]
        penalty = charbonnier(raw, clean, self.eps)
        penalty = penalty + charbonnier(srgb_gamma(raw * gains), srgb_gamma(clean * gains), self.eps)
        return self.loss_weight * (penalty.sum() if self.reduction == 'sum' else penalty.mean())


@LOSS_REGISTRY.register()
class KPNLoss(nn.Module):
    """Annealed loss of the kernel prediction network (Mildenhall et al., section 4.3).

    ell(mean of the frames, truth) + frame_weight * sum over frames of ell(frame, truth), where ell is the mean squared
    difference plus the mean absolute difference of the gradients, both after gamma. ``frame_weight`` begins as beta and
    falls as beta alpha^t, t the iteration; a hook turns it::

        hooks:
          - {type: LossWeightHook, loss: pixel_opt, weight: frame_weight, schedule: geometric, start: 100.0, factor: 0.9998}

    Args:
        loss_weight: factor of the whole.
        frame_weight: beta.
        intensity, gradient: weights of the two parts of ell.
    """

    reduction = 'mean'

    def __init__(self, loss_weight: float = 1.0, frame_weight: float = 100.0, intensity: float = 1.0,
                 gradient: float = 1.0) -> None:
        super().__init__()
        self.loss_weight, self.frame_weight = loss_weight, frame_weight
        self.intensity, self.gradient = intensity, gradient

    def forward(self, frames: Tensor, gt: Tensor) -> Tensor:
        """Loss of the frames' own estimates [B, N, 4, H, W] against linear camera RGB ``gt`` [B, 3, 2H, 2W]."""
        if frames.ndim != 5:
            raise ShapeError(f'KPNLoss: expected an estimate of every frame, [B, N, 4, H, W], got {list(frames.shape)}; use '
                             'RawLoss for networks that give one mosaic.')
        if min(frames.shape[-2:]) < 2:
            raise ShapeError(f'KPNLoss: compares gradients; expected frames of at least 2 x 2, got {list(frames.shape)}.')
        clean = srgb_gamma(_clean_mosaic(frames, gt, 'KPNLoss'))
        loss = self._distance(srgb_gamma(frames.mean(dim=1)), clean)
        if self.frame_weight:
            each = [self._distance(srgb_gamma(frame), clean) for frame in frames.unbind(dim=1)]
            loss = loss + self.frame_weight * torch.stack(each).sum()
        return self.loss_weight * loss

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        difference = a - b
        slopes = (difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean())
        return self.intensity * difference.square().mean() + self.gradient * slopes
