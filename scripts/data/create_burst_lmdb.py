"""Build a burst LMDB from a folder of clips, or verify one.

A clip is a folder of images (sRGB), a folder of raw files or of TIFF mosaics with JSON beside them (Bayer), a .mat file
(Bayer), or a video (sRGB). A zip file of folders of images will do as well.

python scripts/data/create_burst_lmdb.py --input datasets/REDS/train_sharp --output datasets/REDS/train_sharp.lmdb
python scripts/data/create_burst_lmdb.py --verify datasets/REDS/train_sharp.lmdb
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jddb_plugin.checks import OptionError, one_line_errors
from jddb_plugin.data.build import add_build_arguments, build_as_asked
from jddb_plugin.data.metadata import CFA_PATTERNS
from jddb_plugin.data.source_clips import find_clips
from jddb_plugin.data.verify import verify


@one_line_errors
def main() -> int:
    """Build or verify; returns the exit status: 1 if --verify finds damage, 2 for errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--input', type=Path, help='folder that holds the clips')
    parser.add_argument('--output', help='LMDB to write, ends in .lmdb')
    parser.add_argument('--verify', type=Path, metavar='LMDB', help='check every value of a finished LMDB instead')
    add_build_arguments(parser)
    parser.add_argument('--cfa', choices=CFA_PATTERNS, help='Bayer pattern of raw files that do not say it')
    parser.add_argument('--start', type=int, default=0, help='first frame to take of a video')
    parser.add_argument('--count', type=int, help='frames to take of a video (default: all)')
    parser.add_argument('--step', type=int, default=1, help='take every step-th frame of a video')
    args = parser.parse_args()
    if args.verify is not None:
        summary, problems = verify(args.verify, workers=max(1, args.workers))
        sys.stderr.writelines(f'damaged: {problem}\n' for problem in problems)
        sys.stdout.write(f'{summary}\n')
        return 1 if problems else 0
    if args.input is None or args.output is None:
        raise OptionError('expected --input and --output, or --verify; see --help.')
    clips = find_clips(args.input.expanduser(), start=args.start, count=args.count, step=args.step, cfa=args.cfa)
    build_as_asked(clips, args)
    return 0


if __name__ == '__main__':
    sys.exit(main())
