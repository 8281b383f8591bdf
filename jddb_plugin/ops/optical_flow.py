"""Dense motion between the frames of a noisy raw burst, and frames moved by it.

Large shifts are found by block matching of patches, as the paper's first stage does it (section 3.2); OpenCV's optical flow
(DIS, Kroeger et al., ECCV 2016) then goes on from there, per pixel and to fractions of a pixel. Both work on gray images with
noise of one strength everywhere.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from jddb_plugin.checks import ShapeError
from jddb_plugin.ops.block_matching import SearchWindow, match_tiles
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.ops.stabilization import Stabilizer, noise_levels
from jddb_plugin.ops.warping import warp_mosaic

if TYPE_CHECKING:
    import numpy as np

#: The matched images are so many times smaller than the packed raw.
SHRINK = 4
#: Patches that are matched, and how far a frame may have moved from its neighbor, in pixels of the small images.
_PATCH = 16
_RADIUS = 10
#: Pixels that the optical flow may add to the motion of patches; what it finds beyond is wrong.
FLOW_REACH = 32
#: Blur of the images before the flow (sigma in pixels), spacing of its patches, iterations of its variational refinement and the
#: weight of its smoothness. The flow's finest scale is that of the images; OpenCV's preset stops at half of it. Against
#: the best settings there these gain 0.08 dB on moving photographs and clips at two noise levels (docs/training.md).
_BLUR = 0.4
_STRIDE = 4
_REFINEMENTS = 5
_SMOOTHNESS = 120.0
#: Motion that averages to less than the first number of pixels over a square is set to zero; from the second on it stays; it is
#: scaled down in between. Otherwise noise of the flow interpolates frames of a camera that stands still, which costs 0.25 dB.
_STILL = (0.15, 0.3)
_STILL_SIDE = 65
#: A pixel that moves so many times as far by itself counts as much as the average around it.
_STILL_RATIO = 3
#: Smallest side in packed px of frames whose flow is estimated; smaller ones are too small for the pyramid.
_SMALLEST = 16


def gray_images(packed: Tensor, stabilizer: Stabilizer) -> Tensor:
    """Mean of the stabilized planes of packed raw [N, 4, H, W]: [N, H, W], about 0 .. 1.

    Examples:
        >>> from jddb_plugin.ops.optical_flow import gray_images
        >>> from jddb_plugin.ops.stabilization import Stabilizer
        >>> gray_images(torch.rand(3, 4, 8, 8), Stabilizer.from_levels(torch.tensor(0.002), torch.tensor(1e-4))).shape
        torch.Size([3, 8, 8])
    """
    return stabilizer.apply(packed).mean(dim=1)


def shrink(gray: Tensor) -> Tensor:
    """The images [N, H / 4, W / 4] in which patches are matched, of ``gray`` [N, H, W]; 4 k rows give k rows.

    Examples:
        >>> from jddb_plugin.ops.optical_flow import shrink
        >>> shrink(torch.rand(3, 64, 48)).shape
        torch.Size([3, 16, 12])
    """
    if min(gray.shape[-2:]) < SHRINK:
        return gray.new_zeros(len(gray), gray.shape[-2] // SHRINK, gray.shape[-1] // SHRINK)
    return F.avg_pool2d(gray[:, None], SHRINK)[:, 0]


def gray_bytes(gray: Tensor) -> np.ndarray:
    """``gray`` [N, H, W] as the images that :func:`refine_motion` takes, uint8 on the CPU.

    Examples:
        >>> from jddb_plugin.ops.optical_flow import gray_bytes
        >>> gray_bytes(torch.tensor([[[0.0, 0.5, 1.2]]])).tolist()
        [[[0, 128, 255]]]
    """
    return (gray.clamp(0, 1) * 255).round().byte().cpu().numpy()


@dataclass(frozen=True)
class PatchMotion:
    """Motion of patches, in pixels of the packed raw.

    Attributes:
        offsets: [N, R, C, 2].
        rows, cols: [R], [C], centers of the patches.
    """

    offsets: Tensor
    rows: Tensor
    cols: Tensor

    def at(self, frame: int, first: int, last: int, width: int) -> Tensor:
        """Motion [rows, width, 2] of the patch nearest to each pixel of rows ``first`` to ``last - 1``."""
        device = self.offsets.device
        row = (torch.arange(first, last, device=device)[:, None] - self.rows).abs().argmin(dim=1)
        col = (torch.arange(width, device=device)[:, None] - self.cols).abs().argmin(dim=1)
        return self.offsets[frame][row][:, col]


def patch_bytes(count: int) -> float:
    """Memory of :func:`match_patches` for ``count`` frames, per pixel of the packed raw.

    Examples:
        >>> from jddb_plugin.ops.optical_flow import patch_bytes
        >>> patch_bytes(5) > patch_bytes(2)
        True
    """
    window = SearchWindow(_RADIUS, 2)
    candidates = sum(((last - first) // step + 1) ** 2 for first, last, step in (window.coarse, window.fine))
    # Distances to all candidates, kept for each frame, and what is done with those of two frames at once; and the images.
    return candidates * (10 * count + 60) / (SHRINK * _PATCH / 2) ** 2 + 4 * 4 * count / SHRINK ** 2


def match_patches(small: Tensor, ref_idx: int) -> PatchMotion:
    """Motion of patches by progressive block matching in images [N, h, w] of :func:`shrink`.

    Images too small for a few patches are taken as not moved.

    Examples:
        >>> from jddb_plugin.ops.optical_flow import match_patches
        >>> match_patches(torch.rand(3, 64, 48), 1).offsets.shape
        torch.Size([3, 7, 5, 2])
    """
    count, rows, cols = small.shape
    if min(rows, cols) < 2 * _PATCH or count == 1:
        zero = small.new_zeros(1)
        return PatchMotion(small.new_zeros(count, 1, 1, 2), zero, zero)
    # What a blur removes does not matter for a match by multiples of four pixels, brightness of wide areas neither.
    small = small[:, None]
    small = small - F.avg_pool2d(small, 9, stride=1, padding=4, count_include_pad=False)
    starts = [torch.linspace(0, side - _PATCH, -(-(side - _PATCH) // (_PATCH // 2)) + 1).round().long() for side in (rows, cols)]
    grid = torch.stack(torch.meshgrid(*starts, indexing='ij'), dim=-1).flatten(0, 1)
    match = match_tiles(small[None], grid[None].to(small.device), (_PATCH, _PATCH), ref_idx=ref_idx,
                        window=SearchWindow(_RADIUS, 2), temperature=None)
    offsets = match.offset[0].permute(1, 2, 0).unflatten(2, (len(starts[0]), len(starts[1])))  # [N, 2, R, C]
    offsets = _median_of_neighbors(offsets.to(small.dtype)) * SHRINK
    return PatchMotion(offsets.permute(0, 2, 3, 1), *((start.to(small.device) + _PATCH / 2) * SHRINK for start in starts))


def _median_of_neighbors(field: Tensor) -> Tensor:
    """Median over 3 x 3 of each component of [N, 2, R, C]: single wrong matches go."""
    padded = F.pad(field, (1, 1, 1, 1), mode='replicate')
    return padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4).median(dim=-1).values


def farthest_motion(count: int, ref_idx: int) -> int:
    """Pixels of the packed raw that content can have moved between the reference and any of ``count`` frames, to be found.

    Examples:
        >>> from jddb_plugin.ops.optical_flow import farthest_motion
        >>> farthest_motion(5, 2) < farthest_motion(5, 0)
        True
    """
    steps = max(ref_idx, count - 1 - ref_idx)
    return SHRINK * steps * (_RADIUS + 2) + FLOW_REACH


def settle(motion: np.ndarray) -> np.ndarray:
    """``motion`` [H, W, 2], zero where the scene around a pixel stands still.

    Examples:
        >>> import numpy as np
        >>> from jddb_plugin.ops.optical_flow import settle
        >>> bool(settle(np.full((80, 80, 2), 0.1, np.float32)).any())
        False
    """
    import cv2
    import numpy as np

    around = cv2.blur(np.clip(motion, -1, 1), (_STILL_SIDE, _STILL_SIDE))
    size = np.maximum(np.hypot(*np.moveaxis(around, -1, 0)), np.hypot(*np.moveaxis(motion, -1, 0)) / _STILL_RATIO)
    weight = np.clip((size - _STILL[0]) / (_STILL[1] - _STILL[0]), 0, 1)
    return motion * weight[..., None]


def refine_motion(reference: np.ndarray, image: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """Optical flow from one gray image to another; zero where the scene stands still.

    Args:
        reference, image: [H, W] uint8, of :func:`gray_bytes`.
        seed: [H, W, 2] float32, where to begin.

    Returns:
        motion (dy, dx) [H, W, 2], float32; the seed itself for images too small for a pyramid.

    Examples:
        >>> from jddb_plugin.ops.optical_flow import gray_bytes, refine_motion
        >>> image = gray_bytes(torch.rand(1, 32, 32))[0]
        >>> refine_motion(image, image, torch.zeros(32, 32, 2).numpy()).shape
        (32, 32, 2)
    """
    if min(reference.shape) < _SMALLEST:
        return seed
    import cv2  # the other operations need neither OpenCV nor numpy
    import numpy as np

    reference, image = (cv2.GaussianBlur(values, (0, 0), _BLUR) for values in (reference, image))
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(0)
    flow.setPatchStride(_STRIDE)
    flow.setVariationalRefinementIterations(_REFINEMENTS)
    flow.setVariationalRefinementAlpha(_SMOOTHNESS)
    found = flow.calc(reference, image, np.ascontiguousarray(seed[..., ::-1]))  # OpenCV's motion is (dx, dy)
    return settle(np.ascontiguousarray(found[..., ::-1]))


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

    Examples:
        >>> from jddb_plugin.ops import Stabilizer, estimate_motion
        >>> stabilizer = Stabilizer.from_levels(torch.tensor(0.002), torch.tensor(1e-4))
        >>> estimate_motion(torch.rand(3, 4, 32, 32), stabilizer, ref_idx=1).shape
        torch.Size([3, 32, 32, 2])
    """
    gray = gray_images(packed, stabilizer)
    patches = match_patches(shrink(gray), ref_idx)
    images = gray_bytes(gray)
    height, width = gray.shape[-2:]
    result = torch.zeros(*gray.shape, 2, device=packed.device)
    for k in range(len(images)):
        if k != ref_idx:
            seed = patches.at(k, 0, height, width).float().cpu().numpy()
            result[k] = torch.from_numpy(refine_motion(images[ref_idx], images[k], seed))
    return result


def align_burst(lq: Tensor, ref_idx: int) -> Tensor:
    """Move the frames of bursts onto their reference.

    Args:
        lq: [B, N, 8, H, W], packed raw and its noise map.
        ref_idx: index of the reference.

    Returns:
        The same shape. The noise maps of moved frames are those that their new values would have.

    Raises:
        ShapeError: another shape.

    Examples:
        >>> from jddb_plugin.ops import align_burst
        >>> align_burst(torch.rand(1, 3, 8, 32, 32), ref_idx=1).shape
        torch.Size([1, 3, 8, 32, 32])
    """
    if lq.ndim != 5 or lq.shape[2] != 8:
        raise ShapeError(f'lq: expected [B, N, 8, H, W] (packed raw and its noise map), got {list(lq.shape)}.')
    aligned = lq.clone()
    for burst, moved in zip(lq, aligned):
        shot, read_squared = noise_levels(burst[ref_idx, :4], burst[ref_idx, 4:])
        motion = estimate_motion(burst[:, :4], Stabilizer.from_levels(shot, read_squared), ref_idx)
        noise = NoiseModel(shot, read_squared.sqrt())
        for k in range(len(burst)):
            if k != ref_idx:
                moved[k] = noise.with_map(warp_mosaic(burst[k, :4], 2 * motion[k]))
    return aligned
