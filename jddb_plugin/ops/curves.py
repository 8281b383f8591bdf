"""Curves of a simple camera pipeline: gamma, tone curve, their inverses, and smooth stand-ins for losses.

:class:`jddb_plugin.ops.camera.Camera` puts them together with the values of a camera. The tone curve (smoothstep) belongs to
pictures that are looked at, not to losses and metrics.

Every function returns a new tensor: none writes into its input.
"""
from __future__ import annotations

from torch import Tensor

_GAMMA = 2.2
_FLOOR = 1e-8
#: Slope of the soft clamps, and where the straight piece of the soft gamma ends.
_SOFT_SLOPE = 0.02
_SOFT_KNEE = 5e-4


def compress(linear: Tensor) -> Tensor:
    """Gamma 1 / 2.2 of linear values in [0, 1].

    Examples:
        >>> compress(torch.tensor([1.0]))
        tensor([1.])
    """
    return linear.clamp(min=_FLOOR).pow(1 / _GAMMA)


def compress_softly(linear: Tensor) -> Tensor:
    """:func:`compress` for losses: below 5e-4 it continues as its tangent, so that no gradient is infinite.

    Examples:
        >>> bool(compress_softly(torch.tensor([-1.0])) < 0)
        True
    """
    curved = linear.clamp(min=_SOFT_KNEE).pow(1 / _GAMMA)
    # A clamp of its own: one for both would round the gradient differently, and resumed trainings would not be bit-equal.
    return curved + (linear - linear.clamp(min=_SOFT_KNEE)) * (_SOFT_KNEE ** (1 / _GAMMA - 1) / _GAMMA)


def clamp_softly(x: Tensor) -> Tensor:
    """Values in [0, 1] as they are; outside, they continue with a slope of 2 %.

    Examples:
        >>> clamp_softly(torch.tensor([0.5, 2.0]))
        tensor([0.5000, 1.0200])
    """
    inside = x.clamp(0, 1)
    return inside + _SOFT_SLOPE * (x - inside)


def tone_map(image: Tensor) -> Tensor:
    """Smoothstep tone curve 3 x^2 - 2 x^3 of values clamped to [0, 1].

    Examples:
        >>> tone_map(torch.tensor([0.0, 0.5, 1.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    image = image.clamp(0, 1)
    return image * image * (3 - 2 * image)


def tone_map_softly(image: Tensor) -> Tensor:
    """:func:`tone_map` for losses, with a slope of 2 % outside [0, 1].

    Examples:
        >>> tone_map_softly(torch.tensor([0.0, 0.5, 1.0, 2.0]))
        tensor([0.0000, 0.5000, 1.0000, 1.0200])
    """
    inside = image.clamp(0, 1)
    return inside * inside * (3 - 2 * inside) + _SOFT_SLOPE * (image - inside)


def inverse_tone_map(image: Tensor) -> Tensor:
    """Inverse of :func:`tone_map` on [0, 1].

    Examples:
        >>> x = torch.rand(5)
        >>> torch.allclose(inverse_tone_map(tone_map(x)), x, atol=1e-3)
        True
    """
    return 0.5 - (1 - 2 * image.clamp(0, 1)).asin().div(3).sin()


def linearize(srgb: Tensor) -> Tensor:
    """sRGB with tone curve in [0, 1] -> linear sRGB in [0, 1]: inverse tone curve, then gamma 2.2.

    Examples:
        >>> linearize(torch.tensor([1.0]))
        tensor([1.])
    """
    return inverse_tone_map(srgb).clamp(min=_FLOOR).pow(_GAMMA)
