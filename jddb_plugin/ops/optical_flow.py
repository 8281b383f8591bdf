"""Dense motion between the frames of a noisy raw burst, and frames moved by it.

Large shifts are found by block matching of patches, as the paper's first stage does it (section 3.2); OpenCV's optical flow
(DIS, Kroeger et al., ECCV 2016) then goes on from there, per pixel and to fractions of a pixel. Both work on gray images with
noise of one strength everywhere.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jddb_plugin.checks import ShapeError
from jddb_plugin.ops.block_matching import SearchWindow, match_tiles
from jddb_plugin.ops.gathering import gather_mosaic
from jddb_plugin.ops.stabilization import Stabilizer, noise_levels

#: The matched images are so many times smaller than the packed raw.
_SHRINK = 4
#: Patches that are matched, and how far a frame may have moved from its neighbor, in pixels of the small images.
_PATCH = 16
_RADIUS = 10
#: Smallest side in packed px of frames whose flow is estimated; smaller ones are too small for the pyramid.
_SMALLEST = 16


def gray_images(packed: Tensor, stabilizer: Stabilizer) -> Tensor:
    """Mean of the stabilized planes of packed raw [N, 4, H, W]: [N, H, W], about 0 .. 1."""
    return stabilizer.apply(packed).mean(dim=1)


def coarse_motion(gray: Tensor, ref_idx: int) -> Tensor:
    """Motion of patches by progressive block matching, [N, H, W, 2] in pixels of ``gray`` [N, H, W], nearest for each pixel.

    Frames too small for a few patches are taken as not moved.
    """
    count, height, width = gray.shape
    rows, cols = height // _SHRINK, width // _SHRINK
    if min(rows, cols) < 2 * _PATCH or count == 1:
        return gray.new_zeros(count, height, width, 2)
    small = F.avg_pool2d(gray[:, None], _SHRINK)
    # What a blur removes does not matter for a match by multiples of four pixels, brightness of wide areas neither.
    small = small - F.avg_pool2d(small, 9, stride=1, padding=4, count_include_pad=False)
    starts = [torch.linspace(0, side - _PATCH, -(-(side - _PATCH) // (_PATCH // 2)) + 1).round().long() for side in (rows, cols)]
    grid = torch.stack(torch.meshgrid(*starts, indexing='ij'), dim=-1).flatten(0, 1)
    match = match_tiles(small[None], grid[None].to(gray.device), (_PATCH, _PATCH), ref_idx=ref_idx,
                        window=SearchWindow(_RADIUS, 2), temperature=None)
    offsets = match.offset[0].permute(1, 2, 0).unflatten(2, (len(starts[0]), len(starts[1])))  # [N, 2, R, C]
    offsets = _median_of_neighbors(offsets.to(gray.dtype)) * _SHRINK
    nearest = []
    for side, start in zip((height, width), starts):
        center = (start.to(gray.device) + _PATCH / 2) * _SHRINK
        nearest.append((torch.arange(side, device=gray.device)[:, None] - center).abs().argmin(dim=1))
    return offsets[:, :, nearest[0]][..., nearest[1]].permute(0, 2, 3, 1)


def _median_of_neighbors(field: Tensor) -> Tensor:
    """Median over 3 x 3 of each component of [N, 2, R, C]: single wrong matches go."""
    padded = F.pad(field, (1, 1, 1, 1), mode='replicate')
    return padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4).median(dim=-1).values


def estimate_motion(packed: Tensor, stabilizer: Stabilizer, ref_idx: int) -> Tensor:
    """Motion from the reference to each frame.

    Convention:
        Motion is (dy, dx) in pixels of the packed raw: what is at p in the reference lies at p + motion in the frame.

    Args:
        packed: [N, 4, H, W] packed raw of all frames.
        stabilizer: of the reference's noise.
        ref_idx: index of the reference.

    Returns:
        [N, H, W, 2] float32 on the device of ``packed``; 0 for the reference.
    """
    gray = gray_images(packed, stabilizer)
    motion = coarse_motion(gray, ref_idx)
    if min(gray.shape[-2:]) < _SMALLEST:
        return motion
    import cv2  # numpy and OpenCV are not needed by the other operations
    import numpy as np

    images = [cv2.GaussianBlur((image.clamp(0, 1) * 255).round().byte().cpu().numpy(), (0, 0), 1.0) for image in gray]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    result = torch.zeros_like(motion)
    for k, image in enumerate(images):
        if k != ref_idx:
            seed = np.ascontiguousarray(motion[k].flip(-1).cpu().numpy())  # OpenCV's motion is (dx, dy)
            found = flow.calc(images[ref_idx], image, seed)
            result[k] = torch.from_numpy(np.ascontiguousarray(found[..., ::-1])).to(motion.device)
    return result


def align_burst(lq: Tensor, ref_idx: int) -> Tensor:
    """Move the frames of bursts onto their reference, sample by sample.

    Args:
        lq: [B, N, 8, H, W], packed raw and its noise map.
        ref_idx: index of the reference.

    Returns:
        The same shape; noise maps are moved with their samples.

    Raises:
        ShapeError: another shape.
    """
    if lq.ndim != 5 or lq.shape[2] != 8:
        raise ShapeError(f'lq: expected [B, N, 8, H, W] (packed raw and its noise map), got {list(lq.shape)}.')
    aligned = lq.clone()
    for burst, moved in zip(lq, aligned):
        shot, read_squared = noise_levels(burst[ref_idx, :4], burst[ref_idx, 4:])
        motion = estimate_motion(burst[:, :4], Stabilizer.from_levels(shot, read_squared), ref_idx)
        for k in range(len(burst)):
            if k != ref_idx:
                moved[k] = gather_mosaic(burst[k].view(2, 4, *burst.shape[-2:]), 2 * motion[k]).flatten(0, 1)
    return aligned
