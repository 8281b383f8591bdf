"""Burst LMDBs for studies on a small budget: photographs under a moving camera, held-out ones at several speeds, and real clips.

Photographs are read in the order of their names; every fifth is held out for the tests, where all speeds film the same ones.
A photograph that a clip would leave is passed over, so that no clip shows mirrored borders.
"""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional, Sequence

import numpy as np
from tqdm import tqdm

from jddb_plugin.checks import DataError
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.data.images import IMAGE_SUFFIXES, decode_srgb, in_order
from jddb_plugin.data.photographs import moving_camera
from jddb_plugin.data.source_clips import find_clips

FRAMES = 5
_HELD_OUT = 5
#: Of the clips, and of what says what a study's data were built of; both lie beside the other LMDBs.
_REAL, _STAMP = 'real.lmdb', 'sources.json'
#: Pixels that shake and turning add to what a clip sees, on each side.
_MARGIN = 8


@dataclass(frozen=True)
class ClipSet:
    """Clips of one kind.

    Attributes:
        name: of the LMDB.
        speed: slowest and fastest pan in RGB px a frame.
        side: of a frame in RGB px, even.
        each: clips of every photograph.
        test: films the held-out photographs.
        limit: how many of them at most; None for all.
    """

    name: str
    speed: tuple[float, float]
    side: int
    each: int = 1
    test: bool = False
    limit: Optional[int] = None

    @property
    def needed(self) -> int:
        """Least height and width of a photograph."""
        return self.side + 2 * _MARGIN + int(self.speed[1] * (FRAMES - 1))


#: Fewest and most RGB px a frame. Sides of 96 and 128 packed px are multiples of what every network needs.
_TEST_SPEEDS = {'small_shift': (1.0, 2.0), 'medium_shift': (8.0, 12.0), 'large_shift': (30.0, 40.0)}
#: Held-out photographs that are filmed for each test set, and those that trainings validate on.
_TESTED = 16
_VALIDATED = 2


def _tests(side: int) -> tuple[ClipSet, ...]:
    """The test sets, and a few of their scenes to validate on."""
    sets = tuple(ClipSet(name, speed, side, test=True, limit=_TESTED) for name, speed in _TEST_SPEEDS.items())
    return (*sets, ClipSet('val', _TEST_SPEEDS['medium_shift'], side, test=True, limit=_VALIDATED))


SMALL = (ClipSet('train', (0.0, 24.0), 256, each=4), *_tests(192))
CLAIMS = (ClipSet('static', (0.0, 0.0), 384, each=2), ClipSet('moving', (20.0, 60.0), 384, each=4), *_tests(256))
MIXING = (ClipSet('static', (0.0, 0.0), 256, each=2), ClipSet('train', (0.0, 24.0), 256, each=4), *_tests(256))


def prepare(root: Path, sets: Sequence[ClipSet], photographs: Optional[Path], clips: Optional[Path], *, real_side: int) -> None:
    """Build the LMDBs below ``root`` unless they are there; without folders, what is there will do.

    Args:
        root: for NAME.lmdb of every set and, with clips, real.lmdb.
        sets: what to film.
        photographs: folder of images, searched with all its subfolders.
        clips: folder of videos, or of folders of images, that are tested on alone.
        real_side: side of the middle that is cut of their frames, which are halved first.

    Raises:
        DataError: a folder is not what it should be, or the LMDBs were built of others.
    """
    stamp = root / _STAMP
    built = json.loads(stamp.read_text()) if stamp.is_file() else None
    if built and photographs is None and clips is None:
        return
    if photographs is None:
        raise DataError(f'{root}: is not built yet; give --photographs FOLDER once (and --clips FOLDER for real clips).')
    for option, folder in (('--photographs', photographs), ('--clips', clips)):
        if folder is not None and not folder.exists():
            raise DataError(f'{option}: {folder}: no such folder.')
    files = in_order((file for file in photographs.rglob('*') if file.is_file()), IMAGE_SUFFIXES)
    real = find_clips(clips) if clips is not None else []
    sources = {'photographs': [file.name for file in files], 'clips': [clip.name for clip in real],
               'sets': [json.loads(json.dumps(asdict(clip_set))) for clip_set in sets]}
    if built:
        if built != sources:
            raise DataError(f'{root}: was built of other --photographs or --clips; pass the same or none, or remove it and the '
                            'trainings on it.')
        return
    root.mkdir(parents=True, exist_ok=True)
    if real:
        _cut(root / _REAL, real, real_side)
    for seed, clip_set in enumerate(sets):
        chosen = [file for k, file in enumerate(files) if (k % _HELD_OUT == _HELD_OUT - 1) == clip_set.test]
        needed = max(other.needed for other in sets if other.test) if clip_set.test else clip_set.needed
        _film(root / f'{clip_set.name}.lmdb', chosen, clip_set, needed, seed)
    stamp.write_text(json.dumps(sources, indent=2) + '\n')


def left_out(lmdb: Path) -> bool:
    """Whether :func:`prepare` says that it has not built this LMDB, as it was given no clips; nothing else may be missing."""
    stamp = lmdb.parent / _STAMP
    return lmdb.name == _REAL and not lmdb.exists() and stamp.is_file() and json.loads(stamp.read_text()).get('clips') == []


def _film(path: Path, files: Sequence[Path], clip_set: ClipSet, needed: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    written = 0
    with BurstLmdbWriter(str(path), overwrite=True, encoding='png' if clip_set.test else 'tiff') as writer:
        for file in tqdm(files, unit='photograph', desc=f'Write {path.name}'):
            image = decode_srgb(file.read_bytes(), str(file))
            if min(image.shape[:2]) < needed:
                continue
            for k in range(clip_set.each):
                size = (clip_set.side, clip_set.side)
                for index, frame in enumerate(moving_camera(image, rng, size=size, frames=FRAMES, speed=clip_set.speed)):
                    writer.put_image(f'{file.stem}_{k}', index, frame)
            written += 1
            if written == clip_set.limit:
                break
        if not written:
            raise DataError(f'{path.name}: none of {len(files)} photographs has at least {needed} px on each side; give more, or '
                            'larger ones, with --photographs.')


def _cut(path: Path, clips: Sequence, side: int) -> None:
    """The middle of the first frames of every clip, at half their size."""
    with BurstLmdbWriter(str(path), overwrite=True) as writer:
        for clip in tqdm(clips, unit='clip', desc=f'Write {path.name}'):
            for index, task in enumerate(clip.tasks(range(FRAMES))):
                image = decode_srgb(task().image, clip.source(index)).astype(np.float32)
                height, width = (length // 2 * 2 for length in image.shape[:2])
                half = image[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))
                if min(half.shape[:2]) < side:
                    raise DataError(f'{clip.where}: frames of {width} x {height} px are too small; expected at least '
                                    f'{2 * side} on each side.')
                y, x = ((length - side) // 2 for length in half.shape[:2])
                writer.put_image(clip.name, index, np.round(half[y:y + side, x:x + side]).astype(np.uint8))
