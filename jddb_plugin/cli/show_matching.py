"""Draw what coarse alignment sees in a burst: jddb show-matching INPUT -o FILE

INPUT is a folder of images, in the order of their names, or a burst LMDB (then name the clip). Frames are matched as
they are, in RGB; with --noise they become noisy packed raw first, as in the tests of the paper, which is also what
--weights, a checkpoint of TwoStageJDDB, was trained on.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jddb_plugin.checks import CheckpointError, DataError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from jddb_plugin.archs.dpbm_arch import DPBM


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which frames, and how they are matched."""
    parser.add_argument('input', type=Path, metavar='INPUT', help='folder of images, or burst LMDB')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='FILE', help='picture to write, .png or .jpg')
    parser.add_argument('--clip', help='clip of an LMDB; may be left out if there is only one')
    parser.add_argument('--start', type=int, default=0, help='first frame, from 0')
    parser.add_argument('--frames', type=int, default=5, help='frames of the burst')
    parser.add_argument('--interval', type=int, default=1, help='distance between its frames')
    parser.add_argument('--ref', type=int, help='reference, from 0 within the burst; default: the middle one')
    parser.add_argument('--noise', help="make noisy raw of the frames: low, high, or SHOT,READ")
    parser.add_argument('--weights', help='checkpoint of TwoStageJDDB with learned matching features; needs --noise')
    parser.add_argument('--tile', type=int, default=64, help='side of a tile (default: %(default)s)')
    parser.add_argument('--overlap', type=int, default=4, help='context on each of its sides (default: %(default)s)')
    parser.add_argument('--radius', type=int, default=8, help='search radius in feature pixels, 1/4 of the frame\'s')
    parser.add_argument('--stride', type=int, default=2, help='of the strided search (default: %(default)s)')
    parser.add_argument('--window', default='symmetric', choices=('symmetric', 'released'), help='search window')


def run(args: argparse.Namespace) -> int:
    """Draw; returns the exit status."""
    import cv2

    from jddb_plugin.visual.matching import draw_matching
    if args.output.suffix.lower() not in ('.png', '.jpg', '.jpeg'):
        raise OptionError(f'{args.output}: expected a name that ends in .png or .jpg.')
    image = draw_matching(_burst(args), _matcher(args), ref_idx=args.ref, tile=args.tile, overlap=args.overlap)
    encoded = cv2.imencode(args.output.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_bytes(encoded.tobytes())
    except OSError as error:
        raise DataError(f'{args.output}: cannot be written ({error}).') from error
    sys.stdout.write(f'{args.output}: {image.shape[1]} x {image.shape[0]}\n')
    return 0


def _read(args: argparse.Namespace) -> list[Tensor]:
    """The burst's frames, sRGB [3, H, W] in [0, 1]."""
    from jddb_plugin.data.frame_source import FrameSource
    from jddb_plugin.data.images import decode_srgb, list_images, to_float
    if args.frames < 2 or args.interval < 1 or args.start < 0:
        raise OptionError(f'expected --frames of at least 2, --interval of at least 1 and --start of at least 0, got '
                          f'{args.frames}, {args.interval} and {args.start}.')
    if not args.input.is_dir():
        raise DataError(f'{args.input}: no such folder; expected a folder of images, or a burst LMDB.')
    numbers = range(args.start, args.start + args.frames * args.interval, args.interval)
    if (args.input / 'data.mdb').is_file():
        source = FrameSource(str(args.input), {'type': 'lmdb'}, 'INPUT')
        if args.clip is None and len(source.clips) > 1:
            raise DataError(f'{args.input}: holds {len(source.clips)} clips; choose one by --clip, e.g. '
                            f'--clip {next(iter(source.clips))}.')
        clip, = source.select(None if args.clip is None else [args.clip], (), 'INPUT')
        count = len(clip.keys)
    else:
        files = list_images(args.input)
        count = len(files)
        if not files:
            raise DataError(f'{args.input}: holds no images; expected the frames of one clip, in the order of their names.')
    if numbers[-1] >= count:
        raise DataError(f'{args.input}: has {count} frames, but frame {numbers[-1]} is asked for; lower --start, --frames or '
                        '--interval.')
    if (args.input / 'data.mdb').is_file():
        images = [source.read(clip, k) for k in numbers]
    else:
        images = [decode_srgb(files[k].read_bytes(), str(files[k])) for k in numbers]
    for k, image in zip(numbers, images):
        if image.shape != images[0].shape:
            raise DataError(f'{args.input}: frame {k} is {image.shape[1]} x {image.shape[0]}, the first of the burst '
                            f'{images[0].shape[1]} x {images[0].shape[0]}.')
    return [to_float(image) for image in images]


def _burst(args: argparse.Namespace) -> Tensor:
    """[N, 3, H, W], or with noise packed raw [N, 4, H / 2, W / 2]."""
    import torch

    from jddb_plugin.ops.bayer import mosaic_rgb
    from jddb_plugin.ops.camera import reference_camera
    from jddb_plugin.ops.noise import NoiseModel
    frames = _read(args)
    if args.noise is None:
        return torch.stack(frames)
    noise = NoiseModel.parse(args.noise)
    height, width = (side // 2 * 2 for side in frames[0].shape[-2:])
    raw = [mosaic_rgb(reference_camera().unprocess(frame[:, :height, :width])) for frame in frames]
    return torch.stack([noise.sample_test_frame(image, frame_number=k) for k, image in enumerate(raw, 1)])


def _matcher(args: argparse.Namespace) -> DPBM:
    from jddb_plugin.archs.dpbm_arch import DPBM
    from jddb_plugin.runtime.checkpoints import load_checkpoint
    if args.ref is not None and not 0 <= args.ref < args.frames:
        raise OptionError(f'--ref: expected 0 .. {args.frames - 1}, got {args.ref}.')
    if args.weights is not None and args.noise is None:
        raise OptionError('--weights are of a network for raw bursts; give --noise too.')
    coarse = DPBM(match_channels=3 if args.noise is None else 4, features='bicubic' if args.weights is None else 'learned',
                  radius=args.radius, stride=args.stride, window=args.window)
    if args.weights is not None:
        content = load_checkpoint(args.weights)
        content = content.get('params_ema', content.get('params', content))
        state = {key[len('coarse.'):]: value for key, value in content.items() if key.startswith('coarse.')}
        try:
            coarse.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(f"{args.weights}: holds no matching features of TwoStageJDDB ('coarse.downsample...'); give a "
                                  'checkpoint that was trained with coarse: dpbm, or a converted release.') from error
    return coarse.eval()
