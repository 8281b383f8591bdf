"""Build a burst LMDB from a folder of clips, or verify one: jddb lmdb build CLIPS NAME.lmdb, jddb lmdb verify NAME.lmdb

CLIPS is a folder of clips, one clip, or a zip file of folders of images. A clip is a folder of images (sRGB), a folder of raw
files, of TIFF mosaics with JSON beside them or of .mat files (Bayer), or a video (sRGB).
"""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from jddb_plugin.cli.arguments import CFA_PATTERNS

#: Those of :data:`jddb_plugin.data.burst_lmdb.ENCODINGS`.
ENCODINGS = ('png', 'tiff')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-commands build and verify."""
    commands = parser.add_subparsers(title='commands', dest='lmdb_command', metavar='COMMAND', required=True)
    build = commands.add_parser('build', help='build an LMDB from a folder of clips')
    build.add_argument('input', type=Path, metavar='CLIPS', help='folder of clips, or a zip file')
    build.add_argument('output', metavar='NAME.lmdb', help='LMDB to write')
    add_build_arguments(build)
    build.add_argument('--cfa', choices=CFA_PATTERNS, help='Bayer pattern of raw files that do not state it')
    build.add_argument('--start', type=int, default=0, help='first frame to take of a video')
    build.add_argument('--count', type=int, help='frames to take of a video (default: all)')
    build.add_argument('--step', type=int, default=1, help='take every step-th frame of a video')
    verify = commands.add_parser('verify', help='check every value of a finished LMDB')
    verify.add_argument('input', type=Path, metavar='NAME.lmdb', help='LMDB to check')
    verify.add_argument('--workers', type=int, default=default_workers(), help='processes (default: %(default)s)')


def default_workers() -> int:
    """One per core that this process may use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return min(cores, 16)


def add_build_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of all commands that build an LMDB."""
    parser.add_argument('--overwrite', action='store_true', help='replace an existing LMDB, and restart an interrupted build')
    parser.add_argument('--resume', action='store_true', help='complete an interrupted build')
    parser.add_argument('--workers', type=int, default=default_workers(), help='processes, 0 for none (default: %(default)s)')
    parser.add_argument('--encoding', choices=ENCODINGS, default='png',
                        help='tiff stores frames without compression: about twice as large, and decoded many times faster')


def run(args: argparse.Namespace) -> int:
    """Build or verify; returns the exit status: 1 if damage was found, 2 for errors."""
    if args.lmdb_command == 'verify':
        return _verify(args)
    from jddb_plugin.data.build import build
    from jddb_plugin.data.source_clips import find_clips
    clips = find_clips(args.input.expanduser(), start=args.start, count=args.count, step=args.step, cfa=args.cfa)
    build(clips, args.output, overwrite=args.overwrite, resume=args.resume, workers=args.workers, encoding=args.encoding)
    return 0


def _verify(args: argparse.Namespace) -> int:
    from jddb_plugin.data.verify import verify
    summary, problems = verify(args.input, workers=max(1, args.workers))
    sys.stderr.writelines(f'damaged: {problem}\n' for problem in problems)
    sys.stdout.write(f'{summary}\n')
    return 1 if problems else 0
