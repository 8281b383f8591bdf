"""Alignment by optical flow of the whole frames."""
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from jddb_plugin.inference.align import Alignment
from jddb_plugin.inference.source import STRIP_ROWS, RowSource, read_strips
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.ops.optical_flow import (
    FLOW_REACH,
    SHRINK,
    PatchMotion,
    farthest_motion,
    gray_bytes,
    gray_images,
    match_patches,
    patch_bytes,
    refine_motion,
    shrink,
)
from jddb_plugin.ops.stabilization import Stabilizer
from jddb_plugin.ops.warping import cells_needed, warp_bytes, warp_mosaic

#: Motion is kept as 16-bit integers, in multiples of 1 / 32 pixel, or of larger parts where it may be too large for that.
_FRACTIONS = 32
_LARGEST = 2 ** 15 - 1
#: Bytes per pixel that the flow of one frame takes while it is computed: 220 within OpenCV 4, as measured, and in- and outputs.
_FLOW_BYTES = 280
#: What OpenCV keeps for itself: code that is loaded when it is first called, buffers of its threads.
_LIBRARY_BYTES = 64 << 20
#: Rows above and below, beyond what its patches moved, that the flow of a strip is computed with.
_MARGIN = 2 * FLOW_REACH


def parts_of_rows(height: int, most: int, dy: Tensor) -> list[tuple[range, range]]:
    """Equal parts of a frame: their rows, and the at most ``most`` rows that their flow is computed with.

    Args:
        height: of the frame.
        most: above :data:`_MARGIN` and what ``dy`` spans.
        dy: how far its patches moved down.
    """
    above = math.ceil(max(-float(dy.min()), 0)) + _MARGIN
    below = math.ceil(max(float(dy.max()), 0)) + _MARGIN
    count = 1 if most >= height else -(-height // (most - above - below))
    edges = [height * k // count for k in range(count + 1)]
    return [(range(first, last), range(max(first - above, 0), min(last + below, height)))
            for first, last in zip(edges, edges[1:])]


class FlowAlignment(Alignment):
    """Frames are interpolated at the places that optical flow says the reference's samples moved to.

    Noise and motion are estimated once, on the whole frames at the resolution of the packed raw. Gray images take one byte per
    pixel and frame, motion four.

    Args:
        source: the burst.
        device: where tensors are made.
    """

    name = 'flow'
    on_host = True

    def __init__(self, source: RowSource, device: torch.device) -> None:
        super().__init__(source, device)
        self.max_displacement = farthest_motion(source.count, source.ref_idx)
        self._fractions = max(1, min(_FRACTIONS, _LARGEST // self.max_displacement))
        self._motion: dict[int, np.ndarray] = {}

    @property
    def steps(self) -> int:
        """Strips of rows of a frame."""
        return -(-self.source.size[0] // STRIP_ROWS)

    def _rows_at_once(self, step: int) -> int:
        """Rows that the flow of ``step`` strips is computed with, however far the frames moved."""
        return step * STRIP_ROWS + 2 * (self.max_displacement - FLOW_REACH + _MARGIN)

    def estimate(self, step: int) -> None:
        """Estimate the motion, of at least ``step`` strips at once: of more where the frames moved less than they could."""
        source = self.source
        height, width = source.size
        shot, read_squared = (level.to(self.device) for level in source.noise_levels())
        self._noise = NoiseModel(shot, read_squared.sqrt())
        stabilizer = Stabilizer.from_levels(shot, read_squared)
        images = np.empty((source.count, height, width), np.uint8)
        small = []
        for frame in range(source.count):
            strips = []
            for first in range(0, height, STRIP_ROWS):
                raw = source.read(frame, first, min(first + STRIP_ROWS, height), 4)
                gray = gray_images(raw[None].to(self.device), stabilizer)
                images[frame, first:first + STRIP_ROWS] = gray_bytes(gray)[0]
                if gray.shape[1] >= SHRINK:
                    strips.append(shrink(gray))
            small.append(torch.cat(strips, dim=1) if strips else torch.zeros(1, 0, 0, device=self.device))
        patches = match_patches(torch.cat(small), source.ref_idx)
        for frame in range(source.count):
            if frame == source.ref_idx:
                continue
            self._motion[frame] = np.empty((height, width, 2), np.int16)
            for kept, used in parts_of_rows(height, self._rows_at_once(step), patches.offsets[frame, ..., 0]):
                self._keep_flow(images, patches, frame, kept, used)

    def _keep_flow(self, images: np.ndarray, patches: PatchMotion, frame: int, kept: range, used: range) -> None:
        """Keep the motion of the rows ``kept`` of a frame, in fractions of a pixel; it is computed with the rows ``used``."""
        reference, image = (images[index, used.start:used.stop] for index in (self.source.ref_idx, frame))
        seed = patches.at(frame, used.start, used.stop, self.source.size[1]).float().cpu().numpy()
        found = refine_motion(reference, image, seed)[kept.start - used.start:kept.stop - used.start]
        farthest = min(self.max_displacement, _LARGEST // self._fractions)
        found = found.clip(-farthest, farthest) * self._fractions
        np.rint(found, out=self._motion[frame][kept.start:kept.stop], casting='unsafe')

    def estimation_bytes(self, step: int) -> int:
        """See :class:`Alignment`. The flow is computed by the CPU, wherever the network runs."""
        height, width = self.source.size
        images = width * height * self.source.count
        matching = int(width * height * patch_bytes(self.source.count)) + 200 * STRIP_ROWS * width
        flow = min(self._rows_at_once(step), height) * width * _FLOW_BYTES
        return images + max(matching + _LIBRARY_BYTES, flow + self.held_bytes())

    def held_bytes(self) -> int:
        """See :class:`Alignment`."""
        height, width = self.source.size
        return 4 * (self.source.count - 1) * height * width + _LIBRARY_BYTES

    def _strip_bytes(self) -> int:
        # Motion of a strip and what it becomes, the rows it is taken from, and a piece of them with all colors.
        height, width = self.source.size
        rows = min(STRIP_ROWS + 2 * self.max_displacement, height)
        return 200 * STRIP_ROWS + 32 * rows + -(-warp_bytes(rows * width) // width)

    def motion(self, frame: int, first: int, last: int) -> Tensor:
        """Motion (dy, dx) of rows ``first`` to ``last - 1`` in pixels of the packed raw, [rows, W, 2]."""
        if frame == self.source.ref_idx:
            return torch.zeros(last - first, self.source.size[1], 2, device=self.device)
        return torch.from_numpy(self._motion[frame][first:last]).to(self.device).float() / self._fractions

    def moved(self, frame: int, first: int, last: int) -> Tensor:
        """See :class:`Alignment`."""
        if frame == self.source.ref_idx:
            return self.source.read(frame, first, last)
        motion = 2 * self.motion(frame, first, last)
        rows = cells_needed(first, last - first, motion[..., 0], self.source.size[0])
        raw = read_strips(self.source, frame, rows.start, rows.stop, 4, self.device)
        return self._noise.with_map(warp_mosaic(raw, motion, (first - rows.start, 0)))
