"""Build the burst LMDB of SC_burst, Bayer mosaics with their camera metadata: the first frames of each scene's .mat files.

python scripts/data/prepare_sc_burst.py --input SC_burst --output datasets/SC_burst/test.lmdb
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jddb_plugin.checks import DataError, one_line_errors
from jddb_plugin.cli.lmdb import add_build_arguments
from jddb_plugin.data.build import build
from jddb_plugin.data.images import in_order, natural_key
from jddb_plugin.data.metadata import CFA_PATTERNS
from jddb_plugin.data.source_clips import raw_clip


@one_line_errors
def main() -> int:
    """Build the LMDB; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--input', required=True, type=Path, help='folder that holds Scene*, each with .mat files')
    parser.add_argument('--output', default='datasets/SC_burst/test.lmdb', help='LMDB to write (default: %(default)s)')
    parser.add_argument('--frames', type=int, default=5, help='frames of each scene, from the first (default: %(default)s)')
    parser.add_argument('--cfa', choices=CFA_PATTERNS, help='Bayer pattern of files that do not say it')
    add_build_arguments(parser)
    args = parser.parse_args()
    folder = args.input.expanduser()
    if not folder.is_dir():
        raise DataError(f'{folder}: no such folder.')
    scenes = sorted((path for path in folder.glob('Scene*') if path.is_dir()), key=lambda path: natural_key(path.name))
    if not scenes:
        raise DataError(f'{folder}: holds no folders Scene*; give the folder that the data set was unpacked to.')
    clips = []
    for scene in scenes:
        files = in_order(scene.iterdir(), ('.mat',))
        if args.frames < 1 or len(files) < args.frames:
            raise DataError(f'{scene}: has {len(files)} .mat files, expected at least {args.frames}; unpack it again, or choose '
                            'another number above 0 with --frames.')
        clips.append(raw_clip(files[:args.frames], scene.name, str(scene), cfa=args.cfa))
    build(clips, args.output, overwrite=args.overwrite, resume=args.resume, workers=args.workers, encoding=args.encoding)
    return 0


if __name__ == '__main__':
    sys.exit(main())
