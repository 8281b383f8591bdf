"""What the report page shows of a burst: previews, a detail at full size, where the tiles were found, and facts."""
from __future__ import annotations

from typing import Optional

import cv2
import numpy as np
import torch
from torch import Tensor

from jddb_plugin.inference.memory import peak_memory
from jddb_plugin.ops.cfa import TURNS, orient
from jddb_plugin.restoration.developing import auto_exposure, develop_srgb, noisy_rows
from jddb_plugin.restoration.exif import facts
from jddb_plugin.restoration.frames import Frames
from jddb_plugin.restoration.restorer import Restored
from jddb_plugin.restoration.settings import Settings
from jddb_plugin.visual.matching import draw_offsets
from jddb_plugin.visual.report import BurstReport

_PREVIEW = 1600
_DETAIL = 480
_STRIP = 64


class Preview:
    """A picture scaled down by a whole number, and a part of it at full size, made of rows as they come.

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
        self.corner = tuple(max(0, min(start, full - side)) for start, full in zip(detail, (height, width)))
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


class Reporter:
    """Watches the restoration of one burst; give its :meth:`watch` to the restorer."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.before: Optional[Preview] = None
        self.after: Optional[Preview] = None

    def start(self, frames: Frames, gain: float) -> None:
        """Make the pictures of the noisy reference, before the frames are restored and closed."""
        if self.settings.format.startswith('linear'):
            gain = auto_exposure(frames)  # the file has no brightness gain, but the page is looked at
        first = Preview(frames, gain, (0, 0))
        _show_noisy(first)
        self.before, self.after = (Preview(frames, gain, _interesting(first)) for _ in range(2))
        _show_noisy(self.before)
        self._matching = first.picture

    def watch(self, first: int, linear: Tensor) -> None:
        """Take finished rows."""
        self.after(first, linear)

    def report(self, name: str, result: Restored, where: str) -> BurstReport:
        """What the page shows."""
        frames = result.frames
        orientation = frames.reference.orientation
        alignment = result.inference.alignment
        matching = None
        if alignment.windows is not None:
            matching = draw_offsets(self._matching, alignment.windows, alignment.offsets.numpy(), frames.ref_idx, frames.names)
        pictures = (_upright(picture, orientation) for picture in (
            self.before.picture, self.after.picture, self.before.detail, self.after.detail))
        return BurstReport(name, *pictures, matching, _facts(frames, result, self.settings, where))


def _show_noisy(preview: Preview) -> None:
    for first in range(0, preview.frames.packed_size[0], _STRIP):
        last = min(first + _STRIP, preview.frames.packed_size[0])
        preview(2 * first, noisy_rows(preview.frames, first, last))


def _interesting(preview: Preview) -> tuple[int, int]:
    """Corner of the part with most structure, in pixels of the full size."""
    grey = cv2.GaussianBlur(cv2.cvtColor(preview.picture, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 2)
    slope = np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    side = max(1, _DETAIL // preview.factor)
    # A sum over windows; the border is not to win by being repeated.
    total = cv2.boxFilter(slope, -1, (min(side, grey.shape[1]), min(side, grey.shape[0])), normalize=False,
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
    shot, read = (level[frames.ref_idx].tolist() for level in frames.noise)
    camera = frames.reference
    burst = {'Source': where, 'Frames': f'{len(frames.names)} of {frames.size[1]} x {frames.size[0]}, {camera.cfa}',
             'Reference': f'{frames.names[frames.ref_idx]} (number {frames.ref_idx} of those used)'}
    if frames.sharpness:
        burst['Sharpness'] = ', '.join(f'{value:.2f}' for value in frames.sharpness)
    black, white = (', '.join(f'{value:g}' for value in level) for level in (camera.black_level, camera.white_level))
    levels = {'White balance': ', '.join(f'{value:.3f}' for value in camera.white_balance), 'Black': black, 'White': white,
              'Brightness': f'{result.gain:.2f} x'}
    source = settings.noise if isinstance(settings.noise, str) else 'given'
    network = {**net.facts(), 'Alignment': alignment.name}
    if alignment.windows is not None:
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
        'Camera': {**facts(result.exif), **levels},
        'Network': {**network, 'Tiles': f'{len(plan.grid)} of {plan.grid.size[1]} x {plan.grid.size[0]} px of packed raw',
                    'Device': f'{inference.device}, {settings.precision}'},
        'Time and memory': {**{part.capitalize(): f'{value:.1f} s' for part, value in result.seconds.items()},
                            'Tiles at once': str(plan.tile_batch),
                            **memory},
    }
