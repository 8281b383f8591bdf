"""The values of a camera, and with them the way from linear camera RGB to sRGB and back.

Forward (:meth:`Camera.develop`): white balance -> clamp -> color matrix -> clamp -> gamma 1/2.2 [-> tone curve]. Gains below 1
are raised together until the smallest is 1: otherwise samples that are clipped at white, in all channels, would not become white.
Backward (:meth:`Camera.unprocess`, "unprocessing", Brooks et al., CVPR 2019, the paper's [3]): inverse tone curve -> gamma 2.2 ->
inverse color matrix -> inverse gains with highlight protection -> clamp.
"""
from __future__ import annotations

from typing import Any, NamedTuple, Union

import torch
from torch import Tensor

from jddb_plugin.ops.curves import clamp_softly, compress, compress_softly, linearize, tone_map, tone_map_softly

_RGB_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_XYZ_TO_CAM = (
    ((1.0234, -0.2969, -0.2266), (-0.5625, 1.6328, -0.0469), (-0.0703, 0.2188, 0.6406)),
    ((0.4913, -0.0541, -0.0202), (-0.6130, 1.3513, 0.2906), (-0.1564, 0.2151, 0.7183)),
    ((0.8380, -0.2630, -0.0639), (-0.2887, 1.0725, 0.2496), (-0.0627, 0.1427, 0.5438)),
    ((0.6596, -0.2079, -0.0562), (-0.4782, 1.3016, 0.1933), (-0.0970, 0.1581, 0.5181)),
)
#: XYZ to camera RGB of :func:`reference_camera`.
REFERENCE_XYZ_TO_CAM = _XYZ_TO_CAM[0]
_HIGHLIGHT = 0.9
#: Pixels that the brightness of a frame is measured on, and the share of their samples that may become white.
_EXPOSURE_PIXELS, _EXPOSURE_SHARE = 100_000, 0.99


class Camera(NamedTuple):
    """White balance, brightness and color matrix of one burst, or of a batch of bursts.

    A tuple of tensors, so that data loaders collate it. All fields have the same leading dimensions.

    Attributes:
        rgb_gain: [...], brightness gain of all channels.
        red_gain, blue_gain: [...], white balance gains relative to green.
        cam2rgb: [..., 3, 3], linear camera RGB to linear sRGB; rows sum to 1.

    Examples:
        >>> camera = Camera.of(red_gain=4.0, blue_gain=2.0, cam2rgb=torch.eye(3))
        >>> camera.develop(torch.full((3, 1, 1), 0.25)).flatten().argsort(descending=True).tolist()
        [0, 2, 1]
    """

    rgb_gain: Tensor
    red_gain: Tensor
    blue_gain: Tensor
    cam2rgb: Tensor

    @classmethod
    def of(cls, *, red_gain: Union[float, Tensor], blue_gain: Union[float, Tensor], cam2rgb: Tensor,
           rgb_gain: Union[float, Tensor] = 1.0) -> Camera:
        """Camera whose gains may be numbers; they become tensors of float64, so that nothing is rounded early."""
        rgb, red, blue = (gain if isinstance(gain, Tensor) else torch.tensor(gain, dtype=torch.float64)
                          for gain in (rgb_gain, red_gain, blue_gain))
        return cls(rgb, red, blue, cam2rgb)

    @property
    def rgb2cam(self) -> Tensor:
        """[..., 3, 3], linear sRGB to linear camera RGB."""
        return torch.linalg.inv(self.cam2rgb.double()).to(self.cam2rgb.dtype)

    def to(self, *args: Any, **kwargs: Any) -> Camera:
        """All fields on another device or of another type, as :meth:`torch.Tensor.to`."""
        return Camera(*(field.to(*args, **kwargs) for field in self))

    def at(self, index: Any) -> Camera:
        """All fields at an index of their leading dimensions, as tensors are indexed."""
        return Camera(*(field[index] for field in self))

    def with_gain(self, rgb_gain: Union[float, Tensor]) -> Camera:
        """The same camera with another brightness, a number or a tensor that broadcasts against the other gains."""
        gain = rgb_gain if isinstance(rgb_gain, Tensor) else torch.full_like(self.red_gain, rgb_gain, dtype=torch.float64)
        return self._replace(rgb_gain=gain)

    def develop(self, linear: Tensor, *, tone_curve: bool = False) -> Tensor:
        """Develop linear camera RGB into gamma-compressed sRGB: the operator Gamma of eq. (8).

        Args:
            linear: linear camera RGB [..., 3, H, W], nominally in [0, 1].
            tone_curve: apply the tone curve, too: for pictures that are looked at, not for losses and metrics.

        Returns:
            sRGB like ``linear``, in [0, 1].
        """
        srgb = compress(self.develop_linear(linear))
        return tone_map(srgb) if tone_curve else srgb

    def develop_linear(self, linear: Tensor) -> Tensor:
        """:meth:`develop` without gamma: white balanced, in the primaries of sRGB, linear, clamped to [0, 1]."""
        gains = self._white_balance(linear)
        gains = gains * highlight_gain(self.red_gain.to(linear), self.blue_gain.to(linear))[..., None, None, None]
        brightness = self.rgb_gain.to(linear)[..., None, None, None]
        white = brightness.clamp(max=1)  # what is clipped stays neutral when it is darkened, too
        balanced = torch.minimum((linear * (gains * brightness)).clamp(min=0), white)
        return _apply_matrix(balanced, self.cam2rgb).clamp(0, 1)

    def develop_softly(self, linear: Tensor, *, tone_curve: bool = False) -> Tensor:
        """:meth:`develop` for losses: every value has a gradient, and no gradient is infinite.

        Clamps keep a slope of 2 %; below 5e-4 the gamma continues as its tangent. Gains below 1 are not raised.
        """
        gains = self._white_balance(linear) * self.rgb_gain.to(linear)[..., None, None, None]
        rgb = clamp_softly(_apply_matrix(clamp_softly(linear * gains), self.cam2rgb))
        srgb = compress_softly(rgb)
        return tone_map_softly(srgb) if tone_curve else srgb

    def unprocess(self, srgb: Tensor) -> Tensor:
        """Turn sRGB frames back into what the camera's sensor would have measured.

        Args:
            srgb: [..., 3, H, W] in [0, 1], with tone curve; its leading dimensions broadcast against those of the fields.

        Returns:
            linear camera RGB like ``srgb``, in [0, 1].
        """
        return self.to_sensor(linearize(srgb))

    def to_sensor(self, linear_srgb: Tensor) -> Tensor:
        """Linear sRGB [..., 3, H, W] -> linear camera RGB in [0, 1]: the last steps of :meth:`unprocess`."""
        image = _apply_matrix(linear_srgb, self.rgb2cam)
        brightness = self.rgb_gain.to(image)[..., None, None, None]
        gains = _per_channel((1 / self.red_gain).to(image), (1 / self.blue_gain).to(image)) / brightness
        # Bright pixels keep their value, so that inverting the gains does not turn white into color.
        gray = image.mean(dim=-3, keepdim=True)
        mask = ((gray - _HIGHLIGHT).clamp(min=0) / (1 - _HIGHLIGHT)).square()
        factor = torch.maximum(mask + (1 - mask) * gains, gains)
        return (image * factor).clamp(0, 1)

    def auto_exposure(self, raw: Tensor) -> float:
        """Brightness gain, 1 to 1000, that makes 1 % of the white balanced samples of a frame white.

        Args:
            raw: packed raw [4, H, W] in [0, 1], or a part of its pixels, see :func:`exposure_stride`.
        """
        red, blue = self.red_gain.to(raw), self.blue_gain.to(raw)
        white = torch.stack((raw[0] * red, raw[1:3].mean(dim=0), raw[3] * blue)) * highlight_gain(red, blue)
        return float(1 / torch.quantile(white.flatten(), _EXPOSURE_SHARE).clamp(min=1e-3, max=1))

    def _white_balance(self, like: Tensor) -> Tensor:
        """Gains that multiply [..., 3, H, W]."""
        return _per_channel(self.red_gain.to(like), self.blue_gain.to(like))


def exposure_stride(height: int, width: int) -> int:
    """Distance of the rows and columns that :meth:`Camera.auto_exposure` needs of a frame: about 100,000 pixels are enough.

    Examples:
        >>> exposure_stride(2000, 3000)
        8
    """
    return max(1, round(max(1, height * width // _EXPOSURE_PIXELS) ** 0.5))


def _per_channel(red: Tensor, blue: Tensor) -> Tensor:
    """Gains (red, 1, blue) shaped [..., 3, 1, 1]."""
    return torch.stack((red, torch.ones_like(red), blue), dim=-1)[..., None, None]


def highlight_gain(red: Tensor, blue: Tensor) -> Tensor:
    """Factor, at least 1, that raises the smallest of the gains ``red``, 1 (green) and ``blue`` to 1.

    Examples:
        >>> highlight_gain(torch.tensor(0.5), torch.tensor(2.0))
        tensor(2.)
    """
    return 1 / torch.minimum(red, blue).clamp(max=1)


def _apply_matrix(image: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the channels of [..., 3, H, W] by [..., 3, 3]."""
    return torch.einsum('...ij,...jhw->...ihw', matrix.to(image), image)


def camera_matrix(xyz_to_cam: Tensor) -> Tensor:
    """cam2rgb [3, 3], float32, from an XYZ-to-camera matrix [3, 3], float64, as in a DNG.

    Rows of rgb2cam are normalized, so that white stays white: white balance is applied before.

    Examples:
        >>> matrix = camera_matrix(torch.tensor(REFERENCE_XYZ_TO_CAM, dtype=torch.float64))
        >>> matrix.sum(dim=1).round(decimals=4).tolist()
        [1.0, 1.0, 1.0]
    """
    rgb2cam = xyz_to_cam @ torch.tensor(_RGB_TO_XYZ, dtype=torch.float64)
    rgb2cam = rgb2cam / rgb2cam.sum(dim=-1, keepdim=True)
    return torch.linalg.inv(rgb2cam).float()


def reference_camera() -> Camera:
    """Camera of the released test protocol: the first matrix, gains 1.0, 2.0 and 1.7.

    Examples:
        >>> reference_camera().red_gain.item()
        2.0
    """
    matrix = torch.tensor(REFERENCE_XYZ_TO_CAM, dtype=torch.float64)
    return Camera.of(rgb_gain=1.0, red_gain=2.0, blue_gain=1.7, cam2rgb=camera_matrix(matrix))


def sample_camera(generator: torch.Generator) -> Camera:
    """Draw a training camera: a random convex mixture of four matrices, gains as in PROTOCOL.

    rgb gain 1 / N(0.8, 0.1), red gain U(1.9, 2.4), blue gain U(1.5, 1.9).

    Examples:
        >>> camera = sample_camera(torch.Generator().manual_seed(0))
        >>> 1.9 <= camera.red_gain.item() <= 2.4
        True
    """
    weights = torch.rand(4, 1, 1, generator=generator, dtype=torch.float64)
    matrices = torch.tensor(_XYZ_TO_CAM, dtype=torch.float64)
    mixed = (weights * matrices).sum(dim=0) / weights.sum()
    normal = torch.randn(1, generator=generator, dtype=torch.float64).item()
    red, blue = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    return Camera.of(rgb_gain=1.0 / (0.8 + 0.1 * normal), red_gain=1.9 + red * 0.5, blue_gain=1.5 + blue * 0.4,
                     cam2rgb=camera_matrix(mixed))
