"""What a network takes from the frames beside the reference: PSNR of bursts, and of the same reference five times.

python scripts/benchmark/fusion.py CHECKPOINT... --photographs FOLDER [--coarse none] [--align tiles] [--scenes 3]

Photographs of 256 x 256 px at high noise, static and panning by 60 px a frame. The frames of a static burst are aligned as well
as can be: what five of them gain is what the network has learned of fusion. What they gain on a far burst is what its alignment
leaves of that. A network trained for a short time may have learned neither.
"""
from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from quality import score
from quality_scenes import Scene, photograph_scenes
from tqdm import tqdm

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.checks import one_line_errors
from jddb_plugin.inference.engine import ALIGNMENTS, restore_frame
from jddb_plugin.ops import TEST_LEVELS
from jddb_plugin.weights import load_weights

SIZE, FRAMES = (256, 256), 5


def mean_psnr(net: BurstNetwork, scenes: list[Scene], align: Optional[str], *, repeated: bool) -> float:
    """Mean PSNR; ``repeated`` puts the reference in the place of every frame."""
    found = []
    for scene in scenes:
        lq = scene.lq[:, FRAMES // 2:FRAMES // 2 + 1].expand(-1, FRAMES, -1, -1, -1) if repeated else scene.lq
        with torch.inference_mode():
            found.append(score(scene, restore_frame(net, lq, FRAMES // 2, align=align)[0])[0])
    return float(np.mean(found))


@one_line_errors
def main() -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('weights', nargs='+', help='names of shipped weights, or checkpoints')
    parser.add_argument('--photographs', type=Path, required=True)
    parser.add_argument('--coarse', help='of checkpoints that do not tell: none or block_matching')
    parser.add_argument('--align', choices=ALIGNMENTS, help="alignment of far bursts (default: the network's)")
    parser.add_argument('--scenes', type=int, default=3, help='photographs to use')
    args = parser.parse_args()
    torch.set_num_threads(1)
    bursts = {}
    for kind in ('static', 'far'):
        scenes = photograph_scenes(args.photographs, kind, FRAMES, TEST_LEVELS['high'], size=SIZE)
        bursts[kind] = list(itertools.islice(scenes, args.scenes))
    lines = ['| network | static, 5 frames | the reference 5 times | gain | far, 5 frames | gain |', '| --- |' + ' --- |' * 5]
    for name in tqdm(args.weights, unit='network'):
        net = load_weights(name, **({'coarse': args.coarse} if args.coarse else {})).eval()
        static = mean_psnr(net, bursts['static'], 'none', repeated=False)
        single = mean_psnr(net, bursts['static'], 'none', repeated=True)
        far = mean_psnr(net, bursts['far'], args.align, repeated=False)
        lines.append(f'| {name} | {static:.2f} | {single:.2f} | {static - single:+.2f} | {far:.2f} | {far - single:+.2f} |')
    sys.stdout.write('\n'.join(lines) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
