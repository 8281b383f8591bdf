"""Parameters, arithmetic, time and memory of a restoration by any burst network, aligned as it is by default.

python scripts/benchmark/inference.py [--network NAME ... | --weights FILE] [--cases uhd] [--tiles K] [--align A] [--json FILE]

A photograph that moves, with the noise of the paper's tests, goes through the tiled inference of the restore command. Reading
files, developing and writing are left out. With --tiles only so many tiles are restored, evenly spread over the frame, and their
seconds multiplied; everything is aligned, and the table says so. --weights takes a checkpoint or the name of shipped weights,
--network registered networks, with their default arguments and random weights. On a CPU seconds are CPU seconds.

The systems of the paper's tables have table 3 of their own: python scripts/tables.py cost.
"""
from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Iterator, Optional

import torch
from common import machine, table, write_json
from noisy_raw import LEVEL, moving_burst
from tqdm import tqdm

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.archs.checkpoint import networks
from jddb_plugin.checks import check_choice, one_line_errors
from jddb_plugin.inference.engine import ALIGNMENTS, default_alignment
from jddb_plugin.inference.tiling import TilingOptions
from jddb_plugin.ops.block_matching import SearchWindow
from jddb_plugin.restoration.frames import load_frames
from jddb_plugin.restoration.restorer import choose_device
from jddb_plugin.restoration.source import FramesSource
from jddb_plugin.tables.cost import CASES, FRAMES, HEADINGS, cells, measure
from jddb_plugin.weights import load_weights


def read_burst(case: str, device: torch.device) -> torch.Tensor:
    """The case's burst, [N, 8, H, W]."""
    frames = load_frames(moving_burst(CASES[case][:2], FRAMES), reference='middle', count=None, noise=LEVEL)
    source = FramesSource(frames)
    return torch.stack([source.read(index, 0, source.size[0]) for index in range(source.count)]).to(device)


def read_networks(args: argparse.Namespace) -> Iterator[tuple[str, BurstNetwork]]:
    """What is measured, with its name in the table."""
    if args.weights is not None:
        yield args.weights, load_weights(args.weights)
        return
    for name in args.network:
        check_choice(name, networks(), '--network')
        torch.manual_seed(0)
        yield name, networks()[name]().eval().requires_grad_(False)


def parse(arguments: Optional[list[str]]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--network', nargs='+', default=['TwoStageJDDB', 'GatedUNet'], metavar='NAME')
    parser.add_argument('--weights', metavar='FILE', help='in place of --network')
    parser.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--align', choices=ALIGNMENTS, help='default: what the network is restored with')
    parser.add_argument('--tile', type=int, metavar='PX', help='packed pixels; default: as the restore command chooses them')
    parser.add_argument('--overlap', type=int, metavar='PX')
    parser.add_argument('--tiles', type=int, metavar='K', help='tiles that are restored (default: all)')
    parser.add_argument('--precision', nargs='+', choices=('float32', 'bf16'), default=['float32'])
    parser.add_argument('--device', default='auto')
    parser.add_argument('--json', type=Path, metavar='FILE')
    return parser.parse_args(arguments)


@one_line_errors
def main(arguments: Optional[list[str]] = None) -> int:
    """Measure, print and write; returns the exit status."""
    args = parse(arguments)
    device = choose_device(args.device)
    tiling = TilingOptions(tile=args.tile, overlap=args.overlap)
    rows: list[dict[str, Any]] = []
    lines = []
    for case in args.cases:
        lq = read_burst(case, device)
        for name, network in read_networks(args):
            network = network.to(device, memory_format=torch.channels_last)
            align = args.align or default_alignment(network)
            for precision in tqdm(args.precision, desc=f'{case}, {name}', leave=False):
                cost = measure(network, lq, align=align, tiling=tiling, window=SearchWindow(CASES[case][4]), tiles=args.tiles,
                               bf16=precision == 'bf16')
                rows.append({'case': case, 'network': name, 'align': align, 'precision': precision, **asdict(cost),
                             'seconds': cost.seconds})
                lines.append([case, name, align, precision, *cells(cost)])
    about = machine(device)
    sys.stdout.write(f"{', '.join(about.values())}; {FRAMES} frames\n\n")
    sys.stdout.write(table(['frame', 'network', 'alignment', 'precision', *HEADINGS], lines))
    write_json(args.json, {'machine': about, 'frames': FRAMES, 'rows': rows})
    return 0


if __name__ == '__main__':
    sys.exit(main())
