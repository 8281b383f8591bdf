"""Synthetic bursts as DNGs for other tools: noisy raw of video frames, or of a photograph filmed by a moving hand."""
from __future__ import annotations

from pathlib import Path
from typing import Optional, Union

import numpy as np

import jddb_plugin
from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.dng_writer import write_mosaic_dng
from jddb_plugin.data.images import IMAGE_SUFFIXES, decode_srgb, in_order
from jddb_plugin.data.photographs import moving_camera
from jddb_plugin.data.raw_reader import RAW_SUFFIXES, RawFrame
from jddb_plugin.files import atomic_write
from jddb_plugin.restoration.bursts import Burst, noisy_frame

_SOFTWARE = f'jddb_plugin {jddb_plugin.__version__}'
_FRAMES = 5
#: Motion of a hand between two frames, in pixels, and the share of a photograph that a frame shows, without its borders.
_SPEED, _VISIBLE = (0.5, 3.0), 0.9


def photograph_burst(file: Path, noise: Optional[tuple[float, float]], *, frames: Optional[int] = None) -> Burst:
    """A burst of one photograph: an odd number of frames as a moving hand would film them, with noise.

    Args:
        file: of the photograph.
        noise: (shot, read) that the frames get.
        frames: how many; five if None.

    Raises:
        DataError: it cannot be read, or is smaller than 32 pixels.
        OptionError: an even number of frames.
    """
    count = _FRAMES if frames is None else frames
    if count % 2 == 0 or count < 1:
        raise OptionError(f'--frames {count}: expected an odd number, as the photograph is the middle frame.')
    try:
        image = decode_srgb(file.read_bytes(), str(file))
    except OSError as error:
        raise DataError(f'{file}: cannot be read ({error.strerror or error}).') from error
    if min(image.shape[:2]) < 32:
        raise DataError(f'{file}: is {image.shape[1]} x {image.shape[0]}; expected at least 32 x 32.')
    height, width = (int(side * _VISIBLE) // 2 * 2 for side in image.shape[:2])
    clip = moving_camera(image, np.random.default_rng(0), size=(height, width), frames=count, speed=_SPEED)
    return Burst(file.stem, str(file), tuple(f'{file.name} [{index}]' for index in range(count)),
                 lambda index: noisy_frame(clip[index], index, noise, str(file)), is_video=True)


def export_burst(burst: Burst, folder: Union[str, Path], *, reference: Union[None, int, str] = None,
                 frames: Optional[int] = None) -> list[Path]:
    """Write frames of a synthetic burst as ``000.dng``, ``001.dng``, ...

    Args:
        burst: of a video, see :func:`photograph_burst` for one picture.
        folder: created if it does not exist; files of these names in it are replaced, other frames must not lie there.
        reference: index of the frame around which the others lie; the middle one if it is not a number.
        frames: how many, those nearest to the reference; five if None.

    Returns:
        the files.

    Raises:
        DataError: the burst is raw already, a frame cannot be read, a file not written, or the folder holds other frames.
        OptionError: no noise is given, or there is no such reference.
    """
    if not burst.is_video:
        raise DataError(f'{burst.where}: is raw already; --export-burst makes raw from video frames and photographs.')
    total = len(burst.frames)
    chosen = reference if isinstance(reference, int) else total // 2
    if not 0 <= chosen < total:
        raise OptionError(f'{burst.where}: --reference {chosen}: the burst has frames 0 .. {total - 1}.')
    count = min(_FRAMES if frames is None else frames, total)
    first = min(max(chosen - count // 2, 0), total - count)
    paths = [Path(folder) / f'{number:03d}.dng' for number in range(count)]
    if Path(folder).is_dir():
        others = set(in_order(Path(folder).iterdir(), (*RAW_SUFFIXES, *IMAGE_SUFFIXES))) - set(paths)
        if others:
            raise DataError(f'{folder}: holds other frames ({min(others).name}), which the burst would be mixed with; choose '
                            'another folder.')
    for path, index in zip(paths, range(first, first + count)):
        _write(path, burst.read(index), f'noisy raw of {burst.frames[index]}')
    return paths


def _write(path: Path, frame: RawFrame, description: str) -> None:
    text = ''.join(letter if letter.isascii() and letter.isprintable() else '_' for letter in description)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial, open(partial, 'wb') as file:
            write_mosaic_dng(file, frame.mosaic, frame.metadata, software=_SOFTWARE, description=text)
    except OSError as error:
        raise DataError(f'{path}: cannot be written ({error.strerror or error}); free some space or choose another folder.'
                        ) from error
