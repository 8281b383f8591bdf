"""Build the burst LMDB of Videezy4K: one clip of a few frames from each UHD video of a folder.

python scripts/data/prepare_videezy4k.py --input videos --output datasets/Videezy4K/test.lmdb
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jddb_plugin.checks import DataError, one_line_errors
from jddb_plugin.cli.lmdb import add_build_arguments
from jddb_plugin.data.build import build
from jddb_plugin.data.discover import VIDEO_SUFFIXES
from jddb_plugin.data.images import in_order
from jddb_plugin.data.source_clips import video_clip


@one_line_errors
def main() -> int:
    """Build the LMDB; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--input', required=True, type=Path, help='folder of videos, one clip each')
    parser.add_argument('--output', default='datasets/Videezy4K/test.lmdb', help='LMDB to write (default: %(default)s)')
    parser.add_argument('--start', type=int, default=0, help='first frame to take (default: %(default)s)')
    parser.add_argument('--count', type=int, default=20, help='frames to take (default: %(default)s)')
    parser.add_argument('--step', type=int, default=1, help='take every step-th frame (default: %(default)s)')
    add_build_arguments(parser)
    args = parser.parse_args()
    folder = args.input.expanduser()
    if not folder.is_dir():
        raise DataError(f'{folder}: no such folder.')
    videos = in_order(folder.iterdir(), VIDEO_SUFFIXES)
    if not videos:
        raise DataError(f'{folder}: holds no videos; expected files that end in {", ".join(VIDEO_SUFFIXES)}.')
    clips = [video_clip(video, start=args.start, count=args.count, step=args.step) for video in videos]
    build(clips, args.output, overwrite=args.overwrite, resume=args.resume, workers=args.workers, encoding=args.encoding)
    return 0


if __name__ == '__main__':
    sys.exit(main())
