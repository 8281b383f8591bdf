"""How the frames of a burst are aligned before a network restores them.

'tiles'
    Section 3.2 of the paper: each tile is found in the other frames by block matching, and moved as a whole.
'smooth'
    The same matching for overlapping patches, whose motion is refined to fractions of a pixel and interpolated; every pixel is
    taken from where it moved to (:mod:`jddb_plugin.ops.motion_field`).
'flow'
    Optical flow of the whole frames (:mod:`jddb_plugin.ops.optical_flow`), which are interpolated where it says
    (:mod:`jddb_plugin.ops.warping`).
'none'
    Frames stay as they are.

All but 'flow' leave the noise of a sample as it was. :meth:`Alignment.estimate` goes through the burst once; what it found is
small, but for 'flow', which keeps the motion of every pixel. :meth:`Alignment.band` then reads and aligns the rows of one row of
tiles at a time.
"""
from __future__ import annotations

from typing import NamedTuple, Optional

import torch
from torch import Tensor

from jddb_plugin.archs.dpbm_arch import CONTEXT, DPBM, SCALE
from jddb_plugin.inference.features import FeatureRows
from jddb_plugin.inference.source import STRIP_ROWS, PaddedRows, RowSource, pad_rows, read_strips
from jddb_plugin.ops.block_matching import SearchWindow
from jddb_plugin.ops.motion_field import MotionField, refine_offsets, replace_outliers
from jddb_plugin.ops.patch_distance import CHUNK_BYTES
from jddb_plugin.ops.tiling import TileGrid, make_grid

#: Neighboring patches whose motion differs by more pixels of the packed raw belong to different objects.
_MAX_MOTION_STEP = 8.0


class Band(NamedTuple):
    """What the tiles of one row are cut out of.

    Attributes:
        rows: [1, N, 8, h, W], packed raw and noise map.
        corners: [1, T, 2], of the row's tiles in ``rows``.
        offsets: [1, T, N, 2], from there.
    """

    rows: Tensor
    corners: Tensor
    offsets: Tensor


class Alignment:
    """Aligns the frames of one burst; this one leaves them as they are.

    Args:
        source: the burst.
        device: where tensors are made.

    Attributes:
        name: as in options.
        on_host: whether motion is estimated and kept by the CPU, wherever the network runs.
        by_pixels: whether pixels are aligned one by one, so that tiles may lie anywhere.
        windows: what was matched, if anything.
        offsets: [T, N, 2], where each window was found, in pixels of the packed raw; 0 without windows.
    """

    name = 'none'
    on_host = False
    by_pixels = True
    windows: Optional[TileGrid] = None

    def __init__(self, source: RowSource, device: torch.device) -> None:
        self.source, self.device = source, device
        self.offsets = torch.zeros(0, source.count, 2)

    @property
    def steps(self) -> int:
        """Number of parts that the estimation can be divided into, to save memory."""
        return 1

    def estimate(self, step: int) -> None:
        """Find the motion, ``step`` parts at a time."""

    def estimation_bytes(self, step: int) -> int:
        """Memory of :meth:`estimate`, of this device."""
        return 0

    def held_bytes(self) -> int:
        """Memory of what :meth:`estimate` found, of the CPU."""
        return 0

    def band_bytes(self, grid: TileGrid) -> int:
        """Memory of :meth:`band`, of this device."""
        count, width = self.source.count, grid.padded[1]
        return (2 * 4 * 8 * count * grid.size[0] + self._strip_bytes()) * width  # and the parts that they are made of

    def _strip_bytes(self) -> int:
        """Per column, while a strip of rows is aligned."""
        return 4 * 16 * STRIP_ROWS

    def band(self, grid: TileGrid, row: int) -> Band:
        """Read and align what the tiles of a row need."""
        first, columns = grid.rows[row], len(grid.cols)
        rows = self.aligned_rows(grid, first, first + grid.size[0])
        corners = torch.tensor([(0, column) for column in grid.cols], device=self.device)[None]
        return Band(rows, corners, corners.new_zeros(1, columns, self.source.count, 2))

    def aligned_rows(self, grid: TileGrid, first: int, last: int) -> Tensor:
        """Rows of the padded frames, every frame moved onto the reference, [1, N, 8, rows, W]."""
        height, width = grid.frame
        if grid.padding_mode == 'constant':
            return PaddedRows(self.source, grid, self.device).read(first, last)
        end = min(last, height)
        aligned = torch.empty(self.source.count, 8, last - first, grid.padded[1], device=self.device)
        whole = aligned.shape[2:] == (end - first, width)
        for frame, rows in enumerate(aligned):  # padded one by one: a second copy of all is much memory
            inside = rows if whole else torch.empty(8, end - first, width, device=self.device)
            for top in range(first, end, STRIP_ROWS):
                bottom = min(top + STRIP_ROWS, end)
                inside[:, top - first:bottom - first] = self.moved(frame, top, bottom)
            if not whole:
                rows.copy_(pad_rows(inside, grid, 0, last - end))
        return aligned[None]

    def moved(self, frame: int, first: int, last: int) -> Tensor:
        """Rows of one frame moved onto the reference, [8, rows, W]."""
        return self.source.read(frame, first, last)


class _Matching:
    """Block matching of the windows of a grid, some rows of them at a time."""

    def __init__(self, source: RowSource, coarse: DPBM, window: SearchWindow, grid: TileGrid, device: torch.device) -> None:
        self.source, self.coarse, self.window, self.grid, self.device = source, coarse, window, grid, device
        self.rows = PaddedRows(source, grid, device)
        self.features = FeatureRows(coarse, self.rows)
        self.max_displacement = SCALE * window.max_displacement(source.count, source.ref_idx)

    def match(self, band: range) -> tuple[Tensor, Tensor, Tensor]:
        """Match some rows of windows.

        Returns:
            (packed raw [1, N, 4, rows, W] of all that the matches touch, corners [1, T, 2] in it, offsets [1, T, N, 2] in pixels
            of the packed raw).
        """
        grid, columns = self.grid, len(self.grid.cols)
        first = max(grid.rows[band[0]] - self.max_displacement, 0)
        last = min(grid.rows[band[-1]] + grid.size[0] + self.max_displacement, self.rows.height)
        corners = grid.positions(self.device)[None, band[0] * columns:(band[-1] + 1) * columns].clone()
        corners[..., 0] -= first
        raw, features = self.features.read(first, last)
        match = self.coarse.match_features(features, corners, grid.size, self.source.ref_idx, self.window)
        return raw, corners, match.offset * SCALE

    def bytes(self, step: int) -> int:
        """Memory while ``step`` rows of windows are matched: packed raw, features, and the search."""
        grid, count = self.grid, self.source.count
        rows = len(grid.rows)
        covered = max(grid.rows[k + step - 1] - grid.rows[k] for k in range(rows - step + 1)) + grid.size[0]
        pixels = min(covered + 2 * (self.max_displacement + CONTEXT), self.rows.height) * self.rows.width
        features = 4 * self.coarse.num_feat * pixels // SCALE ** 2
        # Raw of all frames, their features and a copy of those, and the layers of one frame.
        kept = 2 * 4 * 4 * count * pixels + 2 * count * features + 3 * 4 * features
        candidates = sum(((last - first) // step_ + 1) ** 2 for first, last, step_ in (self.window.coarse, self.window.fine))
        # Distances to all candidates, kept for each frame; what is done with those of two frames at once; and two cut out tiles.
        tile = candidates * (10 * count + 60) + 3 * 4 * self.coarse.num_feat * grid.size[0] * grid.size[1] // SCALE ** 2
        return kept + step * len(grid.cols) * tile + 3 * CHUNK_BYTES.get(self.device.type, CHUNK_BYTES['cpu'])


def bands(count: int, step: int) -> list[range]:
    """Ranges of at most ``step`` of ``count`` rows."""
    return [range(first, min(first + step, count)) for first in range(0, count, step)]


class TileAlignment(Alignment):
    """Tiles are moved as a whole, as in the paper.

    Args:
        source: the burst.
        coarse: finds them.
        window: where to search.
        grid: the tiles.
        device: where tensors are made.
    """

    name = 'tiles'
    by_pixels = False
    windows: TileGrid

    def __init__(self, source: RowSource, coarse: DPBM, window: SearchWindow, grid: TileGrid, device: torch.device) -> None:
        super().__init__(source, device)
        self.windows = grid
        self.rows = PaddedRows(source, grid, device)
        self.matching = _Matching(source, coarse, window, grid, device)
        self.offsets = torch.zeros(len(grid), source.count, 2)

    @property
    def steps(self) -> int:
        """Rows of tiles."""
        return len(self.windows.rows)

    def estimate(self, step: int) -> None:
        """Match ``step`` rows of tiles at once."""
        columns = len(self.windows.cols)
        for band in bands(self.steps, step):
            self.offsets[band[0] * columns:(band[-1] + 1) * columns] = self.matching.match(band)[2][0].float().cpu()

    def estimation_bytes(self, step: int) -> int:
        """See :class:`Alignment`."""
        return self.matching.bytes(step)

    def band_bytes(self, grid: TileGrid) -> int:
        """See :class:`Alignment`; matches may lie as far away as the search goes."""
        rows = min(grid.size[0] + 2 * self.matching.max_displacement, self.rows.height)
        return (2 * 4 * 8 * self.source.count * rows + self._strip_bytes()) * self.rows.width

    def band(self, grid: TileGrid, row: int) -> Band:
        """See :class:`Alignment`; rows as far as matches of this row of tiles lie."""
        columns = len(grid.cols)
        offsets = self.offsets[row * columns:(row + 1) * columns].long()
        first = grid.rows[row] + int(offsets[..., 0].min())
        last = grid.rows[row] + grid.size[0] + int(offsets[..., 0].max())
        corners = torch.tensor([(grid.rows[row] - first, column) for column in grid.cols], device=self.device)[None]
        return Band(self.rows.read(first, last), corners, offsets[None].to(self.device))


class SmoothAlignment(Alignment):
    """Pixels are moved by a field of motion through the matches of overlapping patches. Not of the paper.

    Args:
        source: the burst.
        coarse: matches the patches.
        window: where to search.
        patch: (side, margin): patches are as large as tiles of that side with that overlap, and half a side apart.
        device: where tensors are made.
    """

    name = 'smooth'
    windows: TileGrid

    def __init__(self, source: RowSource, coarse: DPBM, window: SearchWindow, patch: tuple[int, int],
                 device: torch.device) -> None:
        super().__init__(source, device)
        side, margin = patch
        step = max(side // 2 // SCALE, 1) * SCALE
        overlap = (side + 2 * margin - step) // 2 // SCALE * SCALE
        self.windows = make_grid(*source.size, tile=step, overlap=overlap, multiple=SCALE)
        self.matching = _Matching(source, coarse, window, self.windows, device)
        self.offsets = torch.zeros(len(self.windows), source.count, 2)
        self.field: Optional[MotionField] = None

    @property
    def steps(self) -> int:
        """Rows of patches."""
        return len(self.windows.rows)

    def _refined_size(self) -> tuple[int, int]:
        """The middle of a patch, by which its match is refined: about as large as patches are apart."""
        grid = self.windows
        height, width = (max(starts[1] - starts[0], SCALE) if len(starts) > 1 else size
                         for starts, size in zip((grid.rows, grid.cols), grid.size))
        return height, width

    def estimate(self, step: int) -> None:
        """Match ``step`` rows of patches at once, refine the matches, and replace those that stand alone."""
        grid, reference = self.windows, self.source.ref_idx
        size = self._refined_size()
        inset = torch.tensor([(whole - part) // 2 for whole, part in zip(grid.size, size)], device=self.device)
        found = []
        for rows in bands(self.steps, step):
            raw, corners, offsets = self.matching.match(rows)
            still = _stable(raw[0, reference])
            refined = [torch.zeros_like(offsets[0, :, 0], dtype=torch.float32) if frame == reference else
                       refine_offsets(still, _stable(raw[0, frame]), corners[0] + inset, offsets[0, :, frame], size)
                       for frame in range(self.source.count)]
            found.append(torch.stack(refined).unflatten(1, (len(rows), len(grid.cols))))
            del raw, still  # before the next ones are made
        rows_at, cols_at = (torch.tensor(starts, device=self.device) + whole / 2
                            for starts, whole in zip((grid.rows, grid.cols), grid.size))
        self.field = MotionField(rows_at, cols_at, replace_outliers(torch.cat(found, dim=1), _MAX_MOTION_STEP), _MAX_MOTION_STEP)
        self.offsets[:] = self.field.offsets.flatten(1, 2).transpose(0, 1).cpu()

    def estimation_bytes(self, step: int) -> int:
        """See :class:`Alignment`."""
        return self.matching.bytes(step)

    def _strip_bytes(self) -> int:
        # Motion of a strip with its interpolation, and the rows it is taken from.
        return 300 * STRIP_ROWS + 64 * min(STRIP_ROWS + 2 * self.matching.max_displacement, self.source.size[0])

    def moved(self, frame: int, first: int, last: int) -> Tensor:
        """See :class:`Alignment`; motion is rounded to pixels of the packed raw, and the border repeats beyond the frame."""
        if self.field is None:
            raise RuntimeError('moved() needs the motion that estimate() finds.')
        height, width = self.source.size
        motion = self.field.at(frame, first, last, width).round().long()
        y = (torch.arange(first, last, device=self.device)[:, None] + motion[..., 0]).clamp(0, height - 1)
        x = (torch.arange(width, device=self.device) + motion[..., 1]).clamp(0, width - 1)
        begin, end = int(y.min()), int(y.max()) + 1
        return read_strips(self.source, frame, begin, end, 8, self.device)[:, y - begin, x]


def _stable(raw: Tensor) -> Tensor:
    """[4, H, W] -> [H, W, 4] with noise of about the same strength in bright and dark areas."""
    return raw.clamp(min=0).sqrt_().permute(1, 2, 0)
