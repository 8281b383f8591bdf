"""Make the demo's data: photographs to train on, and a burst LMDB with a clip of another scene to test on.

Without --frames, all of it is made from photographs that scikit-image carries; the test clip is what a camera sees that moves
over one of them. With --frames FOLDER (one folder of images per clip) the last clip is the test scene, and frames of the others
are trained on together with the photographs. With --clips the training data is a burst LMDB, too, for the two-stage network.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from jddb_plugin.checks import DataError, one_line_errors
from jddb_plugin.cli.pipeline import check_files
from jddb_plugin.compat.options import check_options
from jddb_plugin.config import load_options
from jddb_plugin.data.build import write_folders
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.data.images import decode_srgb
from jddb_plugin.data.photographs import PHOTOGRAPHS, moving_camera, photograph

TEST_PHOTOGRAPH = 'astronaut.png'
FRAMES_PER_CLIP = 7
CLIPS_PER_PHOTOGRAPH = 3
MARGIN = 52
SPEED = (4, 12)


def write_photographs(writer: BurstLmdbWriter, names: tuple[str, ...], clips: int, seed: int) -> None:
    """Add ``clips`` clips of each photograph that is there; the k-th has its channels rotated k times.

    So few photographs show few colors, and a network would learn to know only those.
    """
    rng = np.random.default_rng(seed)
    written = 0
    for name in tqdm(names, unit='photograph', desc=f'Write {writer.path.name}'):
        image = photograph(name)
        for k in range(clips if image is not None else 0):
            size = tuple((side - 2 * MARGIN) // 2 * 2 for side in image.shape[:2])
            clip = moving_camera(np.roll(image, k, axis=2), rng, size=size, frames=FRAMES_PER_CLIP, speed=SPEED)
            for index, frame in enumerate(clip):
                writer.put_image(f'{Path(name).stem}_{k}', index, frame)
            written += 1
    if not written:
        raise DataError('scikit-image carries none of the photographs; give your own clips with FRAMES=<folder of clips>.')


def write_stills(folder: Path, names: tuple[str, ...], clips: list[Path]) -> None:
    """Photographs, each with its channels in three orders, and the middle frame of each clip, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob('*.png'):
        file.unlink()
    images = {name: photograph(name) for name in names}
    stills = {f'{Path(name).stem}_{k}': np.roll(image, k, axis=2)
              for name, image in images.items() if image is not None for k in range(3)}
    for clip in clips:
        frames = sorted(p for p in clip.iterdir() if p.suffix.lower() in ('.png', '.jpg', '.jpeg'))
        if frames:
            middle = frames[len(frames) // 2]
            stills[f'own_{clip.name}'] = decode_srgb(middle.read_bytes(), str(middle))
    if not stills:
        raise DataError('scikit-image carries none of the photographs; give your own clips with FRAMES=<folder of clips>.')
    for name, image in tqdm(stills.items(), unit='photograph', desc='Write photographs'):
        cv2.imwrite(str(folder / f'{name}.png'), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


@one_line_errors
def main() -> int:
    """Make photographs or clips to train on, and the test clip; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', type=Path, help='folder that holds one folder of images per clip')
    parser.add_argument('--output', type=Path, default=Path('datasets/demo'), help='folder for the LMDBs')
    parser.add_argument('--clips', action='store_true', help='make an LMDB of clips to train on, for the two-stage network')
    parser.add_argument('--test', default='options/test/demo.yml', help='option file that the test clip must fit')
    args = parser.parse_args()
    folders = []
    if args.frames is not None:
        args.frames = args.frames.expanduser()
        if not args.frames.is_dir():
            raise DataError(f'FRAMES: {args.frames}: no such folder.')
        folders = sorted(p for p in args.frames.iterdir() if p.is_dir())
        if not folders:
            raise DataError(f'FRAMES: {args.frames}: holds no folders; expected one folder of images per clip.')
    if args.clips:
        with BurstLmdbWriter(str(args.output / 'train.lmdb'), overwrite=True) as writer:
            write_photographs(writer, PHOTOGRAPHS, CLIPS_PER_PHOTOGRAPH, seed=0)
            if folders[:-1]:
                write_folders(writer, folders[:-1], prefix='own_')
    else:
        write_stills(args.output / 'photographs', PHOTOGRAPHS, folders[:-1])
    with BurstLmdbWriter(str(args.output / 'test.lmdb'), overwrite=True) as writer:
        if folders:
            write_folders(writer, folders[-1:])
        else:
            write_photographs(writer, (TEST_PHOTOGRAPH,), 1, seed=1)
    # A clip that cannot be tested on should be known before the training.
    overrides = [('datasets.test.dataroot_gt', str(args.output / 'test.lmdb')), ('path.pretrain_network_g', None)]
    check_files(check_options(load_options(args.test, overrides), is_train=False))
    return 0


if __name__ == '__main__':
    sys.exit(main())
