"""Pack the checkpoint of a training into a file of weights that the package finds by its name.

python scripts/pack_weights.py experiments/jddb_small/models/net_g_latest.pth --name small --version 1

The file holds the (averaged) parameters, and which network with which options they are of; it goes into the package's folder of
weights, and its SHA-256 into the index there.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Optional

import jddb_plugin  # noqa: F401  (registers the networks)
from jddb_plugin.checks import one_line_errors
from jddb_plugin.weights import FOLDER, pack_weights


@one_line_errors
def main(arguments: Optional[list[str]] = None) -> int:
    """Pack; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='net_g_*.pth')
    parser.add_argument('--name', required=True)
    parser.add_argument('--version', required=True)
    parser.add_argument('--half', action='store_true', help='store float16: half the size')
    parser.add_argument('--folder', type=Path, default=FOLDER, help='default: the package')
    parser.add_argument('--coarse', help='of TwoStageJDDB without matching features: block_matching or none')
    args = parser.parse_args(arguments)
    path = pack_weights(args.checkpoint, args.name, args.version, args.folder, half=args.half, coarse=args.coarse)
    sys.stdout.write(f'{path}: {path.stat().st_size / 1e6:.1f} MB\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
