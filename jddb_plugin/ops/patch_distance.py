"""Sums of absolute differences between a tile and the candidates of a square search window.

The candidates of one search overlap: they are views of one region, and no stack of them is ever made. What takes
memory are differences, and those are computed in chunks of :data:`CHUNK_BYTES`, in the backward pass too. On a GPU where
Triton runs, fused kernels add them up as they are computed (:mod:`jddb_plugin.ops.patch_distance_triton`).

Convention:
    Images are channels last here, [L, H, W, C]. A search has an image (its index into L), a reference tile and a
    corner (y, x), where the candidate of displacement (0, 0) lies. Candidates are numbered row by row.
"""
from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Working memory by device type: on a CPU the differences stay in its cache, on a GPU a launch keeps it busy.
CHUNK_BYTES = {'cpu': 8 << 20, 'cuda': 128 << 20}


def slices(total: int, item_bytes: int, device: torch.device) -> Iterator[slice]:
    """Parts of ``range(total)`` whose items together stay below the budget of the device, at least one item each.

    Examples:
        >>> list(slices(5, CHUNK_BYTES['cpu'] // 2, torch.device('cpu')))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    length = max(1, CHUNK_BYTES.get(device.type, CHUNK_BYTES['cpu']) // item_bytes)
    for start in range(0, total, length):
        yield slice(start, min(start + length, total))


@cache
def available(device: torch.device) -> bool:
    """Whether the fused kernels run on a device: a GPU, Triton, and the C compiler that Triton needs. Tried once.

    Examples:
        >>> available(torch.device('cpu'))
        False
    """
    if device.type != 'cuda' or importlib.util.find_spec('triton') is None:
        return False
    try:
        from jddb_plugin.ops.patch_distance_triton import sums
        one = torch.zeros(1, 1, 1, 1, device=device)
        sums(one, one, step=1, count=1)
    except Exception as error:
        warnings.warn(f'Triton does not run on {device}, block matching is slower without: {error}', stacklevel=2)
        return False
    return True


def _indices(images: Tensor, index: Tensor, corner: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Advanced indices of one rectangle per row of ``corner``; what lies outside repeats the border."""
    rows = corner[:, 0, None] + torch.arange(size[0], device=corner.device)
    cols = corner[:, 1, None] + torch.arange(size[1], device=corner.device)
    rows = rows.clamp(0, images.shape[1] - 1)
    cols = cols.clamp(0, images.shape[2] - 1)
    return index[:, None, None], rows[:, :, None], cols[:, None, :]


def extract_patches(images: Tensor, index: Tensor, corner: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut one rectangle per row of ``corner``; what lies outside the image repeats its border.

    Args:
        images: [L, H, W, C].
        index: [S], int64, index into L.
        corner: [S, 2], int64, (y, x) of the top left corner.
        size: height and width.

    Returns:
        [S, height, width, C].

    Examples:
        >>> image = torch.arange(12.).view(1, 3, 4, 1)
        >>> extract_patches(image, torch.tensor([0]), torch.tensor([[1, 2]]), (2, 3)).squeeze().tolist()
        [[6.0, 7.0, 7.0], [10.0, 11.0, 11.0]]
    """
    return images[_indices(images, index, corner, size)]


def patch_distances(images: Tensor, index: Tensor, corner: Tensor, reference: Tensor,
                    axis: tuple[int, int, int]) -> Tensor:
    """Mean absolute difference between a tile and every candidate of its search.

    Compiled, it is one expression that the compiler fuses; else it runs by the fused kernels where they are
    :func:`available`, or in chunks of :data:`CHUNK_BYTES`.

    Args:
        images: [L, H, W, C], float32 or float64.
        index: [S], int64, the image that each tile is searched in.
        corner: [S, 2], int64, the center of each search.
        reference: [S, height, width, C], the tiles.
        axis: (first, last, step) of the displacements, the same along both axes; M = count * count candidates.

    Returns:
        [S, M]. Candidates that reach out of the image meet its repeated border. Differentiable once, with respect
        to ``images`` and ``reference``.

    Examples:
        >>> image = torch.rand(1, 12, 12, 3)
        >>> tile = image[:, 4:8, 4:8]
        >>> distance = patch_distances(image, torch.tensor([0]), torch.tensor([[4, 4]]), tile, (-1, 1, 1))
        >>> distance.argmin().item(), distance.shape
        (4, torch.Size([1, 9]))
    """
    if torch.compiler.is_compiling():
        total = _fused(images, index, corner, reference, axis)
    else:
        total = _Chunked.apply(images, index, corner, reference, axis)
    return total / reference[0].numel()


def _region(images: Tensor, index: Tensor, corner: Tensor, size: tuple[int, int], axis: tuple[int, int, int]) -> Tensor:
    """Everything that the searches cover."""
    first, last, _ = axis
    return extract_patches(images, index, corner + first, (size[0] + last - first, size[1] + last - first))


def _candidates(region: Tensor, size: tuple[int, int], axis: tuple[int, int, int]) -> Tensor:
    """View [S, count, count, height, width * C] of regions [S, .., .., C]."""
    step, channels = axis[2], region.shape[3]
    return region.flatten(2).unfold(1, size[0], step).unfold(2, size[1] * channels, step * channels)


def _fused(images: Tensor, index: Tensor, corner: Tensor, reference: Tensor, axis: tuple[int, int, int]) -> Tensor:
    size = (reference.shape[1], reference.shape[2])
    candidates = _candidates(_region(images, index, corner, size, axis), size, axis)
    return (candidates - reference.flatten(2)[:, None, None]).abs().sum(dim=(-2, -1)).flatten(1)


def _kernels(images: Tensor, reference: Tensor) -> Any:
    """The module of the fused kernels where they run on these tensors, else None."""
    if images.dtype != reference.dtype or images.dtype not in (torch.float32, torch.float64) or not available(images.device):
        return None
    from jddb_plugin.ops import patch_distance_triton
    return patch_distance_triton


class _Chunked(torch.autograd.Function):
    """Sums of absolute differences [S, M]; keeps no differences for the backward pass but computes them again."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, index: Tensor, corner: Tensor, reference: Tensor,
                axis: tuple[int, int, int]) -> Tensor:
        ctx.save_for_backward(images, index, corner, reference)
        ctx.axis = axis
        first, last, step = axis
        count = (last - first) // step + 1
        size = (reference.shape[1], reference.shape[2])
        item_bytes = images.element_size()
        result = reference.new_empty(len(index), count, count)
        buffer = reference.new_empty(0)
        region_bytes = (size[0] + last - first) * (size[1] + last - first) * images.shape[3] * item_bytes
        line_bytes = count * reference[0].numel() * item_bytes
        fused = _kernels(images, reference)
        for part in slices(len(index), region_bytes, images.device):
            region = _region(images, index[part], corner[part], size, axis)
            sums = result[part]
            if fused is not None:
                sums.copy_(fused.sums(region, reference[part], step, count).view_as(sums))
                continue
            candidates = _candidates(region, size, axis)
            tiles = reference[part].flatten(2)[:, None, None]
            # Whole searches at once where they fit, else some lines of candidates of one search.
            for searches in slices(len(sums), count * line_bytes, images.device):
                for lines in slices(count, (searches.stop - searches.start) * line_bytes, images.device):
                    some = candidates[searches, lines]
                    if buffer.numel() < some.numel():
                        buffer = buffer.new_empty(some.numel())
                    difference = torch.sub(some, tiles[searches], out=buffer[:some.numel()].view(some.shape))
                    torch.sum(difference.abs_(), dim=(-2, -1), out=sums[searches, lines])
        return result.flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
        images, index, corner, reference = ctx.saved_tensors
        first, last, step = ctx.axis
        count = (last - first) // step + 1
        height, width = size = (reference.shape[1], reference.shape[2])
        grad_images, grad_reference = torch.zeros_like(images), torch.zeros_like(reference)
        region_size = (height + last - first, width + last - first)
        region_bytes = region_size[0] * region_size[1] * images.shape[3] * images.element_size()
        fused = _kernels(images, reference)
        for part in slices(len(index), region_bytes, images.device):
            region = _region(images, index[part], corner[part], size, ctx.axis)
            if fused is not None:
                grad_region, grad_reference[part] = fused.gradients(region, reference[part], grad[part], step, count)
            else:
                grad_region = torch.zeros_like(region)
                for k in range(count * count):
                    y, x = k // count * step, k % count * step
                    slope = region[:, y:y + height, x:x + width] - reference[part]
                    slope = slope.sign_().mul_(grad[part, k, None, None, None])
                    grad_region[:, y:y + height, x:x + width] += slope
                    grad_reference[part] -= slope
            where = _indices(images, index[part], corner[part] + first, region_size)
            grad_images.index_put_(where, grad_region, accumulate=True)
        return grad_images, None, None, grad_reference, None
