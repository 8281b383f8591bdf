"""Build the burst LMDB of REDS from the official zip file, without unpacking it, or from a folder.

python scripts/data/prepare_reds.py --input train_sharp.zip --output datasets/REDS/train_sharp.lmdb
python scripts/data/prepare_reds.py --input val_sharp.zip --output datasets/REDS/val_sharp.lmdb
"""
from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Sequence

from jddb_plugin.checks import DataError, one_line_errors
from jddb_plugin.cli.lmdb import add_build_arguments
from jddb_plugin.data.build import build
from jddb_plugin.data.source_clips import SourceClip, find_clips

CLIPS = {240: 'train_sharp', 30: 'val_sharp'}
FRAMES = 100


def check_clips(clips: Sequence[SourceClip], source: Path, *, subset: bool) -> None:
    """Raise DataError unless these look like the clips of REDS."""
    for clip in clips:
        if not re.fullmatch(r'\d{3}', clip.name):
            raise DataError(f"{clip.where}: not a clip of REDS, those are named 000, 001, ...; give train_sharp.zip, "
                            'val_sharp.zip or the folder that holds the clips.')
        if len(clip.stamps) != FRAMES and not subset:
            raise DataError(f'{clip.where}: has {len(clip.stamps)} frames, a clip of REDS has {FRAMES}; unpack or download it '
                            'again, or pass --subset to take what is there.')
    if len(clips) not in CLIPS and not subset:
        known = ' or '.join(f'{count} ({name})' for count, name in CLIPS.items())
        raise DataError(f'{source}: has {len(clips)} clips, expected {known}; unpack or download it again, or pass --subset to '
                        'take what is there.')


@one_line_errors
def main() -> int:
    """Build the LMDB; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--input', required=True, type=Path, help='zip file, or folder that holds 000, 001, ...')
    parser.add_argument('--output', default='datasets/REDS/train_sharp.lmdb', help='LMDB to write (default: %(default)s)')
    parser.add_argument('--subset', action='store_true', help='accept fewer clips or frames than REDS has')
    add_build_arguments(parser)
    args = parser.parse_args()
    source = args.input.expanduser()
    if source.is_file() and source.suffix.lower() != '.zip':
        raise DataError(f'{source}: expected a zip file or a folder.')
    clips = find_clips(source)
    check_clips(clips, source, subset=args.subset)
    build(clips, args.output, overwrite=args.overwrite, resume=args.resume, workers=args.workers, encoding=args.encoding)
    return 0


if __name__ == '__main__':
    sys.exit(main())
