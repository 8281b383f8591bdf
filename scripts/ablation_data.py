"""Burst LMDBs for the CPU-sized ablation: photographs under a moving camera, and real frames to test on.

Training clips move little or much from frame to frame; the held-out scenes are filmed twice, once each way. Large shifts
are far beyond a few pixels, and within the reach of progressive block matching: 32 px a frame with the radius of
options/train/ablation/small.yml, 48 px with that of options/test/ablation/small.yml.
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Optional, Sequence

import numpy as np
from tqdm import tqdm

from jddb_plugin.checks import DataError
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.data.images import decode_srgb, list_images
from jddb_plugin.data.photographs import PHOTOGRAPHS, moving_camera, photograph

#: Test scenes that scikit-image carries, and how many photographs of a folder are held out besides. A network that has trained
#: for minutes still errs in colours, scene by scene: many small scenes say more than few large ones.
TEST_PHOTOGRAPHS = ('astronaut.png', 'chelsea.png')
HELD_OUT = 3
#: Slowest and fastest camera, in RGB pixels a frame.
TRAIN_SPEEDS = {'small': (0, 4), 'large': (8, 28)}
TEST_SPEEDS = {'small': (1, 2), 'large': (18, 22)}
CLIPS_PER_SPEED = 4
TRAIN_FRAMES, TEST_FRAMES = 5, 5
#: Side of a frame in RGB pixels. Whole frames are restored in the test: these are small so that it takes half a minute.
TRAIN_SIDE, TEST_SIDE = 320, 192
#: Real clips are cut to their first frames and to the middle of those, for the same reason.
REAL_FRAMES = 7


def film(writer: BurstLmdbWriter, name: str, image: np.ndarray, rng: np.random.Generator, *, side: int,
         frames: int, speed: tuple[float, float]) -> None:
    """Add one clip of a camera that moves over ``image``."""
    for index, frame in enumerate(moving_camera(image, rng, size=(side, side), frames=frames, speed=speed)):
        writer.put_image(name, index, frame)


def write_training(path: Path, images: dict[str, np.ndarray]) -> None:
    """Clips of every photograph at small and at large speeds; channels are rotated, since so few show few colours."""
    rng = np.random.default_rng(0)
    with BurstLmdbWriter(str(path), overwrite=True, encoding='tiff') as writer:
        for name, image in tqdm(images.items(), unit='photograph', desc=f'Write {path.name}'):
            for motion, speed in TRAIN_SPEEDS.items():
                for k in range(CLIPS_PER_SPEED):
                    film(writer, f'{name}_{motion}_{k}', np.roll(image, k, axis=2), rng, side=TRAIN_SIDE, frames=TRAIN_FRAMES,
                         speed=speed)


def write_test(path: Path, images: dict[str, np.ndarray], speed: tuple[float, float]) -> None:
    """One clip of every held-out photograph."""
    rng = np.random.default_rng(1)
    with BurstLmdbWriter(str(path), overwrite=True) as writer:
        for name, image in images.items():
            film(writer, name, image, rng, side=TEST_SIDE, frames=TEST_FRAMES, speed=speed)


def write_real(path: Path, folders: Sequence[Path]) -> None:
    """The middle of the first frames of every clip."""
    with BurstLmdbWriter(str(path), overwrite=True) as writer:
        for folder in folders:
            files = list_images(folder)[:REAL_FRAMES]
            if not files:
                raise DataError(f'{folder}: holds no images; expected the frames of a clip.')
            for index, file in enumerate(files):
                image = decode_srgb(file.read_bytes(), str(file))
                y, x = (max(side - TEST_SIDE, 0) // 2 for side in image.shape[:2])
                height, width = (min(side, TEST_SIDE) // 2 * 2 for side in image.shape[:2])
                writer.put_image(folder.name, index, image[y:y + height, x:x + width])


def read_photographs(folder: Optional[Path]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(photographs to train on, photographs held out) by name.

    Raises:
        DataError: there is none to train on, or none to test on.
    """
    train = {Path(name).stem: photograph(name) for name in PHOTOGRAPHS if name not in TEST_PHOTOGRAPHS}
    test = {Path(name).stem: photograph(name) for name in TEST_PHOTOGRAPHS}
    if folder is not None:
        files = list_images(folder) if folder.is_dir() else []
        if len(files) <= HELD_OUT:
            raise DataError(f'{folder}: expected a folder of more than {HELD_OUT} photographs, found {len(files)}.')
        own = {f'own_{file.stem}': decode_srgb(file.read_bytes(), str(file)) for file in files}
        names = list(own)
        train.update({name: own[name] for name in names[:-HELD_OUT]})
        test.update({name: own[name] for name in names[-HELD_OUT:]})
    train, test = ({name: image for name, image in images.items() if image is not None} for images in (train, test))
    if not train or not test:
        raise DataError('scikit-image carries too few photographs; give your own with --photographs FOLDER.')
    return train, test


def prepare(root: Path, photographs: Optional[Path], frames: Optional[Path]) -> None:
    """Build the LMDBs below ``root`` unless they are there; without folders, what is there will do.

    Args:
        root: for train.lmdb, small_shift.lmdb, large_shift.lmdb and, with frames, real.lmdb.
        photographs: folder of images, most of which are trained on besides scikit-image's.
        frames: folder that holds one folder of images per clip; tested on alone.

    Raises:
        DataError: a folder is not what it should be, or the LMDBs were built of others.
    """
    stamp = root / 'sources.json'
    built = json.loads(stamp.read_text()) if stamp.is_file() else None
    if built and photographs is None and frames is None:
        return
    folders = sorted(p for p in frames.iterdir() if p.is_dir()) if frames is not None and frames.is_dir() else []
    if frames is not None and not folders:
        raise DataError(f'--frames: {frames}: holds no folders; expected one folder of images per clip.')
    train, test = read_photographs(photographs)
    sources = {'train': list(train), 'test': list(test), 'real': [folder.name for folder in folders]}
    if built:
        if built != sources:
            raise DataError(f'{root}: was built of other --photographs or --frames; pass the same or none, or remove it and the '
                            'runs that were trained on it.')
        return
    write_training(root / 'train.lmdb', train)
    for motion, speed in TEST_SPEEDS.items():
        write_test(root / f'{motion}_shift.lmdb', test, speed)
    if folders:
        write_real(root / 'real.lmdb', folders)
    stamp.write_text(json.dumps(sources, indent=2) + '\n')
