"""Time and memory of block matching, against a plain loop over tiles and candidates.

python scripts/benchmark/block_matching.py --json results/benchmark/block_matching.json

Both find the same offsets, which is checked. The loop is what one writes first, and takes minutes at UHD; --no-loop
leaves it out. "scaling" shows how cost grows with tiles, frames and candidates; "soft" is a training step's matching
and blending, forward and backward.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Optional

import torch
import torch.nn.functional as F
from common import machine, megabytes, peak_bytes, seconds, table, write_json
from torch import Tensor
from tqdm import tqdm

from jddb_plugin.archs.dpbm_arch import DPBM, SCALE
from jddb_plugin.ops.block_matching import SearchWindow, match_tiles
from jddb_plugin.ops.tiling import make_grid

#: Packed frame, tile, overlap and radius of the paper's tests on REDS4 and on 4K videos.
CASES = {'720p': (360, 640, 64, 4, 6), 'uhd': (1080, 1920, 128, 16, 16)}


def moving_scene(frames: int, height: int, width: int, *, speed: tuple[int, int] = (6, -10)) -> Tensor:
    """[1, frames, 4, height, width]: a random texture of several scales that moves steadily, with noise."""
    room = (frames - 1) * max(abs(speed[0]), abs(speed[1])) + 8
    size = (height + room, width + room)
    scene = sum(F.interpolate(torch.rand(1, 4, size[0] // s + 2, size[1] // s + 2), size=size, mode='bicubic') / 4
                for s in (2, 5, 13, 40))
    views = []
    for t in range(frames):
        y = (t if speed[0] > 0 else t - frames + 1) * speed[0]
        x = (t if speed[1] > 0 else t - frames + 1) * speed[1]
        views.append(scene[..., y:y + height, x:x + width])
    clean = torch.stack(views, dim=1)
    return (clean + 0.02 * torch.randn_like(clean)).clamp(0, 1)


def plain_loop(features: Tensor, positions: Tensor, size: tuple[int, int], ref_idx: int, window: SearchWindow) -> Tensor:
    """Offsets [T, N, 2] of one burst's features [N, C, h, w], one candidate at a time."""
    height, width = features.shape[-2:]
    offsets = torch.zeros(len(positions), len(features), 2, dtype=torch.int64)
    for t, (py, px) in enumerate(tqdm(positions.tolist(), desc='plain loop', leave=False)):
        tile = features[ref_idx, :, py:py + size[0], px:px + size[1]]
        for direction in (-1, 1):
            cy, cx = py, px
            frame = ref_idx + direction
            while 0 <= frame < len(features):
                for first, last, step in (window.coarse, window.fine):
                    best, found = None, (cy, cx)
                    for y in range(cy + first, cy + last + 1, step):
                        for x in range(cx + first, cx + last + 1, step):
                            if y < 0 or x < 0 or y + size[0] > height - window.margin or x + size[1] > width - window.margin:
                                continue
                            cost = float((features[frame, :, y:y + size[0], x:x + size[1]] - tile).abs().mean())
                            if best is None or cost < best:
                                best, found = cost, (y, x)
                    cy, cx = found
                offsets[t, frame] = torch.tensor([cy - py, cx - px])
                frame += direction
    return offsets


def hard(case: str, device: torch.device, *, repeats: int, loop: bool) -> dict[str, Any]:
    """Hard matching of a burst of five frames."""
    height, width, tile, overlap, radius = CASES[case]
    net = DPBM(radius=radius).to(device).eval()
    grid = make_grid(height, width, tile=tile, overlap=overlap, multiple=SCALE)
    burst = grid.pad(moving_scene(5, height, width)).to(device)
    positions = grid.positions(device)[None]
    size = (grid.size[0] // SCALE, grid.size[1] // SCALE)
    with torch.no_grad():
        whole = seconds(lambda: net.match(burst, positions, grid.size), device, repeats=repeats)
        features = net.extract(burst)
        options = dict(ref_idx=2, window=net.window)
        alone = seconds(lambda: match_tiles(features, positions // SCALE, size, **options), device, repeats=repeats)
        peak = peak_bytes(lambda: net.match(burst, positions, grid.size), device)
        result = {'case': case, 'tiles': len(grid), 'seconds': whole[0], 'seconds_median': whole[len(whole) // 2],
                  'seconds_matching': alone[0], 'peak_bytes': peak}
        if loop:
            found = []
            given = positions[0] // SCALE
            result['loop_seconds_matching'] = seconds(
                lambda: found.append(plain_loop(features[0], given, size, 2, net.window)), device, repeats=1, warmup=0)[0]
            ours = match_tiles(features, positions // SCALE, size, **options).offset[0].cpu()
            result['equal_offsets'] = float((found[0] == ours).all(dim=-1).float().mean())
            result['ratio_matching'] = result['loop_seconds_matching'] / alone[0]
    return result


def scaling(device: torch.device, *, repeats: int) -> list[dict[str, Any]]:
    """Seconds of matching alone as one quantity grows, the others standing still."""
    rows = []
    for name, values in (('tiles', (15, 30, 60)), ('frames', (3, 5, 9)), ('radius', (4, 8, 16))):
        for value in values:
            setting = {'tiles': 60, 'frames': 5, 'radius': 6, name: value}
            features = torch.rand(1, setting['frames'], 16, 90, 160, device=device)
            corners = torch.stack((torch.randint(0, 90 - 18, (60,)), torch.randint(0, 160 - 18, (60,))), dim=-1)
            positions = corners[None, :setting['tiles']].to(device)
            window = SearchWindow(setting['radius'], 2)
            first, last, step = window.coarse
            candidates = ((last - first) // step + 1) ** 2 + 25
            time = seconds(lambda: match_tiles(features, positions, (18, 18), ref_idx=0, window=window),  # noqa: B023
                           device, repeats=repeats)[0]
            work = setting['tiles'] * (setting['frames'] - 1) * candidates
            rows.append({'grows': name, 'value': value, 'candidates_in_all': work, 'seconds': time,
                         'microseconds_per_candidate': time / work * 1e6})
    return rows


def soft(device: torch.device, *, repeats: int) -> dict[str, Any]:
    """A training step's matching and blending: the paper's batch of 4, one 64 x 64 tile each, radius 8, 8 planes."""
    net = DPBM(radius=8).to(device).train()
    burst = torch.cat([moving_scene(5, 192, 192) for _ in range(4)])
    burst = torch.cat((burst, torch.full_like(burst, 0.1)), dim=2).to(device)
    positions = torch.full((4, 1, 2), 64, device=device)

    def step() -> None:
        tiles = net.align(burst, positions, (64, 64), net.match(burst, positions, (64, 64)))
        tiles.square().mean().backward()
        net.zero_grad(set_to_none=True)

    times = seconds(step, device, repeats=repeats)
    stack = 4 * 4 * 25 * 8 * 64 * 64 * 4
    return {'seconds': times[0], 'peak_bytes': peak_bytes(step, device), 'stack_of_candidates_bytes': stack}


def report(device: torch.device, cases: list[str], *, repeats: int, loop: bool) -> dict[str, Any]:
    """Run everything on one device and print its tables."""
    rows = [hard(case, device, repeats=repeats, loop=loop) for case in cases]
    sys.stdout.write(f'\nHard matching on {device}, 5 frames\n\n' + table(
        ['case', 'tiles', 'with features', 'median', 'matching alone', 'plain loop', 'ratio', 'equal offsets', 'peak memory'],
        [[row['case'], row['tiles'], f"{row['seconds']:.3f} s", f"{row['seconds_median']:.3f} s",
          f"{row['seconds_matching']:.3f} s", f"{row['loop_seconds_matching']:.2f} s" if loop else '-',
          f"{row['ratio_matching']:.0f}" if loop else '-', f"{row['equal_offsets']:.2%}" if loop else '-',
          megabytes(row['peak_bytes'])] for row in rows]))
    grown = scaling(device, repeats=repeats)
    sys.stdout.write('\nScaling of hard matching: 18 x 18 feature px, 16 features\n\n' + table(
        ['grows', 'value', 'candidates', 'seconds', 'us per candidate'],
        [[row['grows'], row['value'], row['candidates_in_all'], f"{row['seconds']:.4f}",
          f"{row['microseconds_per_candidate']:.2f}"] for row in grown]))
    trained = soft(device, repeats=repeats)
    sys.stdout.write(f"\nSoft matching and blending, forward and backward, batch 4: {trained['seconds']:.3f} s, peak "
                     f"{megabytes(trained['peak_bytes'])} (a stack of the candidates alone would take "
                     f"{megabytes(trained['stack_of_candidates_bytes'])})\n")
    return {'machine': machine(device), 'device': str(device), 'hard': rows, 'scaling': grown, 'soft': trained}


def main(arguments: Optional[list[str]] = None) -> int:
    """Run the benchmark; returns the exit status: 1 if loop and ours disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--devices', nargs='+', default=['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu'])
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--no-loop', action='store_true', help='leave out the plain loop')
    parser.add_argument('--json', type=Path, metavar='FILE')
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    reports = [report(torch.device(name), args.cases, repeats=args.repeats, loop=not args.no_loop) for name in args.devices]
    write_json(args.json, reports)
    # A tie in float32 may go either way; anything more is a mistake.
    return 0 if all(row.get('equal_offsets', 1) > 0.995 for entry in reports for row in entry['hard']) else 1


if __name__ == '__main__':
    sys.exit(main())
