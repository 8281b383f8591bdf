"""Variance-stabilizing transform of raw values: noise of one standard deviation everywhere.

The noise of a raw value y has the variance shot * y + read^2 (eq. 10 of the paper). The root of a linear function of y
has noise whose standard deviation does not depend on y (Anscombe 1948; Foi et al., IEEE TIP 2008). Scaled so that 0 and 1
keep their places:

    t = (sqrt(shot y + a) - sqrt(a)) / (sqrt(shot + a) - sqrt(a)),    a = read^2 + 3/8 shot^2
"""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Least (shot, a): weaker noise, down to none at all, is treated as the weakest that networks are trained with.
_LEAST_SHOT = 1e-4
_LEAST_OFFSET = 1e-6
#: Planes whose values spread less (variance) do not show how their noise depends on them.
_LEAST_SPREAD = 1e-8


class Stabilizer(NamedTuple):
    """The transform and its inverse.

    Attributes:
        low, high: square roots at the raw values 0 and 1; they broadcast against what is transformed.
    """

    low: Tensor
    high: Tensor

    @classmethod
    def from_levels(cls, shot: Tensor, read_squared: Tensor) -> Stabilizer:
        """Transform for noise of these levels, tensors of one shape."""
        shot = shot.clamp(min=_LEAST_SHOT)
        offset = (read_squared + 0.375 * shot.square()).clamp(min=_LEAST_OFFSET)
        return cls(offset.sqrt(), (shot + offset).sqrt())

    @property
    def sigma(self) -> Tensor:
        """Standard deviation of the noise after the transform."""
        return (self.low + self.high) / 2

    def apply(self, raw: Tensor) -> Tensor:
        """Transform raw values; 0 and 1 stay 0 and 1."""
        root = ((self.high.square() - self.low.square()) * raw + self.low.square()).clamp(min=0).sqrt()
        return raw * (self.high + self.low) / (root + self.low)

    def invert(self, stabilized: Tensor) -> Tensor:
        """The algebraic inverse of :meth:`apply`; below 0 it goes on as a straight line."""
        t = stabilized
        curved = t * (t * (self.high - self.low) + 2 * self.low) / (self.high + self.low)
        return torch.where(t > 0, curved, t * 2 * self.low / (self.high + self.low))

    def planes(self, index: tuple[int, ...]) -> Stabilizer:
        """The transform of some planes of [..., 4, 1, 1], in the given order."""
        return Stabilizer(self.low[..., index, :, :], self.high[..., index, :, :])


def noise_levels(raw: Tensor, noise_map: Tensor) -> tuple[Tensor, Tensor]:
    """Shot noise and squared read noise of each plane, from values and their noise map.

    The squared map is a linear function of the values, so a straight line through them gives both. A plane without spread
    takes the line through all planes; where those have none either, all noise counts as read noise.

    Args:
        raw: [..., 4, H, W] packed raw.
        noise_map: standard deviation of its noise, of the same shape.

    Returns:
        shot [..., 4, 1, 1] and read^2 [..., 4, 1, 1], both at least 0.

    Examples:
        >>> from jddb_plugin.ops import NoiseModel
        >>> raw = torch.rand(4, 16, 16)
        >>> shot, read_squared = noise_levels(raw, NoiseModel.of(0.002, 0.01).std(raw))
        >>> bool(((shot - 0.002).abs() < 1e-5).all()), read_squared.shape
        (True, torch.Size([4, 1, 1]))
    """
    variance = noise_map.square()
    shot, read_squared, spread = _fit(raw, variance, (-2, -1))
    shot_all, read_all, spread_all = _fit(raw, variance, (-3, -2, -1))
    shot_all = torch.where(spread_all > _LEAST_SPREAD, shot_all, torch.zeros_like(shot_all))
    read_all = torch.where(spread_all > _LEAST_SPREAD, read_all, variance.mean(dim=(-3, -2, -1), keepdim=True))
    known = spread > _LEAST_SPREAD
    shot, read_squared = torch.where(known, shot, shot_all), torch.where(known, read_squared, read_all)
    return shot.clamp(min=0), read_squared.clamp(min=0)


def _fit(x: Tensor, y: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """(slope, intercept, variance of x) of the least-squares line."""
    mean_x, mean_y = x.mean(dim=dims, keepdim=True), y.mean(dim=dims, keepdim=True)
    centered = x - mean_x
    spread = centered.square().mean(dim=dims, keepdim=True)
    slope = (centered * (y - mean_y)).mean(dim=dims, keepdim=True) / spread.clamp(min=_LEAST_SPREAD)
    return slope, mean_y - slope * mean_x, spread
