"""How much of a restored picture depends on where its tiles lie: restore a burst twice, the grid shifted, and compare.

The second time either all borders of tiles lie half a tile further down and to the right; or the first rows and columns of every
frame are cut off, which moves the windows that a field of motion is made of, too: by half of their distance. What both pictures
hold is compared, but for its margin, which is at the frame's border in one of them.
"""
from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
import torch
from common import table

import jddb_plugin  # noqa: F401  (before basicsr, which it patches)
from jddb_plugin.checks import one_line_errors
from jddb_plugin.data.raw_reader import RawFrame
from jddb_plugin.inference.align import TileAlignment
from jddb_plugin.inference.engine import TiledInference, make_alignment
from jddb_plugin.inference.memory import available_memory, make_plan
from jddb_plugin.inference.tiling import TilingOptions
from jddb_plugin.noise_option import parse_noise
from jddb_plugin.ops.block_matching import SearchWindow
from jddb_plugin.ops.tiling import TileGrid
from jddb_plugin.restoration import Burst, find_bursts
from jddb_plugin.restoration.frames import load_frames
from jddb_plugin.restoration.source import FramesSource
from jddb_plugin.weights import load_weights

_BRIGHTEST = 8  # of 255, where the color scale ends
_BORDER = 2  # pixels on each side of a line that count as near it


def cropped(burst: Burst, first: int) -> Burst:
    """The burst without its first rows and columns of samples."""
    def read(index: int) -> RawFrame:
        frame = burst.read(index)
        return RawFrame(np.ascontiguousarray(frame.mosaic[first:, first:]), frame.metadata)

    return Burst(burst.name, burst.where, burst.frames, read, is_video=burst.is_video)


def near_borders(grid: TileGrid) -> np.ndarray:
    """Pixels [2 H, 2 W] of the picture where one tile hands over to the next, in the middle of what both cover."""
    near = np.zeros([2 * side for side in grid.frame], bool)
    offset = grid.padding[2], grid.padding[0]
    for axis, starts in enumerate((grid.rows, grid.cols)):
        for before, after in zip(starts, starts[1:]):
            line = before + grid.size[axis] + after - 2 * offset[axis]
            near[(slice(None),) * axis + (slice(max(line - _BORDER, 0), line + _BORDER),)] = True
    return near


def heat(difference: np.ndarray) -> np.ndarray:
    """Difference [h, w] of 255 -> RGB uint8."""
    gray = (np.clip(difference / _BRIGHTEST, 0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(gray, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


class Comparison:
    """Restores a burst with shifted grids."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.noise = parse_noise(args.noise, 'estimate')
        self.burst = find_bursts(args.input, noise=self.noise if isinstance(self.noise, tuple) else None)[0]
        self.shift = (args.tile if args.shift is None else args.shift) // 8 * 8

    def restore(self, *, smooth: bool = False, released: bool = False, move: bool = False,
                crop: int = 0) -> tuple[np.ndarray, TileGrid]:
        """(sRGB [H, W, 3] in 0 .. 255, the tiles)."""
        args = self.args
        burst = cropped(self.burst, crop) if crop else self.burst
        frames = load_frames(burst, reference='middle', count=min(5, len(burst.frames)), noise=self.noise)
        window = 'released' if released else 'symmetric'
        net = load_weights(args.weights, coarse=args.coarse)
        net.refine.to(memory_format=torch.channels_last)
        source = FramesSource(frames)
        tiling = TilingOptions(args.tile, args.overlap, 'released' if released else 'inside')
        alignment = make_alignment(net, source, 'smooth' if smooth else 'tiles', tiling, SearchWindow(args.radius, 2, window))
        plan = make_plan(net, alignment, tiling, free=available_memory() // 2, where=str(args.input))
        if move:
            plan = replace(plan, grid=plan.grid.shifted(self.shift // 2), step=1)
            if not smooth:
                alignment = TileAlignment(source, net.coarse, alignment.matching.window, plan.grid, alignment.device)
        grid = plan.grid
        stream = TiledInference(net, alignment, plan)
        camera = frames.reference.camera()
        rows = [camera.develop(linear.clone(), tone_curve=True).permute(1, 2, 0).numpy() * 255 for _, linear in stream]
        return np.concatenate(rows), grid

    def differ(self, *, crop: int, **how: bool) -> tuple[np.ndarray, np.ndarray]:
        """(mean absolute difference over colors of 255, where borders of the first restoration's tiles are), [h, w] each."""
        first, grid = self.restore(**how)
        second, _ = self.restore(**how, crop=crop, move=not crop)
        difference = np.abs(first[crop:, crop:] - second).mean(axis=2)
        before, after = self.shift * (not crop) + 4 * self.args.overlap + 16, 4 * self.args.overlap + 16
        inner = slice(before, -after), slice(before, -after)
        return difference[inner], near_borders(grid)[crop:, crop:][inner]


@one_line_errors
def main(arguments: Optional[list[str]] = None) -> int:
    """Print the table, draw the figure; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('input', type=Path, help='folder of a burst, as for jddb restore')
    parser.add_argument('--weights', required=True)
    parser.add_argument('--noise', required=True)
    parser.add_argument('--coarse', help='as for jddb restore')
    parser.add_argument('--tile', type=int, default=64)
    parser.add_argument('--overlap', type=int, default=16)
    parser.add_argument('--radius', type=int, default=8)
    parser.add_argument('--shift', type=int, help='samples of the mosaic, a multiple of 8; default: the side of a tile, which is '
                                                  'half a tile of packed raw')
    parser.add_argument('-o', '--output', type=Path, help='figure to write: the first, third and last row')
    args = parser.parse_args(arguments)
    comparison = Comparison(args)
    whole, half = comparison.shift, max(comparison.shift // 16, 1) * 8
    cases = (('smooth', 'tiles', {'smooth': True}, 0), ('smooth', 'tiles and matched windows', {'smooth': True}, half),
             ('tiles', 'tiles', {}, 0), ('tiles, released', 'tiles', {'released': True}, whole))
    panels, rows = [], []
    for name, what, how, crop in cases:
        difference, near = comparison.differ(crop=crop, **how)
        rows.append([name, what, f'{difference.mean():.3f}', f'{difference[near].mean():.3f}',
                     f'{np.quantile(difference, 0.99):.2f}', f'{difference.max():.1f}'])
        if name != 'smooth' or not crop:
            panels.append(heat(difference))
    sys.stdout.write(f'tile {args.tile}, overlap {args.overlap}, shift {comparison.shift} samples; differences of 255\n')
    sys.stdout.write(table(['alignment', 'moved', 'mean', f'within {_BORDER} px of a border', '99 %', 'largest'], rows))
    if args.output is not None:
        height, width = (min(panel.shape[axis] for panel in panels) for axis in (0, 1))
        gap = np.full((height, 8, 3), 255, np.uint8)
        figure = np.concatenate([part for panel in panels for part in (panel[-height:, -width:], gap)][:-1], axis=1)
        cv2.imwrite(str(args.output), cv2.cvtColor(figure, cv2.COLOR_RGB2BGR))
    return 0


if __name__ == '__main__':
    sys.exit(main())
