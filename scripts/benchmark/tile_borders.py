"""How much of a restored picture depends on where its tiles lie: restore a burst twice, the grid shifted, and compare.

The second time the first rows and columns of every frame are cut off, by half a tile by default, so that all borders of
tiles fall elsewhere. What both pictures hold is compared, but for its margin, which is at the frame's border in one of them.
Blended tiles (the default layout) and the released code's, cut and put side by side, are drawn next to each other.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from common import table

import jddb_plugin  # noqa: F401  (before basicsr, which it mends)
from jddb_plugin.checks import one_line_errors
from jddb_plugin.data.raw_reader import RawFrame
from jddb_plugin.ops.noise import parse_noise
from jddb_plugin.ops.tiling import TileGrid
from jddb_plugin.restoration import Burst, Restored, Restorer, Settings, find_bursts

_BRIGHTEST = 8  # of 255, where the colour scale ends


def shifted(burst: Burst, shift: int) -> Burst:
    """The burst without its first ``shift`` rows and columns."""
    def read(index: int) -> RawFrame:
        frame = burst.read(index)
        return RawFrame(np.ascontiguousarray(frame.mosaic[shift:, shift:]), frame.metadata)

    return Burst(burst.name, burst.where, burst.frames, read, is_video=burst.is_video)


def lines_of(grid: TileGrid) -> tuple[list[int], list[int]]:
    """Rows and columns of the picture where one tile hands over to the next."""
    overlap = [2 * (starts[0] + size - starts[1]) if len(starts) > 1 else 0
               for starts, size in ((grid.rows, grid.size[0]), (grid.cols, grid.size[1]))]
    offset = grid.padding[2], grid.padding[0]
    return tuple([2 * (start - first) + extra // 2 for start in starts[1:]]
                 for starts, extra, first in zip((grid.rows, grid.cols), overlap, offset))


def heat(difference: np.ndarray) -> np.ndarray:
    """Difference [h, w] of 255 -> RGB uint8."""
    grey = (np.clip(difference / _BRIGHTEST, 0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def compare(restorer: Restorer, burst: Burst, shift: int, margin: int) -> tuple[np.ndarray, Restored]:
    """(mean absolute difference over colours [h, w] of 255, the first restoration)."""
    first = restorer.restore(burst)
    second = restorer.restore(shifted(burst, shift))
    a, b = first.picture[shift:, shift:].astype(np.float32), second.picture.astype(np.float32)
    inner = slice(margin, -margin)
    return np.abs(a - b).mean(axis=2)[inner, inner] / 257, first


@one_line_errors
def main() -> int:
    """Print the table, draw the figure; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('input', type=Path, help='folder of a burst, as for python -m jddb_plugin.restore')
    parser.add_argument('--weights', required=True)
    parser.add_argument('--noise', required=True)
    parser.add_argument('--tile', type=int, default=64)
    parser.add_argument('--overlap', type=int, default=16)
    parser.add_argument('--radius', type=int, default=8)
    parser.add_argument('--shift', type=int, help='samples of the mosaic, even; default: the side of a tile')
    parser.add_argument('-o', '--output', type=Path, help='figure to write')
    args = parser.parse_args()
    noise = args.noise if args.noise == 'estimate' else parse_noise(args.noise, '--noise')
    burst = find_bursts(args.input, noise=noise if isinstance(noise, tuple) else None)[0]
    shift = (args.tile if args.shift is None else args.shift) // 2 * 2
    panels, rows = [], []
    for window, name in (('symmetric', 'blended'), ('published', 'side by side')):
        settings = Settings(reference='middle', noise=noise, kind='png16', gain=1.0, tile=args.tile, overlap=args.overlap,
                            radius=args.radius, window=window)
        margin = 4 * args.overlap + 16
        difference, restored = compare(Restorer(args.weights, settings), burst, shift, margin)
        near = np.zeros(restored.picture.shape[:2], bool)
        for axis, lines in enumerate(lines_of(restored.stream.grid)):
            for line in lines:
                near[(slice(None),) * axis + (slice(line - 2, line + 2),)] = True
        near = near[shift:, shift:][margin:-margin, margin:-margin]
        rows.append([name, f'{difference.mean():.3f}', f'{difference[near].mean():.3f}', f'{np.quantile(difference, 0.99):.2f}',
                     f'{difference.max():.1f}'])
        panels.append(heat(difference))
    sys.stdout.write(f'tile {args.tile}, overlap {args.overlap}, shift {shift} samples; differences of 255\n')
    sys.stdout.write(table(['tiles', 'mean', 'within 2 px of a border', '99 %', 'largest'], rows))
    if args.output is not None:
        gap = np.full((panels[0].shape[0], 8, 3), 255, np.uint8)
        figure = np.concatenate((panels[0], gap, panels[1]), axis=1)
        cv2.imwrite(str(args.output), cv2.cvtColor(figure, cv2.COLOR_RGB2BGR))
    return 0


if __name__ == '__main__':
    sys.exit(main())
