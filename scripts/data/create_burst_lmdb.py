"""Build a burst LMDB from a folder of clips (one folder of images each).

python scripts/data/create_burst_lmdb.py --input datasets/REDS/train_sharp --output datasets/REDS/train_sharp.lmdb
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jddb_plugin.checks import DataError, one_line_errors
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter, write_folders


@one_line_errors
def main() -> int:
    """Build the LMDB; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--input', required=True, type=Path, help='folder that holds one folder of images per clip')
    parser.add_argument('--output', required=True, help='LMDB to write, ends in .lmdb')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing LMDB')
    args = parser.parse_args()
    if not args.input.is_dir():
        raise DataError(f'{args.input}: no such folder.')
    folders = sorted(p for p in args.input.iterdir() if p.is_dir())
    if not folders:
        raise DataError(f'{args.input}: holds no folders; expected one folder of images per clip.')
    with BurstLmdbWriter(args.output, overwrite=args.overwrite) as writer:
        write_folders(writer, folders)
    return 0


if __name__ == '__main__':
    sys.exit(main())
