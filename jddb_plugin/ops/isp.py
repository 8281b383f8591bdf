"""A simple camera pipeline and its inverse, "unprocessing" (Brooks et al., CVPR 2019; the paper's [3]).

Forward (:func:`process`): white balance -> clamp -> colour matrix -> clamp -> gamma 1/2.2. Gains below 1 are raised together
until the smallest is 1: else samples that are clipped at white, in all channels, would not become white.
Backward (:func:`unprocess`): inverse tone curve -> gamma 2.2 -> inverse colour matrix -> inverse gains with
highlight protection -> clamp. The tone curve (smoothstep) belongs to the picture that is shown, not to losses
and metrics, so :func:`process` leaves it out and :func:`tone_map` adds it.

Every function returns a new tensor: none writes into its input.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Union

import torch
from torch import Tensor

Gain = Union[float, Tensor]

_RGB_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_XYZ_TO_CAM = (
    ((1.0234, -0.2969, -0.2266), (-0.5625, 1.6328, -0.0469), (-0.0703, 0.2188, 0.6406)),
    ((0.4913, -0.0541, -0.0202), (-0.6130, 1.3513, 0.2906), (-0.1564, 0.2151, 0.7183)),
    ((0.8380, -0.2630, -0.0639), (-0.2887, 1.0725, 0.2496), (-0.0627, 0.1427, 0.5438)),
    ((0.6596, -0.2079, -0.0562), (-0.4782, 1.3016, 0.1933), (-0.0970, 0.1581, 0.5181)),
)
#: XYZ to camera RGB of :func:`reference_camera`.
REFERENCE_XYZ_TO_CAM = _XYZ_TO_CAM[0]
_GAMMA = 2.2
_FLOOR = 1e-8
_HIGHLIGHT = 0.9


@dataclass(frozen=True)
class Camera:
    """Colour metadata of one burst, or of many: all fields then have the same leading dimensions.

    Attributes:
        rgb_gain: brightness gain of all channels.
        red_gain, blue_gain: white balance gains relative to green.
        cam2rgb: [..., 3, 3], linear camera RGB to linear sRGB, rows sum to 1.
    """

    rgb_gain: Gain
    red_gain: Gain
    blue_gain: Gain
    cam2rgb: Tensor

    @property
    def rgb2cam(self) -> Tensor:
        """[..., 3, 3], linear sRGB to linear camera RGB."""
        return torch.linalg.inv(self.cam2rgb.double()).to(self.cam2rgb.dtype)


def camera_matrix(xyz_to_cam: Tensor) -> Tensor:
    """cam2rgb [3, 3], float32, from an XYZ-to-camera matrix [3, 3], float64, as in a DNG.

    Rows of rgb2cam are normalised, so that white stays white: white balance is applied before.

    Examples:
        >>> matrix = camera_matrix(torch.tensor(REFERENCE_XYZ_TO_CAM, dtype=torch.float64))
        >>> matrix.sum(dim=1).round(decimals=4).tolist()
        [1.0, 1.0, 1.0]
    """
    rgb2cam = xyz_to_cam @ torch.tensor(_RGB_TO_XYZ, dtype=torch.float64)
    rgb2cam = rgb2cam / rgb2cam.sum(dim=-1, keepdim=True)
    return torch.linalg.inv(rgb2cam).float()


def reference_camera() -> Camera:
    """Metadata of the released test protocol: the first matrix, gains 1.0, 2.0 and 1.7.

    Examples:
        >>> reference_camera().red_gain
        2.0
    """
    matrix = torch.tensor(REFERENCE_XYZ_TO_CAM, dtype=torch.float64)
    return Camera(rgb_gain=1.0, red_gain=2.0, blue_gain=1.7, cam2rgb=camera_matrix(matrix))


def sample_camera(generator: torch.Generator) -> Camera:
    """Draw training metadata: a random convex mixture of four matrices, gains as in PROTOCOL.

    rgb gain 1 / N(0.8, 0.1), red gain U(1.9, 2.4), blue gain U(1.5, 1.9).

    Examples:
        >>> camera = sample_camera(torch.Generator().manual_seed(0))
        >>> 1.9 <= camera.red_gain <= 2.4
        True
    """
    weights = torch.rand(4, 1, 1, generator=generator, dtype=torch.float64)
    matrices = torch.tensor(_XYZ_TO_CAM, dtype=torch.float64)
    mixed = (weights * matrices).sum(dim=0) / weights.sum()
    normal = torch.randn(1, generator=generator, dtype=torch.float64).item()
    red, blue = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    return Camera(
        rgb_gain=1.0 / (0.8 + 0.1 * normal),
        red_gain=1.9 + red * 0.5,
        blue_gain=1.5 + blue * 0.4,
        cam2rgb=camera_matrix(mixed))


def tone_map(image: Tensor) -> Tensor:
    """Smoothstep tone curve 3 x^2 - 2 x^3 of values clamped to [0, 1]; for pictures that are looked at.

    Examples:
        >>> tone_map(torch.tensor([0.0, 0.5, 1.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    image = image.clamp(0, 1)
    return image * image * (3 - 2 * image)


def inverse_tone_map(image: Tensor) -> Tensor:
    """Inverse of :func:`tone_map` on [0, 1].

    Examples:
        >>> x = torch.rand(5)
        >>> torch.allclose(inverse_tone_map(tone_map(x)), x, atol=1e-3)
        True
    """
    return 0.5 - torch.sin(torch.asin(1 - 2 * image.clamp(0, 1)) / 3)


def _per_channel(red: Gain, blue: Gain, like: Tensor) -> Tensor:
    """Gains (red, 1, blue) shaped [3, 1, 1] or [B, 3, 1, 1], to multiply [..., 3, H, W]."""
    red = torch.as_tensor(red, dtype=like.dtype, device=like.device)
    blue = torch.as_tensor(blue, dtype=like.dtype, device=like.device)
    return torch.stack((red, torch.ones_like(red), blue), dim=-1)[..., None, None]


def highlight_gain(red: Gain, blue: Gain) -> Tensor:
    """Factor, at least 1, that makes the smallest of the gains ``red``, 1 (green) and ``blue`` 1 where it is below.

    Examples:
        >>> from jddb_plugin.ops.isp import highlight_gain
        >>> highlight_gain(2.0, 1.5).shape
        torch.Size([])
    """
    return 1 / torch.minimum(torch.as_tensor(red), torch.as_tensor(blue)).clamp(max=1)


def _apply_matrix(image: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the channels of [..., 3, H, W] by [..., 3, 3]."""
    return torch.einsum('...ij,...jhw->...ihw', matrix.to(image), image)


def to_linear_srgb(linear: Tensor, *, red_gain: Gain, blue_gain: Gain, cam2rgb: Tensor,
                   rgb_gain: Optional[Gain] = None) -> Tensor:
    """:func:`process` without its last step: white balanced, in the primaries of sRGB, linear, clamped to [0, 1].

    Examples:
        >>> to_linear_srgb(torch.full((3, 1, 1), 0.25), red_gain=1.0, blue_gain=1.0, cam2rgb=torch.eye(3)).flatten().tolist()
        [0.25, 0.25, 0.25]
    """
    gains = _per_channel(red_gain, blue_gain, linear)
    gains = gains * highlight_gain(red_gain, blue_gain).to(gains)[..., None, None, None]
    white = linear.new_ones(())
    if rgb_gain is not None:
        brightness = torch.as_tensor(rgb_gain, dtype=linear.dtype, device=linear.device)[..., None, None, None]
        gains, white = gains * brightness, brightness.clamp(max=1)  # what is clipped stays neutral when it is darkened, too
    balanced = torch.minimum((linear * gains).clamp(min=0), white)
    return _apply_matrix(balanced, cam2rgb).clamp(0, 1)


def process(linear: Tensor, *, red_gain: Gain, blue_gain: Gain, cam2rgb: Tensor,
            rgb_gain: Optional[Gain] = None) -> Tensor:
    """Develop linear camera RGB into gamma-compressed sRGB: the operator Gamma of eq. (8).

    Args:
        linear: linear camera RGB [3, H, W] or [B, 3, H, W], nominally in [0, 1].
        red_gain, blue_gain: white balance, numbers or [B].
        cam2rgb: [3, 3] or [B, 3, 3].
        rgb_gain: brightness gain, number or [B]; given at test time only, as in the published protocol.

    Returns:
        sRGB like ``linear``, in [0, 1], without a tone curve.

    Examples:
        >>> srgb = process(torch.full((3, 1, 1), 0.25), red_gain=4.0, blue_gain=2.0, cam2rgb=torch.eye(3))
        >>> srgb.flatten().round(decimals=3).argsort(descending=True).tolist()
        [0, 2, 1]
    """
    rgb = to_linear_srgb(linear, red_gain=red_gain, blue_gain=blue_gain, cam2rgb=cam2rgb, rgb_gain=rgb_gain)
    return rgb.clamp(min=_FLOOR).pow(1 / _GAMMA)


#: Slope of the soft clamps, and where the straight piece of the soft gamma ends.
_SOFT_SLOPE = 0.02
_SOFT_KNEE = 5e-4


def _clamp_softly(x: Tensor) -> Tensor:
    """Values in [0, 1] as they are; outside they go on with a slope of 2 %."""
    inside = x.clamp(0, 1)
    return inside + _SOFT_SLOPE * (x - inside)


def develop_softly(linear: Tensor, *, red_gain: Gain, blue_gain: Gain, cam2rgb: Tensor, rgb_gain: Gain) -> Tensor:
    """:func:`process` for losses: every value has a gradient, and none an infinite one.

    Clamps keep a slope of 2 %; below 5e-4 gamma goes on as its tangent.

    Examples:
        >>> from jddb_plugin.ops.isp import develop_softly
        >>> image = torch.full((3, 2, 2), -1.0, requires_grad=True)
        >>> develop_softly(image, red_gain=2.0, blue_gain=1.5, cam2rgb=torch.eye(3), rgb_gain=1.0).sum().backward()
        >>> bool((image.grad > 0).all())
        True
    """
    gains = _per_channel(red_gain, blue_gain, linear)
    gains = gains * torch.as_tensor(rgb_gain, dtype=linear.dtype, device=linear.device)[..., None, None, None]
    rgb = _clamp_softly(_apply_matrix(_clamp_softly(linear * gains), cam2rgb))
    curved = rgb.clamp(min=_SOFT_KNEE).pow(1 / _GAMMA)
    return curved + (rgb - rgb.clamp(min=_SOFT_KNEE)) * (_SOFT_KNEE ** (1 / _GAMMA - 1) / _GAMMA)


def tone_map_softly(image: Tensor) -> Tensor:
    """:func:`tone_map` for losses, with a slope of 2 % outside [0, 1].

    Examples:
        >>> from jddb_plugin.ops.isp import tone_map_softly
        >>> tone_map_softly(torch.tensor([0.0, 0.5, 1.0, 2.0]))
        tensor([0.0000, 0.5000, 1.0000, 1.0200])
    """
    inside = image.clamp(0, 1)
    return inside * inside * (3 - 2 * inside) + _SOFT_SLOPE * (image - inside)


def linearize(srgb: Tensor) -> Tensor:
    """sRGB with tone curve in [0, 1] -> linear sRGB in [0, 1]: the first two steps of :func:`unprocess`.

    Examples:
        >>> from jddb_plugin.ops.isp import linearize
        >>> linearize(torch.tensor([1.0]))
        tensor([1.])
    """
    return inverse_tone_map(srgb).clamp(min=_FLOOR).pow(_GAMMA)


def to_sensor(linear_srgb: Tensor, camera: Camera) -> Tensor:
    """Linear sRGB [..., 3, H, W] -> linear camera RGB in [0, 1]: the last steps of :func:`unprocess`.

    Examples:
        >>> from jddb_plugin.ops.isp import reference_camera, to_sensor
        >>> to_sensor(torch.full((3, 1, 1), 0.5), reference_camera()).flatten()
        tensor([0.2500, 0.5000, 0.2941])
    """
    image = _apply_matrix(linear_srgb, camera.rgb2cam)
    brightness = torch.as_tensor(camera.rgb_gain, dtype=image.dtype, device=image.device)[..., None, None, None]
    gains = _per_channel(1 / camera.red_gain, 1 / camera.blue_gain, image) / brightness
    # Bright pixels keep their value, so that inverting the gains does not turn white into color.
    gray = image.mean(dim=-3, keepdim=True)
    mask = ((gray - _HIGHLIGHT).clamp(min=0) / (1 - _HIGHLIGHT)).square()
    factor = torch.maximum(mask + (1 - mask) * gains, gains)
    return (image * factor).clamp(0, 1)


def unprocess(srgb: Tensor, camera: Camera) -> Tensor:
    """Turn sRGB frames back into what the camera's sensor would have seen.

    Args:
        srgb: [..., 3, H, W] in [0, 1].
        camera: one camera for all frames, or fields whose leading dimensions broadcast against those of ``srgb``.

    Returns:
        linear camera RGB like ``srgb``, in [0, 1].

    Examples:
        >>> raw = unprocess(torch.rand(5, 3, 8, 8), reference_camera())
        >>> raw.shape, bool(raw.min() >= 0), bool(raw.max() <= 1)
        (torch.Size([5, 3, 8, 8]), True, True)
    """
    return to_sensor(linearize(srgb), camera)
