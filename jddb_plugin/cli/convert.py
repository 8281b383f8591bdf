"""Turn the paper's two released files into one checkpoint that ``pretrain_network_g`` loads strictly.

    jddb convert --main MAIN.pth --downsampler DOWNSAMPLER.pth --output experiments/pretrained/jddb_released.pth
"""
from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two files, and the one to write."""
    parser.add_argument('--main', required=True, metavar='FILE', help="the release's main network")
    parser.add_argument('--downsampler', required=True, metavar='FILE', help="the release's downsampler")
    parser.add_argument('--output', required=True, metavar='FILE', help='checkpoint to write')


def run(args: argparse.Namespace) -> int:
    """Convert; returns the exit status."""
    from jddb_plugin.restoration.convert import convert
    sys.stdout.write(convert(args.main, args.downsampler, args.output) + '\n')
    return 0
