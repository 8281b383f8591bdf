"""Develop a frame of a clip of mosaics into a picture, to see that levels, pattern and colors are right.

python scripts/data/show_clip.py LMDB -o picture.png [--clip NAME] [--frame 0]

Bilinear demosaicking, the clip's white balance and color matrix, a brightness that suits the frame, gamma and tone
curve; turned upright as the metadata say. Nothing is denoised.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import torch

from jddb_plugin.checks import DataError, OptionError, one_line_errors
from jddb_plugin.data.frame_source import FrameSource


@one_line_errors
def main() -> int:
    """Write the picture; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('input', type=Path, metavar='LMDB')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='FILE', help='picture to write, .png or .jpg')
    parser.add_argument('--clip', help='may be left out if there is only one')
    parser.add_argument('--frame', type=int, default=0, help='from 0')
    args = parser.parse_args()
    if args.output.suffix.lower() not in ('.png', '.jpg', '.jpeg'):
        raise OptionError(f'{args.output}: expected a name that ends in .png or .jpg.')
    source = FrameSource(str(args.input), {'type': 'lmdb'}, 'LMDB', frames='mosaic')
    if args.clip is None and len(source.clips) > 1:
        raise DataError(f'{args.input}: holds {len(source.clips)} clips; choose one by --clip, e.g. '
                        f'--clip {next(iter(source.clips))}.')
    clip, = source.select(None if args.clip is None else [args.clip], (), 'LMDB')
    if not 0 <= args.frame < len(clip.keys):
        raise OptionError(f'--frame: expected 0 .. {len(clip.keys) - 1}, got {args.frame}.')
    mosaic = torch.from_numpy(source.read(clip, args.frame).astype('float32'))
    picture = (source.metadata(clip, args.frame).preview(mosaic) * 255).round().byte().permute(1, 2, 0).numpy()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.output), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    sys.stdout.write(f'{args.output}: {picture.shape[1]} x {picture.shape[0]}\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
