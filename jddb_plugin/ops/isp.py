"""The camera pipeline as functions of single values, for callers that have no :class:`jddb_plugin.ops.camera.Camera`."""
from __future__ import annotations

from typing import Union

from torch import Tensor

from jddb_plugin.ops.camera import Camera, camera_matrix

__all__ = ['camera_matrix', 'to_linear_srgb', 'to_srgb']


def to_linear_srgb(linear: Tensor, *, red_gain: Union[float, Tensor], blue_gain: Union[float, Tensor], cam2rgb: Tensor,
                   rgb_gain: Union[float, Tensor] = 1.0) -> Tensor:
    """Linear camera RGB to linear sRGB in [0, 1]: :meth:`Camera.develop_linear`.

    Args:
        linear: [..., 3, H, W], nominally in [0, 1].
        red_gain, blue_gain: white balance gains relative to green, numbers or [...].
        cam2rgb: [..., 3, 3], e.g. of :func:`camera_matrix`.
        rgb_gain: brightness gain, a number or [...].

    Examples:
        >>> import torch
        >>> to_linear_srgb(torch.full((3, 1, 1), 0.25), red_gain=1.0, blue_gain=1.0, cam2rgb=torch.eye(3)).flatten().tolist()
        [0.25, 0.25, 0.25]
    """
    return Camera.of(red_gain=red_gain, blue_gain=blue_gain, cam2rgb=cam2rgb, rgb_gain=rgb_gain).develop_linear(linear)


def to_srgb(linear: Tensor, *, red_gain: Union[float, Tensor], blue_gain: Union[float, Tensor], cam2rgb: Tensor,
            rgb_gain: Union[float, Tensor] = 1.0, tone_curve: bool = False) -> Tensor:
    """Linear camera RGB to gamma-compressed sRGB in [0, 1], the operator Gamma of eq. (8): :meth:`Camera.develop`.

    Arguments as of :func:`to_linear_srgb`; ``tone_curve`` for pictures that are looked at.

    Examples:
        >>> import torch
        >>> to_srgb(torch.ones(3, 1, 1), red_gain=2.0, blue_gain=1.5, cam2rgb=torch.eye(3)).flatten().tolist()
        [1.0, 1.0, 1.0]
    """
    camera = Camera.of(red_gain=red_gain, blue_gain=blue_gain, cam2rgb=cam2rgb, rgb_gain=rgb_gain)
    return camera.develop(linear, tone_curve=tone_curve)
