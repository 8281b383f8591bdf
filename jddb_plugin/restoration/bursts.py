"""Find bursts to restore: raw files, burst LMDBs, and video frames that become noisy raw."""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Sequence

import numpy as np

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.archives import read_member
from jddb_plugin.data.discover import VIDEO_SUFFIXES, FoundClip, discover
from jddb_plugin.data.frame_source import META_LINE, FrameSource, read_lines
from jddb_plugin.data.images import IMAGE_SUFFIXES, decode_srgb, to_float
from jddb_plugin.data.lmdb_reader import META_INFO
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.data.raw_camera import check_number, count_frames
from jddb_plugin.data.raw_reader import CAMERA_SUFFIXES, RAW_SUFFIXES, RawFrame, list_raw_files, read_raw
from jddb_plugin.ops.bayer import mosaic_rgb, unpack
from jddb_plugin.ops.camera import REFERENCE_XYZ_TO_CAM, reference_camera
from jddb_plugin.ops.noise import NoiseModel

_WHITE = 65535
_VIDEO = '{}: is a video; build a burst LMDB from it with jddb lmdb build, and restore that.'


@dataclass(frozen=True)
class Burst:
    """Frames of one scene.

    Attributes:
        name: of its picture, without suffix.
        where: file or folder, for messages.
        frames: name of each frame, for messages.
        read: reads one of them.
        files: one for each frame; empty for frames of an LMDB, a zip file or the memory. The picture keeps the Exif data of
            camera files.
        is_video: frames of a video, sRGB, that become noisy raw when they are read.
        error: why it cannot be restored.
    """

    name: str
    where: str
    frames: tuple[str, ...]
    read: Callable[[int], RawFrame]
    files: tuple[Path, ...] = ()
    is_video: bool = False
    error: str = ''

    def check(self) -> None:
        """Raise DataError if the burst cannot be restored."""
        if self.error:
            raise DataError(self.error)

    def camera_file(self, index: int) -> Optional[Path]:
        """The file of a frame, if it is a camera's."""
        return self.files[index] if self.files and not self.is_video else None

    @classmethod
    def from_arrays(cls, mosaics: Sequence[np.ndarray], metadata: CameraMetadata, *, name: str = 'burst') -> Burst:
        """A burst in memory: mosaics [H, W], uint16, sample values as ``metadata`` says.

        Raises:
            DataError: a mosaic has another shape, type or range, or the metadata are wrong.
        """
        if not isinstance(metadata, CameraMetadata):
            raise DataError(f'{name}: metadata: expected data.metadata.CameraMetadata, got {type(metadata).__name__}.')
        metadata = metadata.check(name)
        for index, mosaic in enumerate(mosaics):
            if mosaic.ndim != 2 or mosaic.dtype != np.uint16 or mosaic.max(initial=0) >= 2 ** metadata.bits:
                raise DataError(f'{name}: frame {index}: expected a mosaic [H, W] of uint16 below {2 ** metadata.bits}, got '
                                f'{mosaic.dtype} {list(mosaic.shape)} up to {mosaic.max(initial=0)}.')
        return cls(name, name, tuple(f'frame {index}' for index in range(len(mosaics))),
                   lambda index: RawFrame(mosaics[index], metadata))


def find_bursts(path: Path, *, noise: Optional[tuple[float, float]] = None, cfa: Optional[str] = None,
                frames_of_file: bool = False, skip: Optional[Path] = None) -> list[Burst]:
    """The bursts of one input.

    Args:
        path: a burst LMDB, whose clips are bursts; or a folder or zip file of clips, by the rules of
            :mod:`jddb_plugin.data.discover`.
        noise: (shot, read) that video frames get.
        cfa: pattern of raw files that do not state it.
        frames_of_file: each raw file is a burst, and the mosaics in it are its frames.
        skip: a folder that is not searched, e.g. that of the results.

    Returns:
        bursts; one that cannot be used raises its error when it is checked or read, so that the others can be restored.

    Raises:
        DataError: there are none, or frames cannot be told from bursts.
    """
    if (path / 'data.mdb').is_file():
        return _lmdb_bursts(path, noise)
    if frames_of_file:
        files = [file for file in list_raw_files(path) if file.suffix.lower() in CAMERA_SUFFIXES]
        if not files:
            raise DataError(f'{path}: holds no camera files, which --frames-of-file needs.')
        return [burst_of_mosaics(file) for file in files]
    found = discover(path, skip=skip)
    return [_found_burst(clip, noise, cfa, alone=len(found) == 1) for clip in found]


def _found_burst(clip: FoundClip, noise: Optional[tuple[float, float]], cfa: Optional[str], *, alone: bool) -> Burst:
    try:
        if clip.kind == 'broken':
            raise DataError(clip.error)
        if clip.kind == 'video':
            raise DataError(_VIDEO.format(clip.where))
        if clip.kind == 'zip':
            return _zip_burst(clip, noise)
        return _burst(clip.name, clip.where, clip.files, clip.kind == 'images', noise, cfa)
    except DataError as error:
        if alone:
            raise
        reason = str(error)

    def read(index: int) -> RawFrame:
        raise DataError(reason)

    return Burst(clip.name, clip.where, (), read, error=reason)


def burst_of_files(files: Sequence[Path], *, noise: Optional[tuple[float, float]] = None, cfa: Optional[str] = None) -> Burst:
    """One burst of the files given, in that order; it has the name of their folder.

    Raises:
        DataError: files of several kinds, or of one that is no frame.
    """
    for file in files:
        if file.suffix.lower() in VIDEO_SUFFIXES:
            raise DataError(_VIDEO.format(file))
        if file.suffix.lower() not in (*RAW_SUFFIXES, *IMAGE_SUFFIXES):
            raise DataError(f'{file}: is not a frame; expected raw files ({" ".join(RAW_SUFFIXES)}) or images '
                            f'({" ".join(IMAGE_SUFFIXES)}).')
    folder = files[0].resolve().parent
    pictures = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and not _has_metadata(file)]
    if pictures and len(pictures) < len(files):
        raise DataError(f'{folder}: {pictures[0].name} is a picture, other files are raw; give frames of one kind.')
    return _burst(folder.name or 'burst', str(folder), files, bool(pictures), noise, cfa)


def burst_of_mosaics(file: Path) -> Burst:
    """The mosaics of one camera file (a roll, pixel shift) as a burst, named by the file.

    Raises:
        DataError: it is no camera file, or cannot be read.
    """
    if file.suffix.lower() not in CAMERA_SUFFIXES:
        raise DataError(f'{file}: is not a camera file; --frames-of-file takes files that hold several mosaics '
                        f'({" ".join(CAMERA_SUFFIXES)}).')
    count = count_frames(file)
    return Burst(file.stem, str(file), tuple(f'{file.name} [{number}]' for number in range(count)),
                 lambda index: read_raw(file, number=index, shading=False, log_notes=False), (file,) * count)


def _has_metadata(file: Path) -> bool:
    """Whether a TIFF has camera metadata beside it: then it is a mosaic, else a picture."""
    return file.suffix.lower() in RAW_SUFFIXES and any(file.parent.glob('*.json'))


def _burst(name: str, where: str, files: Sequence[Path], is_video: bool, noise: Optional[tuple[float, float]],
           cfa: Optional[str]) -> Burst:
    names = tuple(file.name for file in files)
    if len(files) == 1 and files[0].suffix.lower() in CAMERA_SUFFIXES and files[0].is_file():
        check_number(files[0], None, count_frames(files[0]))  # raises DataError for a roll, which is not one frame

    def read_mosaic(index: int) -> RawFrame:
        return read_raw(files[index], cfa=cfa, shading=False, log_notes=False)

    def read_picture(index: int) -> RawFrame:
        try:
            content = files[index].read_bytes()
        except OSError as error:
            raise DataError(f'{files[index]}: cannot be read ({error.strerror or error}).') from error
        return noisy_frame(decode_srgb(content, str(files[index])), index, noise, str(files[index]))

    return Burst(name, where, names, read_picture if is_video else read_mosaic, tuple(files), is_video=is_video)


def _zip_burst(clip: FoundClip, noise: Optional[tuple[float, float]]) -> Burst:
    names = tuple(member.name for member in clip.members)

    def read(index: int) -> RawFrame:
        where = f'{clip.path}: {names[index]}'
        return noisy_frame(decode_srgb(read_member(clip.path, names[index]), where), index, noise, where)

    return Burst(clip.name, clip.where, names, read, is_video=True)


def _lmdb_bursts(path: Path, noise: Optional[tuple[float, float]]) -> list[Burst]:
    lines = read_lines(path / META_INFO)
    first = META_LINE.fullmatch(lines[0].strip()) if lines else None
    is_video = first is None or first['channels'] != '1'
    source = FrameSource(str(path), {'type': 'lmdb'}, 'INPUT', frames='srgb' if is_video else 'mosaic', odd=True)

    def burst(name: str) -> Burst:
        clip = source.clips[name]

        def read(index: int) -> RawFrame:
            image = source.read(clip, index)
            if is_video:
                return noisy_frame(image, index, noise, clip.keys[index])
            return RawFrame(image, source.metadata(clip, index))

        return Burst(name, f'{path}: {name}', clip.keys, read, is_video=is_video)

    return [burst(name) for name in source.clips]


def noisy_frame(image: np.ndarray, index: int, noise: Optional[tuple[float, float]], where: str) -> RawFrame:
    """Noisy raw of an sRGB frame [H, W, 3], as in the released test protocol, rounded to 16 bits.

    Raises:
        OptionError: ``noise``, (shot, read), is None.
    """
    if noise is None and where.lower().endswith(('.jpg', '.jpeg')):
        raise OptionError(f'{where}: is a JPEG, already demosaicked, denoised and compressed, so there is no raw burst to '
                          'restore; shoot raw (DNG). To turn it into noisy raw all the same, give --noise low, high or '
                          'SHOT,READ.')
    if noise is None:
        raise OptionError(f'{where}: is a picture, not raw; give --noise low, high or SHOT,READ to turn it into noisy raw.')
    shot, read = noise
    height, width = image.shape[:2]
    # A side of odd length gets one more line, since a mosaic consists of whole cells.
    image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode='edge')
    clean = mosaic_rgb(reference_camera().unprocess(to_float(image)))
    packed = NoiseModel.of(shot, read).sample_test_frame(clean, frame_number=index + 1)
    mosaic = (unpack(packed) * _WHITE).round().numpy().astype(np.uint16)[:height, :width]
    return RawFrame(mosaic, _video_metadata(shot, read, where))


def _video_metadata(shot: float, read: float, where: str) -> CameraMetadata:
    camera = reference_camera()
    return CameraMetadata(
        cfa='rggb', bits=16, black_level=(0.0,) * 4, white_level=(float(_WHITE),) * 4,
        white_balance=(float(camera.red_gain), 1.0, float(camera.blue_gain)), color_matrix=REFERENCE_XYZ_TO_CAM,
        noise_shot=(shot,) * 4, noise_read=(read,) * 4, source=where)


def safe_name(name: str) -> str:
    """File name, without suffix, for a burst of any name: it cannot escape the output folder and suits all file systems."""
    kept = ''.join(letter if letter.isascii() and (letter.isalnum() or letter in '._-') else '_' for letter in name)
    return kept.strip('._')[:100] or 'burst'


def with_unique_names(bursts: Sequence[Burst]) -> list[Burst]:
    """Bursts with names that are safe, and that differ in more than upper and lower case."""
    taken: set[str] = set()
    result = []
    for burst in bursts:
        name = wanted = safe_name(burst.name)
        number = 2
        while name.lower() in taken:
            name, number = f'{wanted}_{number}', number + 1
        taken.add(name.lower())
        result.append(dataclasses.replace(burst, name=name))
    return result
