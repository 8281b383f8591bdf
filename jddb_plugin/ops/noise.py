"""Signal-dependent sensor noise (eq. 10 of the paper): y = x + N(0, shot * x + read^2)."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

import torch
from torch import Tensor

from jddb_plugin.noise_option import parse_level
from jddb_plugin.ops.noise_estimate import estimate_noise

#: Logarithmic ranges of the training noise (base-10 exponents).
TRAIN_SHOT_LOG10 = (-4.0, -2.0)
TRAIN_READ_LOG10 = (-3.0, -1.5)


class NoiseModel(NamedTuple):
    """Shot and read noise of a burst, or of a batch of bursts: variance = shot * x + read^2, where black is 0 and white is 1.

    A tuple of tensors, so that data loaders collate it. Levels that belong to the planes R, Gr, Gb, B have these as their last
    dimension; :meth:`planes` makes them broadcast.

    Attributes:
        shot, read: of equal shape, in 0 .. 1.

    Examples:
        >>> noise = NoiseModel.parse('high')
        >>> noise.std(torch.tensor([0.0, 1.0]))
        tensor([0.0200, 0.0825])
    """

    shot: Tensor
    read: Tensor

    @classmethod
    def of(cls, shot: Union[float, Tensor], read: Union[float, Tensor]) -> NoiseModel:
        """Noise whose levels may be numbers; they become tensors of float64, so that nothing is rounded early."""
        return cls(*(level if isinstance(level, Tensor) else torch.tensor(level, dtype=torch.float64) for level in (shot, read)))

    @classmethod
    def parse(cls, level: Union[str, Sequence[float]]) -> NoiseModel:
        """Noise of 'low', 'high', 'SHOT,READ' or a pair of numbers.

        Raises:
            OptionError: ``level`` is none of these, or out of 0 .. 1.
        """
        return cls.of(*parse_level(level))

    @classmethod
    def random(cls, generator: torch.Generator) -> NoiseModel:
        """Draw the noise of a training burst, log-uniform in the paper's ranges (section 4.1)."""
        u_shot, u_read = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        shot = TRAIN_SHOT_LOG10[0] + u_shot * (TRAIN_SHOT_LOG10[1] - TRAIN_SHOT_LOG10[0])
        read = TRAIN_READ_LOG10[0] + u_read * (TRAIN_READ_LOG10[1] - TRAIN_READ_LOG10[0])
        return cls.of(math.pow(10.0, shot), math.pow(10.0, read))

    @classmethod
    def estimate(cls, burst: Tensor) -> NoiseModel:
        """Fit the noise of each plane to packed raw [N, 4, H, W]; [4] each, see :mod:`jddb_plugin.ops.noise_estimate`.

        Raises:
            ShapeError: not [N, 4, H, W], no frame, or frames smaller than 8 x 8.
        """
        return cls(*estimate_noise(burst))

    def beyond_training(self) -> bool:
        """Whether a level is more than three times the strongest that networks are trained with.

        Examples:
            >>> NoiseModel.of(0.01, 0.09).beyond_training(), NoiseModel.of(0.01, 0.2).beyond_training()
            (False, True)
        """
        strongest = [3 * math.pow(10.0, limits[1]) for limits in (TRAIN_SHOT_LOG10, TRAIN_READ_LOG10)]
        return any(float(level.max()) > limit for level, limit in zip(self, strongest))

    def to(self, *args: Any, **kwargs: Any) -> NoiseModel:
        """Both levels on another device or of another type, as :meth:`torch.Tensor.to`."""
        return NoiseModel(*(level.to(*args, **kwargs) for level in self))

    def at(self, index: Any) -> NoiseModel:
        """Both levels at an index, as tensors are indexed."""
        return NoiseModel(*(level[index] for level in self))

    def planes(self) -> NoiseModel:
        """Levels [..., 4] of the planes as [..., 4, 1, 1], to broadcast against packed raw [..., 4, H, W]."""
        return self.at((..., None, None))

    def std(self, signal: Tensor) -> Tensor:
        """Standard deviation sqrt(shot * signal + read^2) of the noise, shaped like ``signal``.

        Used on the clean signal to draw noise, and on the noisy one (values in [0, 1]) as the noise map that the network gets.
        The levels broadcast against ``signal``, raw values of any shape.
        """
        return torch.sqrt(self.shot * signal + self.read * self.read)

    def with_map(self, raw: Tensor) -> Tensor:
        """Packed raw [..., 4, H, W] followed by its noise map: [..., 8, H, W], the input of the networks."""
        return torch.cat((raw, self.std(raw)), dim=-3)

    def sample(self, clean: Tensor, *, generator: Optional[torch.Generator] = None) -> Tensor:
        """Draw noisy raw values, clamped to [0, 1].

        Args:
            clean: noise-free raw in [0, 1]; any shape that the levels broadcast against.
            generator: source of randomness; the global one if not given.
        """
        normal = torch.randn(clean.shape, generator=generator, dtype=clean.dtype, device=clean.device)
        return (clean + normal * self.std(clean)).clamp(0, 1)

    def sample_test_frame(self, clean: Tensor, *, frame_number: int) -> Tensor:
        """Reproducible noise of the released test protocol.

        The k-th frame of a clip, counted from 1 in sorted order, is drawn by a CPU generator seeded with k, in one
        ``torch.normal`` call on the standard deviation laid out as (H, W, 4). The draw belongs to the processed image: a crop
        has its own noise, not the full frame's.

        Args:
            clean: one frame of packed raw [4, H, W] in [0, 1], float32 on the CPU.
            frame_number: k, at least 1.
        """
        generator = torch.Generator().manual_seed(frame_number)
        std = self.std(clean).permute(1, 2, 0).contiguous()
        noise = torch.normal(mean=0.0, std=std, generator=generator)
        return (clean + noise.permute(2, 0, 1)).clamp(0, 1)
