"""From sRGB bursts to noisy packed raw, a batch at a time, on any device (section 4.1)."""
from __future__ import annotations

from typing import Mapping, NamedTuple

import torch
from torch import Tensor

from jddb_plugin.checks import ShapeError, check_ndim
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.isp import Camera, unprocess
from jddb_plugin.ops.noise import add_noise, noise_std


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


def synthesise(srgb: Tensor, camera: Camera, shot: Tensor, read: Tensor, seeds: Tensor, *, ref_idx: int) -> RawBurst:
    """Unprocess bursts, sample them by rggb and add noise.

    A sample's noise is drawn by a generator of its own, so that it does not depend on the rest of the batch; generators of
    different kinds of devices draw different numbers.

    Args:
        srgb: [B, N, 3, 2H, 2W], uint8, or floating point in [0, 1].
        camera: gains [B] and cam2rgb [B, 3, 3].
        shot, read: noise parameters [B].
        seeds: [B], int64, non-negative.
        ref_idx: index of the reference frame.

    Raises:
        ShapeError: ``srgb`` is not five-dimensional, has an odd size, or the rest is of another batch size.

    Examples:
        >>> from jddb_plugin.ops.isp import Camera
        >>> one = torch.ones(2)
        >>> camera = Camera(one, 2 * one, 2 * one, torch.eye(3).expand(2, 3, 3))
        >>> srgb, seeds = torch.rand(2, 3, 3, 8, 12), torch.tensor([0, 1])
        >>> raw = synthesise(srgb, camera, 0.01 * one, 0.01 * one, seeds, ref_idx=1)
        >>> raw.lq.shape, raw.gt.shape
        (torch.Size([2, 3, 8, 4, 6]), torch.Size([2, 3, 8, 12]))
    """
    check_ndim(srgb, 'B N C H W', 'srgb')
    for name, value in {'shot': shot, 'read': read, 'seeds': seeds, 'camera.rgb_gain': camera.rgb_gain}.items():
        if value.shape != srgb.shape[:1]:
            raise ShapeError(f'{name}: expected [{srgb.shape[0]}], one per sample of srgb, got {list(value.shape)}.')
    if srgb.dtype == torch.uint8:
        srgb = srgb.float() / 255
    per_frame = Camera(*(gain[:, None] for gain in (camera.rgb_gain, camera.red_gain, camera.blue_gain)),
                       cam2rgb=camera.cam2rgb[:, None])
    linear = unprocess(srgb, per_frame)
    clean = mosaic_rgb(linear)
    noisy = torch.stack([
        add_noise(burst, shot[k], read[k], generator=torch.Generator(srgb.device).manual_seed(int(seed)))
        for k, (burst, seed) in enumerate(zip(clean, seeds.tolist()))])
    level = (slice(None), *(None,) * 4)
    return RawBurst(torch.cat((noisy, noise_std(noisy, shot[level], read[level])), dim=2), linear[:, ref_idx], clean)


def synthesise_batch(batch: Mapping[str, Tensor], ref_idx: int) -> RawBurst:
    """:func:`synthesise` from a data set's batch: srgb, rgb_gain, red_gain, blue_gain, cam2rgb, shot, read, seed.

    Examples:
        >>> one = torch.ones(1)
        >>> batch = {'srgb': torch.rand(1, 3, 3, 8, 12), 'rgb_gain': one, 'red_gain': 2 * one, 'blue_gain': 2 * one,
        ...          'cam2rgb': torch.eye(3)[None], 'shot': 0.01 * one, 'read': 0.01 * one, 'seed': torch.tensor([7])}
        >>> synthesise_batch(batch, ref_idx=1).clean.shape
        torch.Size([1, 3, 4, 4, 6])
    """
    camera = Camera(batch['rgb_gain'], batch['red_gain'], batch['blue_gain'], batch['cam2rgb'])
    return synthesise(batch['srgb'], camera, batch['shot'], batch['read'], batch['seed'], ref_idx=ref_idx)
