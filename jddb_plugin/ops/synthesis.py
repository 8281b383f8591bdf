"""From sRGB bursts to noisy packed raw, a batch at a time, on any device (section 4.1)."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from jddb_plugin.checks import ShapeError, check_ndim
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.camera import Camera
from jddb_plugin.ops.noise import NoiseModel


class RawBurst(NamedTuple):
    """What training needs of a batch of bursts.

    Attributes:
        lq: [B, N, 8, H, W], packed noisy raw in [0, 1] and its noise map.
        gt: [B, 3, 2H, 2W], clean linear camera RGB of the reference frame.
        clean: [B, N, 4, H, W], clean packed raw.
    """

    lq: Tensor
    gt: Tensor
    clean: Tensor


def synthesize(srgb: Tensor, camera: Camera, noise: NoiseModel, seeds: Tensor, *, ref_idx: int) -> RawBurst:
    """Unprocess bursts, sample them by rggb and add noise.

    A sample's noise is drawn by a generator of its own, so that it does not depend on the rest of the batch. Generators of
    different kinds of devices draw different numbers.

    Args:
        srgb: [B, N, 3, 2H, 2W], uint8, or floating point in [0, 1].
        camera: gains [B] and cam2rgb [B, 3, 3].
        noise: levels [B].
        seeds: [B], int64, non-negative.
        ref_idx: index of the reference frame.

    Raises:
        ShapeError: ``srgb`` is not five-dimensional, has an odd size, or the rest is of another batch size.

    Examples:
        >>> one = torch.ones(2)
        >>> camera = Camera(one, 2 * one, 2 * one, torch.eye(3).expand(2, 3, 3))
        >>> srgb, seeds = torch.rand(2, 3, 3, 8, 12), torch.tensor([0, 1])
        >>> raw = synthesize(srgb, camera, NoiseModel(0.01 * one, 0.01 * one), seeds, ref_idx=1)
        >>> raw.lq.shape, raw.gt.shape
        (torch.Size([2, 3, 8, 4, 6]), torch.Size([2, 3, 8, 12]))
    """
    check_ndim(srgb, 'B N C H W', 'srgb')
    for name, value in {'noise.shot': noise.shot, 'noise.read': noise.read, 'seeds': seeds,
                        'camera.rgb_gain': camera.rgb_gain}.items():
        if value.shape != srgb.shape[:1]:
            raise ShapeError(f'{name}: expected [{srgb.shape[0]}], one per sample of srgb, got {list(value.shape)}.')
    if srgb.dtype == torch.uint8:
        srgb = srgb.float() / 255
    linear = camera.at((slice(None), None)).unprocess(srgb)  # one camera for all frames of a burst
    clean = mosaic_rgb(linear)
    noisy = torch.stack([noise.at(k).sample(burst, generator=torch.Generator(srgb.device).manual_seed(int(seed)))
                         for k, (burst, seed) in enumerate(zip(clean, seeds.tolist()))])
    per_burst = noise.at((slice(None), *(None,) * 4))
    return RawBurst(per_burst.with_map(noisy), linear[:, ref_idx], clean)
