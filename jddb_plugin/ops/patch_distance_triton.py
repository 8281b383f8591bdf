"""Sums of absolute differences and their gradients as fused kernels for GPUs, written in Triton.

:mod:`jddb_plugin.ops.patch_distance` imports this module where it runs on a GPU, and only there; without Triton the
module imports, but its functions do not run. No kernel writes a difference to memory or adds atomically, so results
do not vary from run to run.

Convention:
    Shapes are those of :mod:`jddb_plugin.ops.patch_distance`. A row of a tile is a line of width * C elements, a row of a
    region one of ``pitch`` elements, and candidates are shifts of a line by ``down`` and ``right`` elements. Offsets
    within a region are 32 bits wide, those of a search 64.

What bounds the kernels is reading: every difference has another element of the region, and neighboring candidates
share most of them. So a program has several candidates of one search, reads an element of the tile once for all of them,
and goes over the rows in order, which leaves the candidates' shared elements to the L1 cache.
"""
# ruff: noqa: ANN001, ANN202 - arguments of kernels are pointers, and numbers that Triton specializes for
from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None


class Launch(NamedTuple):
    """How a kernel is cut into programs.

    Attributes:
        candidates: that a program has at once, a power of two.
        block: elements of a line that it has at once, a power of two; fewer where lines are shorter.
        warps: of a program.
    """

    candidates: int
    block: int
    warps: int

    def options(self, line: int) -> dict[str, Any]:
        """Arguments of a kernel whose lines have so many elements.

        Examples:
            >>> Launch(16, 512, 4).options(96)
            {'CANDIDATES': 16, 'BLOCK': 128, 'EVEN': False, 'num_warps': 4}
        """
        block = min(self.block, 1 << (line - 1).bit_length())
        return {'CANDIDATES': self.candidates, 'BLOCK': block, 'EVEN': line % block == 0, 'num_warps': self.warps}


#: A thread holds candidates * block / (32 * warps) sums in :data:`SUMS`, and has as many loads under way in all of them.
SUMS = Launch(16, 512, 4)
REFERENCE_GRADIENT = Launch(8, 1024, 4)
REGION_GRADIENT = Launch(4, 512, 4)


def _jit(kernel: Any) -> Any:
    return kernel if triton is None else triton.jit(kernel)


@_jit
def _load(pointers, inside, EVEN: tl.constexpr):
    """Elements that lie inside, else 0; no mask where all do."""
    return tl.load(pointers) if EVEN else tl.load(pointers, mask=inside, other=0.)


@_jit
def _sign(values):
    return (values > 0).to(values.dtype) - (values < 0).to(values.dtype)


@_jit
def _sums_kernel(region, reference, result, region_size, height, line, pitch, down, right, count, total,
                 CANDIDATES: tl.constexpr, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    """Some candidates of a search."""
    groups = tl.cdiv(total, CANDIDATES)
    search = (tl.program_id(0) // groups).to(tl.int64)
    candidate = tl.program_id(0) % groups * CANDIDATES + tl.arange(0, CANDIDATES)
    # Past the last candidate it is computed again, and not stored.
    known = tl.minimum(candidate, total - 1)
    start = known // count * down + known % count * right
    region += search * region_size
    reference += search * height * line
    sums = tl.zeros([CANDIDATES, BLOCK], dtype=result.dtype.element_ty)
    for y in range(height):
        for first in range(0, line, BLOCK):
            x = first + tl.arange(0, BLOCK)
            inside = x < line
            tile = _load(reference + y * line + x, inside, EVEN)
            some = _load(region + y * pitch + start[:, None] + x[None, :], inside[None, :], EVEN)
            sums += tl.abs(some - tile[None, :])
    tl.store(result + search * total + candidate, tl.sum(sums, axis=1), mask=candidate < total)


@_jit
def _reference_gradient_kernel(region, reference, grad, result, region_size, height, line, pitch, down, right,
                               count, total, CANDIDATES: tl.constexpr, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    """A block of a line of a tile: minus the sum over candidates m of sign(region[p + m] - tile[p]) grad[m]."""
    blocks = tl.cdiv(line, BLOCK)
    x = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    y = tl.program_id(0) // blocks % height
    search = (tl.program_id(0) // (blocks * height)).to(tl.int64)
    inside = x < line
    here = search * height * line + y * line + x
    tile = _load(reference + here, inside, EVEN)
    region += search * region_size + y * pitch
    grad += search * total
    sums = tl.zeros([BLOCK], dtype=result.dtype.element_ty)
    candidate = tl.arange(0, CANDIDATES)
    # Counted along, as a division costs as much as several differences.
    row, column = candidate // count, candidate % count
    for first in range(0, total, CANDIDATES):
        weight = tl.load(grad + first + candidate, mask=first + candidate < total, other=0.)
        start = tl.minimum(row, count - 1) * down + column * right
        some = _load(region + start[:, None] + x[None, :], inside[None, :], EVEN)
        sums += tl.sum(_sign(tile[None, :] - some) * weight[:, None], axis=0)
        column += CANDIDATES % count
        row += CANDIDATES // count + tl.where(column >= count, 1, 0)
        column = tl.where(column >= count, column - count, column)
    tl.store(result + here, sums, mask=inside)


@_jit
def _region_gradient_kernel(region, reference, grad, result, region_size, region_height, height, line, pitch, step,
                            right, count, total, CANDIDATES: tl.constexpr, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    """A block of a row of a region: the sum of sign(region[p] - tile[p - m]) grad[m] over candidates m with p - m in the tile."""
    blocks = tl.cdiv(pitch, BLOCK)
    corner = tl.program_id(0) % blocks * BLOCK
    x = corner + tl.arange(0, BLOCK)
    y = tl.program_id(0) // blocks % region_height
    search = (tl.program_id(0) // (blocks * region_height)).to(tl.int64)
    here = search * region_size + y * pitch + x
    value = _load(region + here, x < pitch, EVEN)
    reference += search * height * line
    # Candidates that cover this row, and those that cover some of the block.
    top = tl.maximum(y - height + step, 0) // step
    bottom = tl.minimum(y // step, count - 1)
    left = tl.maximum(corner - line + right, 0) // right
    last = tl.minimum((corner + BLOCK - 1) // right, count - 1)
    sums = tl.zeros([BLOCK], dtype=result.dtype.element_ty)
    for i in range(top, bottom + 1):
        for first in range(left, last + 1, CANDIDATES):
            j = first + tl.arange(0, CANDIDATES)
            weight = tl.load(grad + search * total + i * count + j, mask=j <= last, other=0.)
            position = x[None, :] - (j * right)[:, None]
            # What lies outside of the tile equals the region, so that its sign is 0.
            same = tl.broadcast_to(value[None, :], [CANDIDATES, BLOCK])
            tile = tl.load(reference + (y - i * step) * line + position, mask=(position >= 0) & (position < line), other=same)
            sums += tl.sum(_sign(same - tile) * weight[:, None], axis=0)
    tl.store(result + here, sums, mask=x < pitch)


def sums(region: Tensor, reference: Tensor, step: int, count: int) -> Tensor:
    """Sums of absolute differences between tiles and the candidates of their regions.

    Args:
        region: [S, height + .., width + .., C], everything that a search covers, float32 or float64.
        reference: [S, height, width, C], the tiles, of the same type and device.
        step: of the candidates, in pixels.
        count: candidates along each axis.

    Returns:
        [S, count * count].

    Examples:
        >>> region = torch.rand(5, 10, 10, 3, device='cuda')  # doctest: +SKIP
        >>> sums(region, region[:, 1:9, 1:9], step=1, count=3)[:, 4].tolist()  # doctest: +SKIP
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    region, reference = region.contiguous(), reference.contiguous()
    height, line, pitch = reference.shape[1], reference[0, 0].numel(), region[0, 0].numel()
    right, total = step * region.shape[3], count * count
    result = reference.new_empty(len(region), total)
    programs = (len(region) * triton.cdiv(total, SUMS.candidates),)
    with torch.cuda.device_of(region):
        _sums_kernel[programs](region, reference, result, region[0].numel(), height, line, pitch, step * pitch, right, count,
                               total, **SUMS.options(line))
    return result


def gradients(region: Tensor, reference: Tensor, grad: Tensor, step: int, count: int) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`sums` with respect to its tensors; that of an absolute value is 0 at 0.

    Args:
        region, reference, step, count: as given to :func:`sums`.
        grad: [S, count * count].

    Returns:
        Gradients like ``region`` and like ``reference``.

    Examples:
        >>> region, tile = torch.ones(1, 3, 2, 1, device='cuda'), torch.zeros(1, 2, 1, 1, device='cuda')  # doctest: +SKIP
        >>> by_region, by_tile = gradients(region, tile, torch.ones(1, 4, device='cuda'), step=1, count=2)  # doctest: +SKIP
        >>> by_region.flatten().tolist(), by_tile.flatten().tolist()  # doctest: +SKIP
        ([1.0, 1.0, 2.0, 2.0, 1.0, 1.0], [-4.0, -4.0])
    """
    region, reference, grad = region.contiguous(), reference.contiguous(), grad.contiguous()
    height, line, pitch = reference.shape[1], reference[0, 0].numel(), region[0, 0].numel()
    right, total = step * region.shape[3], count * count
    by_region, by_reference = torch.empty_like(region), torch.empty_like(reference)
    with torch.cuda.device_of(region):
        options = REFERENCE_GRADIENT.options(line)
        programs = (len(region) * height * triton.cdiv(line, options['BLOCK']),)
        _reference_gradient_kernel[programs](region, reference, grad, by_reference, region[0].numel(), height, line, pitch,
                                             step * pitch, right, count, total, **options)
        options = REGION_GRADIENT.options(pitch)
        programs = (len(region) * region.shape[1] * triton.cdiv(pitch, options['BLOCK']),)
        _region_gradient_kernel[programs](region, reference, grad, by_region, region[0].numel(), region.shape[1], height, line,
                                          pitch, step, right, count, total, **options)
    return by_region, by_reference
