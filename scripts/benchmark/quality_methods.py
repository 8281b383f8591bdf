"""What the benchmark of quality compares: burst networks, and alternatives made of libraries.

A method takes lq [1, N, 8, h, w] and the noise (shot, read), and returns linear camera RGB [3, 2h, 2w] of the middle frame.
"""
from __future__ import annotations

from typing import Callable, Optional

import cv2
import numpy as np
import torch
from torch import Tensor

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.inference.engine import restore_frame
from jddb_plugin.ops.bayer import demosaic_bilinear, unpack
from jddb_plugin.ops.optical_flow import estimate_motion
from jddb_plugin.ops.stabilization import Stabilizer
from jddb_plugin.ops.warping import warp_mosaic

Method = Callable[[Tensor, tuple[float, float]], Tensor]

#: Mean absolute difference of two values with independent normal noise of standard deviation 1.
_EXPECTED_DIFFERENCE = 2 / np.sqrt(np.pi)
#: The robust mean takes a frame with half its weight where it differs by so many times what noise explains.
_TOLERANCE = 1.5


def _stabilizer(noise: tuple[float, float]) -> Stabilizer:
    return Stabilizer.from_levels(torch.tensor(noise[0]), torch.tensor(noise[1] ** 2))


def bilinear(lq: Tensor, noise: tuple[float, float]) -> Tensor:
    """Bilinear demosaicking of the noisy reference."""
    return demosaic_bilinear(lq[:, lq.shape[1] // 2, :4])[0].clamp(0, 1)


def _menon(packed: Tensor) -> Tensor:
    """Menon's demosaicking (2007) of packed raw [4, h, w] by the package colour-demosaicing."""
    from colour_demosaicing import demosaicing_CFA_Bayer_Menon2007 as menon

    rgb = menon(unpack(packed).double().numpy(), 'RGGB')
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))).float()


def menon(lq: Tensor, noise: tuple[float, float]) -> Tensor:
    """Menon's demosaicking of the noisy reference."""
    return _menon(lq[0, lq.shape[1] // 2, :4]).clamp(0, 1)


def _denoise(packed: Tensor, noise: tuple[float, float], sigma: float) -> Tensor:
    """OpenCV's non-local means on each stabilized plane of packed raw [4, h, w], noise ``sigma`` after the transform."""
    stabilizer = _stabilizer(noise)
    planes = (stabilizer.apply(packed).clamp(0, 1) * 65535).round().numpy().astype(np.uint16)
    strength = 0.8 * sigma * 65535
    cleaned = np.stack([cv2.fastNlMeansDenoising(plane, h=[strength], templateWindowSize=5, searchWindowSize=15,
                                                 normType=cv2.NORM_L1) for plane in planes])
    return stabilizer.invert(torch.from_numpy(cleaned.astype(np.float32) / 65535))


def nlm(lq: Tensor, noise: tuple[float, float]) -> Tensor:
    """Non-local means of the reference in the stabilized domain, bilinear demosaicking."""
    cleaned = _denoise(lq[0, lq.shape[1] // 2, :4], noise, _stabilizer(noise).sigma.item())
    return demosaic_bilinear(cleaned[None])[0].clamp(0, 1)


def robust_mean(lq: Tensor, noise: tuple[float, float]) -> Tensor:
    """Frames moved by optical flow, robust mean in linear light, non-local means, bilinear demosaicking."""
    burst, reference = lq[0, :, :4], lq.shape[1] // 2
    stabilizer = _stabilizer(noise)
    motion = estimate_motion(burst, stabilizer, reference)
    base = stabilizer.apply(burst[reference])
    total, weights = burst[reference].clone(), torch.ones_like(base[:1])
    for k in range(len(burst)):
        if k == reference:
            continue
        moved = warp_mosaic(burst[k], 2 * motion[k])
        distance = (stabilizer.apply(moved) - base).abs().mean(dim=0, keepdim=True) / (_EXPECTED_DIFFERENCE * stabilizer.sigma)
        distance = torch.nn.functional.avg_pool2d(distance[None], 5, 1, 2, count_include_pad=False)[0]
        weight = torch.sigmoid(5 * (np.log(_TOLERANCE) - distance.clamp(min=1e-3).log()))
        total, weights = total + weight * moved, weights + weight
    left = float(stabilizer.sigma / weights.mean().sqrt())
    return demosaic_bilinear(_denoise(total / weights, noise, left)[None])[0].clamp(0, 1)


def network(net: BurstNetwork, align: Optional[str] = None) -> Method:
    """A burst network by the tiled inference, aligned as it is by default or as asked for."""

    def method(lq: Tensor, noise: tuple[float, float]) -> Tensor:
        return restore_frame(net, lq, align=align)[0]

    return method


#: Alternatives, and whether each uses more than one frame.
ALTERNATIVES: dict[str, tuple[Method, bool]] = {
    'bilinear': (bilinear, False), 'Menon': (menon, False), 'NLM + bilinear': (nlm, False),
    'flow, robust mean, NLM': (robust_mean, True),
}
