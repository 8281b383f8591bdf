"""Restore bursts: jddb restore INPUT... -o OUT

INPUT is a folder of the frames of one burst (DNG and other raw files, MATLAB files of SC_burst, TIFF mosaics with their JSON),
a folder of such folders, or a burst LMDB, whose clips are bursts; or several files, which are one burst. Frames of videos
(images, LMDBs or zip files of them) first become noisy raw by --noise.

OUT is a folder, or the picture's file where there is one burst. A burst that fails is reported and skipped; the others go on,
and the exit status is 1. Ctrl-C leaves no half-written file.
"""
from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Optional

from jddb_plugin.checks import OptionError
from jddb_plugin.cli.arguments import CFA_PATTERNS, add_options, read_arguments
from jddb_plugin.restoration.settings import Inputs, Settings
from jddb_plugin.restoration.shards import Shard

_SUFFIXES = {'.png': 'png', '.tif': 'tiff', '.tiff': 'tiff', '.dng': 'dng'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Files and the batch; everything else is a field of :class:`Settings`."""
    parser.add_argument('input', nargs='+', type=Path, metavar='INPUT', help='folders, an LMDB, or the files of one burst')
    parser.add_argument('-o', '--output', type=Path, metavar='OUT', help='folder, or the picture of one burst')
    parser.add_argument('--weights', default='small', metavar='NAME', help='name of weights (default: small), or a checkpoint')
    groups = {name: parser.add_argument_group(title)
              for name, title in (('input', 'input'), ('output', 'output'), ('how', 'how to restore'))}
    add_options(groups, Settings)
    groups['input'].add_argument('--cfa', choices=CFA_PATTERNS, help='pattern of MATLAB files that do not state it')
    groups['input'].add_argument('--clip', action='append', metavar='NAME', help=(
        'only this clip of an LMDB, or this folder of several; can be repeated'))
    groups['input'].add_argument('--frames-of-file', action='store_true', help=(
        'each camera file is a burst: its mosaics are the frames (rolls, pixel shift)'))
    groups['input'].add_argument('--lens-shading', action='store_true', help=(
        'use the lens shading maps beside the frames (HDR+ data set)'))
    groups['output'].add_argument('--export-burst', type=Path, metavar='FOLDER', help=(
        'write the noisy raw of video frames or of a photograph as DNGs, and restore nothing; -o is not needed'))
    groups['output'].add_argument('--report', type=Path, metavar='FILE', help=(
        'also write a page, .html: before and after, and how it was restored'))
    groups['output'].add_argument('--skip-existing', action='store_true', help='skip bursts whose picture exists')
    groups['output'].add_argument('--shard', metavar='K/N', help=(
        'restore the K-th of N parts of the bursts, for N jobs; skips existing pictures, and records failures in OUT/shards'))


def _stop(number: int, frame: Optional[FrameType]) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C: unfinished files are removed."""
    try:
        before = signal.signal(signal.SIGTERM, _stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(args: argparse.Namespace) -> int:
    """Restore; returns the exit status: 0, 1 if a burst failed, 2 if no burst can be restored, 130 after Ctrl-C."""
    if args.output is None and args.export_burst is None:
        raise OptionError('--output is missing; give a folder, or the name of a picture.')
    suffix = '' if args.output is None else args.output.suffix.lower()
    settings = read_arguments(args, Settings, format=_SUFFIXES.get(suffix, 'png'))
    inputs = Inputs(args.input, cfa=args.cfa, clips=args.clip or (), frames_of_file=args.frames_of_file,
                    lens_shading=args.lens_shading)
    if args.report is not None and args.report.suffix.lower() not in ('.html', '.htm'):
        raise OptionError(f'--report {args.report}: expected a name that ends in .html.')
    shard = None if args.shard is None else Shard.parse(args.shard)
    try:
        with _terminable():
            from jddb_plugin.restoration.batch import export_all, restore_all
            if args.export_burst is not None:
                return export_all(inputs, args.export_burst, settings)
            return restore_all(inputs, args.output, args.weights, settings, report=args.report,
                               skip_existing=args.skip_existing, shard=shard)
    except KeyboardInterrupt:
        sys.stderr.write('interrupted; all pictures that exist are complete\n')
        return 130
