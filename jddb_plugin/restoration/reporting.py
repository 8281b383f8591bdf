"""The entry of a burst on the report page: previews, a detail at full size, the matching, and facts."""
from __future__ import annotations

from typing import NamedTuple, Optional

import cv2
import numpy as np
import torch
from torch import Tensor

from jddb_plugin.inference.align import SmoothAlignment, TileAlignment
from jddb_plugin.inference.memory import peak_memory
from jddb_plugin.ops.cfa import TURNS, orient
from jddb_plugin.restoration.developing import auto_exposure, develop_srgb, noisy_rows
from jddb_plugin.restoration.exif import exif_summary
from jddb_plugin.restoration.frames import Frames
from jddb_plugin.restoration.restorer import Restored
from jddb_plugin.restoration.settings import Settings
from jddb_plugin.visual.matching import draw_offsets
from jddb_plugin.visual.report import BurstReport

_PREVIEW = 1600
_DETAIL = 480
_STRIP = 64


class Preview:
    """A picture scaled down by a whole number, and a part of it at full size, collected from rows as they are finished.

    Args:
        frames: the burst; rows are those of its cropped mosaic.
        gain: brightness.
        detail: (top, left) of the part.
    """

    def __init__(self, frames: Frames, gain: float, detail: tuple[int, int]) -> None:
        self.frames, self.gain = frames, gain
        height, width = (2 * side for side in frames.packed_size)
        self.factor = max(1, -(-max(height, width) // _PREVIEW))
        self.sums = np.zeros((-(-height // self.factor), -(-width // self.factor), 3), np.float32)
        self.counts = np.zeros((self.sums.shape[0], 1, 1), np.float32)
        side = min(_DETAIL, height, width)
        self.corner = max(0, min(detail[0], height - side)), max(0, min(detail[1], width - side))
        self.detail = np.zeros((side, side, 3), np.uint8)

    def __call__(self, first: int, linear: Tensor) -> None:
        """Take rows ``first``, ... of linear camera RGB [3, rows, W]."""
        for start in range(0, linear.shape[1], _STRIP):
            self._take(first + start, develop_srgb(self.frames, self.gain, linear[:, start:start + _STRIP]))

    def _take(self, first: int, rows: np.ndarray) -> None:
        width = rows.shape[1]
        starts = np.arange(0, width, self.factor)
        columns = np.add.reduceat(rows.astype(np.float32), starts, axis=1)
        columns /= np.diff(np.append(starts, width)).astype(np.float32)[None, :, None]
        lines = (first + np.arange(len(rows))) // self.factor
        np.add.at(self.sums, lines, columns)
        np.add.at(self.counts, lines, 1)
        top, left = self.corner
        side = len(self.detail)
        low, high = max(first, top), min(first + len(rows), top + side)
        if low < high:
            self.detail[low - top:high - top] = rows[low - first:high - first, left:left + side]

    @property
    def picture(self) -> np.ndarray:
        """RGB uint8 [h, w, 3]."""
        return np.rint(self.sums / np.maximum(self.counts, 1)).astype(np.uint8)


class _Pictures(NamedTuple):
    before: Preview
    after: Preview
    reference: np.ndarray  # preview of the noisy reference, for the figure of the matching


class Reporter:
    """A :class:`jddb_plugin.restoration.restorer.Watcher` that collects the pictures of one burst for the report."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._pictures: Optional[_Pictures] = None

    def start(self, frames: Frames, gain: float) -> None:
        """Make the pictures of the noisy reference, before the frames are restored and closed."""
        if self.settings.format.startswith('linear'):
            gain = auto_exposure(frames)  # the file has no brightness gain, but the page is looked at
        first = Preview(frames, gain, (0, 0))
        _show_noisy(first)
        corner = _most_structure(first)
        self._pictures = _Pictures(Preview(frames, gain, corner), Preview(frames, gain, corner), first.picture)
        _show_noisy(self._pictures.before)

    def watch(self, first: int, linear: Tensor) -> None:
        """Take finished rows."""
        self._started().after(first, linear)

    def _started(self) -> _Pictures:
        if self._pictures is None:
            raise ValueError('the reporter has not seen a burst; pass it to Restorer.restore as watch')
        return self._pictures

    def report(self, name: str, result: Restored, where: str) -> BurstReport:
        """The burst's entry on the page."""
        before, after, reference = self._started()
        frames = result.frames
        orientation = frames.reference.orientation
        alignment = result.inference.alignment
        matching = None
        if alignment.windows is not None:
            matching = draw_offsets(reference, alignment.windows, alignment.offsets.numpy(), frames.ref_idx, frames.names)
        return BurstReport(name, _upright(before.picture, orientation), _upright(after.picture, orientation),
                           _upright(before.detail, orientation), _upright(after.detail, orientation), matching,
                           _facts(frames, result, self.settings, where))


def _show_noisy(preview: Preview) -> None:
    for first in range(0, preview.frames.packed_size[0], _STRIP):
        last = min(first + _STRIP, preview.frames.packed_size[0])
        preview(2 * first, noisy_rows(preview.frames, first, last))


def _most_structure(preview: Preview) -> tuple[int, int]:
    """Corner of the part with most structure, in pixels of the full size."""
    gray = cv2.GaussianBlur(cv2.cvtColor(preview.picture, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 2)
    slope = np.abs(cv2.Sobel(gray, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    side = max(1, _DETAIL // preview.factor)
    # Sums over windows. Zeros beyond the border, so that repeated pixels do not count.
    total = cv2.boxFilter(slope, -1, (min(side, gray.shape[1]), min(side, gray.shape[0])), normalize=False,
                          anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    y, x = np.unravel_index(int(total.argmax()), total.shape)
    return int(y) * preview.factor, int(x) * preview.factor


def _upright(picture: np.ndarray, orientation: int) -> np.ndarray:
    if TURNS[orientation] == TURNS[1]:
        return picture
    return np.ascontiguousarray(orient(torch.from_numpy(picture).permute(2, 0, 1), orientation).permute(1, 2, 0).numpy())


def _facts(frames: Frames, result: Restored, settings: Settings, where: str) -> dict[str, dict[str, str]]:
    inference = result.inference
    net, alignment, plan = inference.net, inference.alignment, inference.plan
    shot, read = (level.tolist() for level in frames.noise.at(frames.ref_idx))
    metadata = frames.reference
    burst = {'Source': where, 'Frames': f'{len(frames.names)} of {frames.size[1]} x {frames.size[0]}, {metadata.cfa}',
             'Reference': f'{frames.names[frames.ref_idx]} (number {frames.ref_idx} of those used)'}
    if frames.sharpness:
        burst['Sharpness'] = ', '.join(f'{value:.2f}' for value in frames.sharpness)
    black, white = (', '.join(f'{value:g}' for value in level) for level in (metadata.black_level, metadata.white_level))
    levels = {'White balance': ', '.join(f'{value:.3f}' for value in metadata.white_balance), 'Black': black, 'White': white,
              'Brightness': f'{result.gain:.2f} x'}
    source = settings.noise if isinstance(settings.noise, str) else 'given'
    network = {**net.facts(), 'Alignment': alignment.name}
    if isinstance(alignment, (TileAlignment, SmoothAlignment)) and alignment.windows is not None:
        window, coarse = alignment.matching.window, alignment.matching.coarse
        size = alignment.windows.size
        network['Block matching'] = (
            f'{"bicubic" if coarse.downsample is None else "learned"} features, {size[1]} x {size[0]} px of packed raw, radius '
            f'{window.radius} x 4 px, window {window.kind}')
    held = peak_memory()
    memory = {} if held is None else {'Peak memory of the process so far': f'{held >> 20} MB'}
    return {
        'Burst': burst,
        'Noise': {'Known from': source, 'Shot (R, Gr, Gb, B)': ', '.join(f'{value:.3g}' for value in shot),
                  'Read (R, Gr, Gb, B)': ', '.join(f'{value:.3g}' for value in read)},
        'Camera': {**exif_summary(result.exif), **levels},
        'Network': {**network, 'Tiles': f'{len(plan.grid)} of {plan.grid.size[1]} x {plan.grid.size[0]} px of packed raw',
                    'Device': f'{inference.device}, {inference.precision}'},
        'Time and memory': {**{part.capitalize(): f'{value:.1f} s' for part, value in result.seconds.items()},
                            'Tiles at once': str(plan.tile_batch),
                            **memory},
    }
