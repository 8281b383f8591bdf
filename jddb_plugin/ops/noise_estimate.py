"""Noise of a burst of raw frames, estimated from the frames themselves; for cameras that do not state theirs.

The model is that of :class:`jddb_plugin.ops.noise.NoiseModel`: variance = shot * x + read ** 2, for each of the four planes.

How it works:
    1. Every plane is cut into 8 x 8 blocks, and each block is taken apart by the orthonormal cosine transform. Noise
       that is independent from pixel to pixel has the same variance in every coefficient, pictures have most of
       theirs in the low frequencies.
    2. The blocks are sorted by their mean and divided into intensity bins of equal count. In each bin the
       blocks with the least energy in the LOW frequencies are kept: the flattest ones. Their HIGH frequencies, which
       played no part in the choice and so are not biased by it, give the variance: the median over the blocks of
       their mean square, divided by the median of the chi-square distribution that it follows.
    3. Clipping at black: where a share of a block's samples is at 0, mean and variance are those of a Gaussian cut off
       at 0, and are corrected by the ratios that belong to this share. Blocks with more than half of their samples at 0,
       or more than a few at white, are not used. White is 1, or below it the plane's largest value, if that fills whole blocks: a
       sensor may saturate below the white level that its file states.
    4. A line with non-negative coefficients is fitted to the bins, weighted by relative error; bins far above the line
       (texture everywhere) count little.

Motion does not matter, since frames are analyzed one by one; several frames only give more blocks.

Limits:
    - Noise must be independent from pixel to pixel: frames that were denoised, resampled or compressed with loss look
      cleaner than they are, correlated noise (row noise, binning) is seen in part.
    - Fine texture in the whole frame counts as noise. The cleaner the frames, the larger the error.
    - The line is certain only at intensities that the frames have. A single gray level has one variance, which is attributed
      to shot noise.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor

from jddb_plugin.checks import ShapeError, check_ndim

_BLOCK = 8
_HIGH = 9  # sum of the two frequencies, 0 to 14, from which on a coefficient is of high frequency
_DEGREES = sum(2 * _BLOCK - 1 - total for total in range(_HIGH, 2 * _BLOCK - 1))  # how many there are
_PER_BIN = 64  # blocks, at least
_MOST_BINS = 32
_KEPT = 0.15  # share of each bin's blocks
_MOST_BLACK = 0.5  # share of a block's samples at 0
_MOST_WHITE = 0.02  # share of a block's samples at white
_TOLERANCE = 0.25  # relative deviation above the line from which on bins count less
_ROUNDS = 30


def estimate_noise(burst: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate shot and read noise of each plane.

    Args:
        burst: noisy packed raw [N, 4, H, W], H and W at least 8, black at 0 and white at 1, clamped to [0, 1] or not.
            Blocks with samples that are not finite are not used.

    Returns:
        (shot [4], read [4]), float32 on the device of ``burst``, finite and not negative: variance = shot * x + read^2.
        Both 0 where no block can be used (all black, all white) or where there is no noise (a constant).

    Raises:
        ShapeError: not [N, 4, H, W], no frame, or frames smaller than a block.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> burst = 0.5 + 0.05 * torch.randn(3, 4, 64, 64, generator=generator)
        >>> shot, read = estimate_noise(burst)
        >>> [round((s * 0.5 + r ** 2) ** 0.5, 2) for s, r in zip(shot.tolist(), read.tolist())]
        [0.05, 0.05, 0.05, 0.05]
    """
    check_ndim(burst, 'N 4 H W', 'burst')
    if burst.shape[0] < 1 or burst.shape[1] != 4 or min(burst.shape[-2:]) < _BLOCK:
        raise ShapeError(f'burst: expected [N, 4, H, W] with a frame of at least {_BLOCK} x {_BLOCK}, got {list(burst.shape)}.')
    with torch.no_grad():
        shot, read = zip(*(_estimate_plane(burst[:, plane]) for plane in range(4)))
    return torch.tensor(shot, device=burst.device), torch.tensor(read, device=burst.device)


def _estimate_plane(frames: Tensor) -> tuple[float, float]:
    """(shot, read) of one plane [N, H, W]."""
    # One frame at a time: the transform of a whole burst would take several times the burst's memory.
    mean, energy, variance = (torch.cat(parts) for parts in zip(*(_block_statistics(frame.float()) for frame in frames)))
    return _fit_line(*_bins(mean, energy, variance))


def _block_statistics(plane: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Plane [H, W] of one frame -> mean, low-frequency energy and variance [blocks] of the usable blocks."""
    height, width = (size // _BLOCK * _BLOCK for size in plane.shape)
    blocks = plane[:height, :width].unfold(0, _BLOCK, _BLOCK).unfold(1, _BLOCK, _BLOCK).reshape(-1, _BLOCK, _BLOCK)
    transform = _cosine_transform().to(blocks)
    coefficients = (transform @ blocks @ transform.T).square()
    frequency = torch.arange(_BLOCK, device=plane.device)
    frequency = frequency[:, None] + frequency
    high = frequency >= _HIGH
    low = (frequency > 0) & ~high
    samples = blocks.flatten(1)
    mean, variance, energy = samples.mean(dim=1), coefficients[:, high].mean(dim=1), coefficients[:, low].sum(dim=1)

    black = (samples <= 0).float().mean(dim=1)
    finite = samples.isfinite().all(dim=1)
    white = (samples >= _saturation(samples[finite])).float().mean(dim=1)
    usable = (black <= _MOST_BLACK) & (white <= _MOST_WHITE) & finite
    mean, variance, energy, black = (value[usable] for value in (mean, variance, energy, black))
    if not bool((samples < 0).any()):  # otherwise black is not clipped
        mean, variance = _undo_black_clipping(mean, variance, black)
    return mean, energy, variance


def _saturation(samples: Tensor) -> float:
    """Value of saturated samples, given blocks [B, 64]: their largest one if it fills whole blocks, and 1 at most."""
    if samples.numel() == 0:
        return 1.0
    largest = float(samples.max())
    return min(largest, 1.0) if bool((samples == largest).all(dim=1).any()) else 1.0


def _cosine_transform() -> Tensor:
    """[8, 8] orthonormal: row k is the cosine of frequency k."""
    k = torch.arange(_BLOCK, dtype=torch.float64)
    transform = torch.cos(math.pi / _BLOCK * k[:, None] * (k + 0.5)) * math.sqrt(2 / _BLOCK)
    transform[0] /= math.sqrt(2)
    return transform


def _undo_black_clipping(mean: Tensor, variance: Tensor, black: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance before clipping at 0, given the share of samples at 0.

    If x = s (t + n), with n normal, is at or below 0 in the share p, then t = -quantile(p), and max(x, 0) has the mean
    s (t P + d) and the variance s^2 ((1 + t^2) P + t d - (t P + d)^2), P = 1 - p, d the normal density at t.
    """
    clipped = black > 0
    p = black.clamp(1 / (4 * _BLOCK * _BLOCK), _MOST_BLACK)
    t = -math.sqrt(2) * torch.erfinv(2 * p - 1)
    density = torch.exp(-t * t / 2) / math.sqrt(2 * math.pi)
    clipped_mean = t * (1 - p) + density
    ratio = (1 + t * t) * (1 - p) + t * density - clipped_mean.square()
    variance = torch.where(clipped, variance / ratio, variance)
    # Of the two ways to the mean, the one through the mean is less noisy than the one through s.
    return torch.where(clipped, mean * t / clipped_mean, mean), variance


def _bins(mean: Tensor, energy: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks -> mean and variance [bins] of the flat blocks of each intensity bin."""
    if mean.numel() == 0:
        return mean.double(), variance.double()
    order = mean.argsort()
    chi_square_median = (1 - 2 / (9 * _DEGREES)) ** 3  # relative to its mean (Wilson and Hilferty)
    means, variances = [], []
    for members in order.tensor_split(max(1, min(_MOST_BINS, mean.numel() // _PER_BIN))):
        kept = members[energy[members].argsort()[:max(1, round(_KEPT * members.numel()))]]
        means.append(mean[kept].double().median())
        variances.append(variance[kept].double().median() / chi_square_median)
    return torch.stack(means), torch.stack(variances)


def _fit_line(x: Tensor, variance: Tensor) -> tuple[float, float]:
    """Robust fit of variance = shot * x + read^2 to bins, both not negative; (shot, read)."""
    level = float(variance.median()) if variance.numel() else 0.0
    if level <= 0:
        return 0.0, 0.0
    line = torch.full_like(variance, level)
    trust = torch.ones_like(variance)
    shot, offset = 0.0, level
    for _ in range(_ROUNDS):
        shot, offset = _non_negative_line(x, variance, trust / line.square())
        line = (shot * x + offset).clamp(min=1e-3 * level)
        above = ((variance - line) / line).clamp(min=0)
        trust = (_TOLERANCE / above.clamp(min=_TOLERANCE)).square()
    return shot, math.sqrt(offset)


def _non_negative_line(x: Tensor, y: Tensor, weight: Tensor) -> tuple[float, float]:
    """Weighted least squares of y = slope * x + offset with slope >= 0 and offset >= 0."""
    w, wx, wy, wxx, wxy = (float(value.sum()) for value in (weight, weight * x, weight * y, weight * x * x, weight * x * y))
    through_zero = (max(wxy, 0.0) / wxx if wxx > 0 else 0.0, 0.0)
    flat = (0.0, max(wy, 0.0) / w)
    determinant = w * wxx - wx * wx
    if determinant > 1e-9 * w * wxx:
        slope = (w * wxy - wx * wy) / determinant
        offset = (wy - slope * wx) / w
        if slope >= 0 and offset >= 0:
            return slope, offset
    return min((through_zero, flat), key=lambda line: float((weight * (line[0] * x + line[1] - y).square()).sum()))
