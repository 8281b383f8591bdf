"""Restore frames of any size by any burst network, in memory that is planned before.

The motion of the burst is estimated once. Then rows of tiles are processed from top to bottom: their aligned rows are made, tile
after tile is restored and blended, and rows that no later tile touches are handed out.
"""
from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Callable, Optional

import torch
from torch import Tensor

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.archs.dpbm_arch import DPBM, SCALE
from jddb_plugin.checks import OptionError, check_choice, check_ndim
from jddb_plugin.inference.align import Alignment, Band, SmoothAlignment, TileAlignment
from jddb_plugin.inference.flow import FlowAlignment
from jddb_plugin.inference.memory import Plan, make_plan, release_memory
from jddb_plugin.inference.source import RowSource, TensorSource
from jddb_plugin.inference.tiling import TilingOptions, tile_grid
from jddb_plugin.ops.block_matching import SearchWindow
from jddb_plugin.ops.tile_extraction import extract_tiles
from jddb_plugin.ops.tiling import cheapest_cover

#: Names of alignments, see :mod:`jddb_plugin.inference.align`.
ALIGNMENTS = ('tiles', 'smooth', 'flow', 'none')
#: Memory for tiles where no limit is given. It is a fixed number, so that a score does not depend on the machine's load.
MEMORY = 1 << 30


def default_alignment(net: BurstNetwork) -> str:
    """'none' for a network that aligns by itself; 'smooth' for one with block matching of its own; else 'flow'."""
    if not net.aligned_input:
        return 'none'
    return 'flow' if net.coarse is None else 'smooth'


def make_alignment(net: BurstNetwork, source: RowSource, name: Optional[str], tiling: TilingOptions,
                   window: Optional[SearchWindow] = None) -> Alignment:
    """The alignment of a burst.

    Args:
        net: brings its own block matching, or else plain block matching of the bicubically downsampled burst is used.
        source: the burst.
        name: one of :data:`ALIGNMENTS`; None chooses by the network.
        tiling: the tiles, which are what is matched.
        window: where to search; that of the network by default.

    Raises:
        OptionError: there is no such alignment, or it cannot work with the tiles.
    """
    name = default_alignment(net) if name is None else name
    check_choice(name, ALIGNMENTS, 'align')
    multiple = math.lcm(net.multiple, SCALE) if name in ('tiles', 'smooth') else net.multiple
    tiling.check(multiple)
    if name != 'tiles' and tiling.layout == 'released' and name != 'none':
        raise OptionError(f"align: '{name}' moves pixels, and layout: released pads frames by zeros, which must not be moved; "
                          'use align: tiles, or layout: inside.')
    device = next(net.parameters()).device
    if name == 'none':
        return Alignment(source, device)
    if name == 'flow':
        return FlowAlignment(source, device)
    coarse = net.coarse
    if coarse is None:
        coarse = DPBM(features='bicubic').to(device).eval()
    window = window or coarse.window
    if name == 'smooth':
        return SmoothAlignment(source, coarse, window, tiling.matched(source.size, SCALE), device)
    return TileAlignment(source, coarse, window, tile_grid(source.size, tiling, multiple), device)


class TiledInference:
    """The restored rows of one burst.

    Args:
        net: in evaluation mode, on its device.
        alignment: of the burst, by :func:`make_alignment`.
        plan: by :func:`jddb_plugin.inference.memory.make_plan`.
        bf16: convolutions in bfloat16.
        on_tiles: called with the number of tiles after each batch.

    Attributes:
        precision: of the convolutions.
        seconds: spent in alignment, and in restoration (with blending).
    """

    def __init__(self, net: BurstNetwork, alignment: Alignment, plan: Plan, *, bf16: bool = False,
                 on_tiles: Callable[[int], object] = lambda count: None) -> None:
        self.net, self.alignment, self.plan = net, alignment, plan
        self.grid, self.source = plan.grid, alignment.source
        self.on_tiles = on_tiles
        self.device = alignment.device
        self.precision = 'bf16' if bf16 else 'float32'
        self.seconds = {'alignment': 0.0, 'restoration': 0.0}

    @torch.no_grad()
    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Finished rows from top to bottom: (first row, linear camera RGB [3, rows, W] on the device)."""
        grid, rows, scale = self.grid, self.grid.rows, self.net.upscale
        start = self.now()
        self.alignment.estimate(self.plan.step)
        release_memory()  # the tiles need it now
        start = self._spent('alignment', start)
        canvas = torch.zeros(3, grid.size[0] * scale, grid.padded[1] * scale, device=self.device)
        for row in range(len(rows)):
            start = self.now()
            band = self.alignment.band(grid, row)
            start = self._spent('alignment', start)
            self._restore_row(canvas, band, row)
            del band  # before the next one is read
            if self.device.type == 'cpu':
                release_memory()  # what the allocator keeps of each row of tiles adds up to hundreds of megabytes
            finished = (rows[row + 1] if row + 1 < len(rows) else rows[row] + grid.size[0]) - rows[row]
            result = self._inside(canvas, rows[row], finished)
            rest = canvas[:, finished * scale:]
            canvas = torch.zeros_like(canvas)
            canvas[:, :rest.shape[1]] = rest
            self._spent('restoration', start)
            if result is not None:
                yield result

    def _restore_row(self, canvas: Tensor, band: Band, row: int) -> None:
        columns = len(self.grid.cols)
        for first in range(0, columns, self.plan.tile_batch):
            chosen = slice(first, min(first + self.plan.tile_batch, columns))
            restored = self.restore(band, chosen)
            self.grid.add(canvas[None], restored[None], row * columns + first, self.net.upscale, top=self.grid.rows[row])
            self.on_tiles(len(restored))

    def restore(self, band: Band, chosen: slice) -> Tensor:
        """Some tiles of a row, [t, 3, 2h, 2w] of linear camera RGB."""
        tiles = extract_tiles(band.rows, band.corners[:, chosen], band.offsets[:, chosen], self.grid.size)[0]
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == 'bf16'):
            return self.net.restore(tiles, self.source.ref_idx).float()

    def _inside(self, canvas: Tensor, top: int, rows: int) -> Optional[tuple[int, Tensor]]:
        """The part of the canvas's first rows that lies in the frame; ``top`` is the row of the padded frame it begins at."""
        left, _, above, _ = self.grid.padding
        scale = self.net.upscale
        first, last = max(top, above), min(top + rows, above + self.grid.frame[0])
        if first >= last:
            return None
        columns = slice(left * scale, (left + self.grid.frame[1]) * scale)
        return (first - above) * scale, canvas[:, (first - top) * scale:(last - top) * scale, columns]

    def _spent(self, part: str, start: float) -> float:
        now = self.now()
        self.seconds[part] += now - start
        return now

    def now(self) -> float:
        """Seconds of a clock, after the device has done what it was given."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def align_frames(net: BurstNetwork, lq: Tensor, ref_idx: Optional[int] = None, *, align: Optional[str] = None) -> Tensor:
    """Move whole frames onto the reference, without gradients, as an input to train on.

    Args:
        net: see :func:`make_alignment`.
        lq: [B, N, 8, H, W], packed raw and its noise map.
        ref_idx: index of the reference; the middle frame by default.
        align: 'smooth', 'flow' or 'none'; by default what the network is restored with.

    Returns:
        the same shape.

    Raises:
        OptionError: alignment 'tiles', which moves no whole frames.
    """
    check_ndim(lq, 'B N C H W', 'lq')
    aligned = []
    with torch.no_grad():
        for burst in lq:
            height, width = burst.shape[-2:]
            alignment = make_alignment(net, TensorSource(burst, ref_idx), align, TilingOptions())
            if not alignment.by_pixels:
                raise OptionError("align: 'tiles' moves tiles, not whole frames; use smooth, flow or none.")
            alignment.estimate(alignment.steps)
            grid = cheapest_cover(height, width, pixels=height * width, overlap=0, multiple=1)
            aligned.append(alignment.aligned_rows(grid, 0, height)[0])
    return torch.stack(aligned)


def restore_frame(net: BurstNetwork, lq: Tensor, ref_idx: Optional[int] = None, *, align: Optional[str] = None,
                  tiling: Optional[TilingOptions] = None, window: Optional[SearchWindow] = None,
                  memory: Optional[int] = None) -> Tensor:
    """Restore bursts in memory.

    Args:
        net: in evaluation mode.
        lq: [B, N, 8, H, W], packed raw and its noise map.
        ref_idx: index of the reference; the middle frame by default.
        align, tiling, window: see :func:`make_alignment`.
        memory: bytes for the tiles; :data:`MEMORY` by default.

    Returns:
        Linear camera RGB [B, 3, 2H, 2W] of the reference frame.

    Raises:
        ShapeError: another shape, or no such reference.
        OptionError: an option is wrong, or the memory too little.
    """
    check_ndim(lq, 'B N C H W', 'lq')
    tiling = tiling or TilingOptions()
    results = []
    for burst in lq:
        alignment = make_alignment(net, TensorSource(burst, ref_idx), align, tiling, window)
        plan = make_plan(net, alignment, tiling, free=MEMORY if memory is None else memory)
        picture = torch.empty(3, *(net.upscale * side for side in burst.shape[-2:]), device=alignment.device)
        for first, rows in TiledInference(net, alignment, plan):
            picture[:, first:first + rows.shape[1]] = rows
        results.append(picture)
    return torch.stack(results)
