"""A reconstruction loss whose gradient vanishes nowhere, for networks that are trained from scratch in little time."""
from __future__ import annotations

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from jddb_plugin.checks import OptionError, check_choice
from jddb_plugin.losses.jddb_loss import charbonnier, check_rgb
from jddb_plugin.ops.camera import Camera
from jddb_plugin.ops.curves import tone_map_softly


@LOSS_REGISTRY.register()
class DevelopedLoss(nn.Module):
    """Charbonnier penalties in linear camera RGB, after the ISP, and after the tone curve.

    Deviation: eq. (8) of the paper clamps in its ISP, so that values out of range have no gradient, and gamma has an infinite one
    at 0. Here clamps keep a slope of 2 %, and gamma is a straight line near 0, for the result and the truth alike.

    Args:
        loss_weight: factor of the whole.
        reduction: 'mean' (default) or 'sum' over pixels and channels.
        eps: of the Charbonnier penalty.
        linear, gamma, tone: weights of the penalties in linear camera RGB, in gamma-compressed sRGB, and with the tone curve.
    """

    needs_camera = True

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'mean', eps: float = 1e-3, linear: float = 0.3,
                 gamma: float = 1.0, tone: float = 0.0) -> None:
        super().__init__()
        check_choice(reduction, ('mean', 'sum'), 'DevelopedLoss.reduction')
        if min(linear, gamma, tone) < 0 or linear + gamma + tone <= 0:
            raise OptionError(f'DevelopedLoss: weights must be at least 0 and not all 0, got {linear}, {gamma}, {tone}.')
        self.loss_weight, self.reduction, self.eps = loss_weight, reduction, eps
        self.linear, self.gamma, self.tone = linear, gamma, tone

    def forward(self, restored: Tensor, gt: Tensor, *, camera: Camera) -> Tensor:
        """Loss of ``restored`` against ``gt``, both linear camera RGB [B, 3, H, W]; fields of ``camera`` [B].

        Raises:
            ShapeError: ``restored`` is no RGB of that size.
        """
        check_rgb(restored, gt, 'DevelopedLoss')
        total = self.linear * charbonnier(restored, gt, self.eps)
        if self.gamma or self.tone:
            restored, gt = camera.develop_softly(restored), camera.develop_softly(gt)
            total = total + self.gamma * charbonnier(restored, gt, self.eps)
        if self.tone:
            total = total + self.tone * charbonnier(tone_map_softly(restored), tone_map_softly(gt), self.eps)
        return self.loss_weight * (total.sum() if self.reduction == 'sum' else total.mean())
