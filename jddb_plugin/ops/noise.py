"""Signal-dependent sensor noise (eq. 10 of the paper): y = x + N(0, shot * x + read^2)."""
from __future__ import annotations

import math
from typing import Optional, Union

import torch
from torch import Tensor

from jddb_plugin.checks import OptionError

Level = Union[float, Tensor]

#: Logarithmic ranges of the training noise (base-10 exponents).
TRAIN_SHOT_LOG10 = (-4.0, -2.0)
TRAIN_READ_LOG10 = (-3.0, -1.5)
#: Named test levels (shot, read) of the paper's tables 1 and 2.
TEST_LEVELS = {'low': (2.5e-3, 1e-2), 'high': (6.4e-3, 2e-2)}


def parse_noise(text: str, where: str) -> tuple[float, float]:
    """(shot, read) of 'low', 'high' (:data:`TEST_LEVELS`) or 'SHOT,READ'.

    Raises:
        OptionError: something else, naming ``where``; or a level that is not in 0 .. 1.

    Examples:
        >>> parse_noise('high', 'noise'), parse_noise('0.0025,0.01', 'noise')
        ((0.0064, 0.02), (0.0025, 0.01))
    """
    if text in TEST_LEVELS:
        return TEST_LEVELS[text]
    try:
        shot, read = (float(part) for part in text.split(','))
    except ValueError as error:
        raise OptionError(f"expected {', '.join(TEST_LEVELS)} or SHOT,READ, e.g. 0.0025,0.01; got '{text}'.",
                          field=where) from error
    if not (0 <= shot <= 1 and 0 <= read <= 1):
        raise OptionError(f"shot and read must lie in 0 .. 1, got '{text}'.", field=where)
    return shot, read


def noise_std(signal: Tensor, shot: Level, read: Level) -> Tensor:
    """Standard deviation sqrt(shot * signal + read^2) of the noise, shaped like ``signal``.

    Used on the clean signal to draw noise, and on the noisy one (values in [0, 1]) as the noise map that the
    network gets.

    Args:
        signal: raw values, nominally in [0, 1]; any shape.
        shot, read: noise parameters, numbers or tensors that broadcast against ``signal``.

    Examples:
        >>> noise_std(torch.tensor([0.0, 1.0]), 0.0, 0.5).tolist()
        [0.5, 0.5]
    """
    return torch.sqrt(shot * signal + read * read)


def add_noise(clean: Tensor, shot: Level, read: Level, *, generator: Optional[torch.Generator] = None) -> Tensor:
    """Draw noisy raw values, clamped to [0, 1].

    Args:
        clean: noise-free raw in [0, 1]; any shape.
        shot, read: noise parameters, numbers or tensors that broadcast against ``clean``.
        generator: source of randomness; the global one if not given.

    Examples:
        >>> clean = torch.full((4, 64, 64), 0.5)
        >>> noisy = add_noise(clean, 0.0, 0.1, generator=torch.Generator().manual_seed(0))
        >>> round(noisy.std().item(), 1)
        0.1
    """
    normal = torch.randn(clean.shape, generator=generator, dtype=clean.dtype, device=clean.device)
    return (clean + normal * noise_std(clean, shot, read)).clamp(0, 1)


def add_test_noise(clean: Tensor, shot: float, read: float, *, frame_number: int) -> Tensor:
    """Reproducible noise of the released test protocol.

    The k-th frame of a clip, counted from 1 in sorted order, is drawn by a CPU generator seeded with k, in one
    ``torch.normal`` call on the standard deviation laid out as (H, W, 4). The draw belongs to the processed
    image: a crop has its own noise, not the full frame's.

    Args:
        clean: one frame of packed raw [4, H, W] in [0, 1], float32 on the CPU.
        shot, read: noise parameters.
        frame_number: k, at least 1.

    Examples:
        >>> clean = torch.full((4, 8, 8), 0.5)
        >>> first, second = (add_test_noise(clean, 0.0064, 0.02, frame_number=1) for _ in range(2))
        >>> torch.equal(first, second)
        True
    """
    generator = torch.Generator().manual_seed(frame_number)
    std = noise_std(clean, shot, read).permute(1, 2, 0).contiguous()
    noise = torch.normal(mean=0.0, std=std, generator=generator)
    return (clean + noise.permute(2, 0, 1)).clamp(0, 1)


def sample_noise_level(generator: torch.Generator) -> tuple[float, float]:
    """Draw training noise parameters (shot, read), log-uniform in the paper's ranges (section 4.1).

    Examples:
        >>> shot, read = sample_noise_level(torch.Generator().manual_seed(0))
        >>> 1e-4 <= shot <= 1e-2
        True
    """
    u_shot, u_read = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    shot = TRAIN_SHOT_LOG10[0] + u_shot * (TRAIN_SHOT_LOG10[1] - TRAIN_SHOT_LOG10[0])
    read = TRAIN_READ_LOG10[0] + u_read * (TRAIN_READ_LOG10[1] - TRAIN_READ_LOG10[0])
    return math.pow(10.0, shot), math.pow(10.0, read)
