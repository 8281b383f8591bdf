"""What burst LMDBs are built of: folders of images, zip files, raw files, videos - clip by clip, frame by frame.

A clip lists its frames without decoding them, and gives one task per frame that does (see workers.py).
"""
from __future__ import annotations

import contextlib
import functools
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Callable, Iterator, Optional, Sequence

import numpy as np

from jddb_plugin.checks import DataError
from jddb_plugin.data.folders import frames_of_folder
from jddb_plugin.data.images import (
    IMAGE_SUFFIXES,
    decode_srgb,
    encode_png,
    image_header,
    image_size,
    list_images,
    natural_key,
)
from jddb_plugin.data.metadata import CameraMetadata

if TYPE_CHECKING:
    import mmcv

VIDEO_SUFFIXES = ('.mp4', '.mov', '.avi', '.mkv', '.webm', '.m4v')
_TIFF = ('.tif', '.tiff')


@dataclass(frozen=True)
class EncodedFrame:
    """An encoded image, and what is known of a raw frame; notes are lines for the user."""

    image: bytes
    metadata: Optional[CameraMetadata] = None
    notes: tuple[str, ...] = ()


Task = Callable[[], EncodedFrame]


@dataclass(frozen=True)
class SourceClip:
    """Frames of equal size, in order.

    Attributes:
        name: of the clip.
        where: file or folder, for messages.
        stamps: one per frame: its source's name, then what changes when the source does, separated by tabs.
    """

    name: str
    where: str
    stamps: tuple[str, ...]

    def source(self, index: int) -> str:
        """Name of what a frame is made of, for messages."""
        return self.stamps[index].split('\t')[0]

    def check(self) -> None:
        """Raise DataError if the frames' headers say already that this is no clip."""

    def tasks(self, indices: Sequence[int]) -> Iterator[Task]:
        """One task for each of the frames ``indices``, which rise."""
        raise NotImplementedError


@dataclass(frozen=True)
class ImageClip(SourceClip):
    """A folder of images."""

    files: tuple[Path, ...]

    def check(self) -> None:
        """Raise DataError if sizes differ, or an image is unreadable."""
        _check_sizes({image_size(file) for file in self.files}, self.where)

    def tasks(self, indices: Sequence[int]) -> Iterator[Task]:
        """One task for each of the frames ``indices``."""
        return (functools.partial(_encode_file, self.files[i]) for i in indices)


@dataclass(frozen=True)
class ZipClip(SourceClip):
    """Images of one folder inside a zip file, read in place."""

    archive: Path
    members: tuple[str, ...]

    def check(self) -> None:
        """Raise DataError if sizes differ, or an image is unreadable."""
        sizes = set()
        for member in self.members:
            where = f'{self.archive}: {member}'
            with _sound_zip(where), _open_zip(self.archive).open(member) as file:
                sizes.add(image_size(file, where))
        _check_sizes(sizes, self.where)

    def tasks(self, indices: Sequence[int]) -> Iterator[Task]:
        """One task for each of the frames ``indices``."""
        return (functools.partial(_encode_member, self.archive, self.members[i]) for i in indices)


@dataclass(frozen=True)
class RawClip(SourceClip):
    """Raw files of one camera, one frame each."""

    files: tuple[Path, ...]
    cfa: Optional[str]

    def tasks(self, indices: Sequence[int]) -> Iterator[Task]:
        """One task for each of the frames ``indices``."""
        return (functools.partial(_encode_raw, self.files[i], self.cfa) for i in indices)


@dataclass(frozen=True)
class VideoClip(SourceClip):
    """Frames of a video file, RGB of 8 bit."""

    file: Path
    start: int
    step: int

    def tasks(self, indices: Sequence[int]) -> Iterator[Task]:
        """One task for each of the frames ``indices``. Frames before them are decoded too: seeking is not exact."""
        video, position = _open_video(self.file), 0
        for index in indices:
            target = self.start + index * self.step
            while position <= target:
                frame = video.read()
                if frame is None:
                    raise DataError(f'{self.file}: ends after {position} frames, but its header promises frame {target}; '
                                    f'pass --count so that it is not needed, or remove the file.')
                position += 1
            where = f'{self.file}: frame {target}'
            yield functools.partial(_encode_rgb, np.ascontiguousarray(frame[..., ::-1]), where)


def _check_sizes(sizes: set[tuple[int, int]], where: str) -> None:
    if len(sizes) > 1:
        raise DataError(f'{where}: frames of unequal size: {", ".join(f"{w} x {h}" for h, w in sorted(sizes))}; '
                        'all frames of a clip must have one size.')


def _encode_image(content: bytes, where: str) -> EncodedFrame:
    """A PNG as it is if it is RGB, anything else encoded anew; decoded in any case, to know that it is sound."""
    image = decode_srgb(content, where)
    if content[:4] == b'\x89PNG' and image_header(content, where)[0][2] == 3:
        return EncodedFrame(content)
    return EncodedFrame(encode_png(image, where))


def _encode_file(file: Path) -> EncodedFrame:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f'{file}: cannot be read ({error}).') from error
    try:
        return _encode_image(content, str(file))
    except DataError as error:
        if file.suffix.lower() in _TIFF:
            raise DataError(f'{error} If it is a Bayer mosaic, its camera is described in metadata.json beside it, see '
                            'docs/data.md.') from error
        raise


@functools.lru_cache(maxsize=1)
def _open_zip(path: Path) -> zipfile.ZipFile:
    """Each process keeps its archive open: the list of members of a large one takes a while to read."""
    return zipfile.ZipFile(path)


@contextlib.contextmanager
def _sound_zip(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last if it is encrypted
        raise DataError(f'{where}: cannot be read ({error}); download the zip file again.') from error


def _encode_member(archive: Path, member: str) -> EncodedFrame:
    where = f'{archive}: {member}'
    with _sound_zip(where):
        content = _open_zip(archive).read(member)
    return _encode_image(content, where)


def _encode_raw(file: Path, cfa: Optional[str]) -> EncodedFrame:
    from jddb_plugin.data.raw_reader import read_raw
    frame = read_raw(file, cfa=cfa, tell=False)
    metadata = frame.metadata.check(str(file))
    if int(frame.mosaic.max()) >= 2 ** metadata.bits:
        raise DataError(f'{file}: holds a sample of {int(frame.mosaic.max())}, but has {metadata.bits} bits per sample; '
                        'correct bits.')
    return EncodedFrame(encode_png(frame.mosaic, str(file)), metadata, frame.notes)


def _encode_rgb(image: np.ndarray, where: str) -> EncodedFrame:
    return EncodedFrame(encode_png(image, where))


def _stamp(file: Path) -> str:
    status = file.stat()
    return f'{file.name}\t{status.st_size}\t{status.st_mtime_ns}'


def image_clip(folder: Path, name: str) -> ImageClip:
    """Clip of the images of a folder.

    Raises:
        DataError: it holds none.
    """
    files = tuple(list_images(folder))
    if not files:
        raise DataError(f'{folder}: holds no images.')
    return ImageClip(name, str(folder), tuple(map(_stamp, files)), files)


def raw_clip(files: Sequence[Path], name: str, where: str, *, cfa: Optional[str] = None) -> RawClip:
    """Clip of raw files, one frame each, in the order given.

    Args:
        files: of one camera and one setting.
        name: of the clip.
        where: file or folder, for messages.
        cfa: pattern of files that do not say it.
    """
    notes = sorted({note for folder in {file.parent for file in files} for note in folder.glob('*.json')})
    options = f'{cfa}\t{zlib.crc32(repr([_stamp(note) for note in notes]).encode()):08x}'
    stamps = tuple(f'{_stamp(file)}\t{options}' for file in files)
    return RawClip(name, where, stamps, tuple(files), cfa)


def _open_video(file: Path) -> mmcv.VideoReader:
    import mmcv
    try:
        video = mmcv.VideoReader(str(file))
        if not video.opened or video.frame_cnt < 1:
            raise DataError(f'{file}: not a video that OpenCV can read; convert it, say with ffmpeg to H.264 in mp4.')
    except OSError as error:
        raise DataError(f'{file}: cannot be read ({error}).') from error
    return video


def video_clip(file: Path, *, start: int = 0, count: Optional[int] = None, step: int = 1) -> VideoClip:
    """Clip of ``count`` frames of a video: ``start``, ``start + step``, ...; all if None.

    Raises:
        DataError: it is unreadable, or has fewer frames.
    """
    if start < 0 or step < 1 or count is not None and count < 1:
        raise DataError(f'expected a start of at least 0, and step and count of at least 1, got {start}, {step}, {count}.')
    frames = _open_video(file).frame_cnt
    there = len(range(start, frames, step))
    if there < (count or 1):
        raise DataError(f'{file}: has {frames} frames, not enough for {count or 1} from {start} in steps of {step}; '
                        'choose others with --start, --count and --step.')
    stamps = tuple(f'{_stamp(file)}\t{start + i * step}' for i in range(count or there))
    return VideoClip(file.stem, str(file), stamps, file, start, step)


def zip_clips(path: Path) -> list[SourceClip]:
    """One clip for each folder of images in a zip file.

    Raises:
        DataError: not a zip file, a name in it that leads out of it, two folders of one name, or no images.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f'{path}: not a complete zip file ({error}); download it again.') from error
    folders: dict[PurePosixPath, list[zipfile.ZipInfo]] = {}
    for info in infos:
        name = PurePosixPath(info.filename.replace('\\', '/'))
        if name.is_absolute() or '..' in name.parts or ':' in name.parts[0]:
            raise DataError(f'{path}: {info.filename}: leads out of the archive; this is no data set, do not unpack it.')
        if name.suffix.lower() in IMAGE_SUFFIXES and not name.name.startswith('.') and '__MACOSX' not in name.parts:
            folders.setdefault(name.parent, []).append(info)
    clips: list[SourceClip] = []
    for folder, members in sorted(folders.items()):
        members.sort(key=lambda info: natural_key(PurePosixPath(info.filename).name))
        stamps = tuple(f'{info.filename}\t{info.file_size}\t{info.CRC:08x}' for info in members)
        clips.append(ZipClip(folder.name or path.stem, f'{path}: {folder}', stamps, path,
                             tuple(info.filename for info in members)))
    if not clips:
        raise DataError(f'{path}: holds no images; expected one folder of images per clip.')
    return clips


def _folder_clip(folder: Path, cfa: Optional[str]) -> Optional[SourceClip]:
    files, is_raw = frames_of_folder(folder)
    if is_raw:
        return raw_clip(files, folder.name, str(folder), cfa=cfa)
    return image_clip(folder, folder.name) if files else None


def find_clips(root: Path, *, start: int = 0, count: Optional[int] = None, step: int = 1,
               cfa: Optional[str] = None) -> list[SourceClip]:
    """The clips of a folder: folders of images or of raw files, videos, ``.mat`` files; or those of a zip file.

    Args:
        root: the folder.
        start, count, step: frames to take of a video.
        cfa: pattern of raw files that do not say it.

    Raises:
        DataError: there are none, or one cannot be one.
    """
    if root.is_file() and root.suffix.lower() == '.zip':
        return zip_clips(root)
    if not root.is_dir():
        raise DataError(f'{root}: no such folder.')
    clips: list[SourceClip] = []
    for path in sorted(root.iterdir()):
        if path.name.startswith('.'):
            continue
        if path.is_dir():
            clip = _folder_clip(path, cfa)
            if clip is None:
                raise DataError(f'{path}: holds no images.')
            clips.append(clip)
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            clips.append(video_clip(path, start=start, count=count, step=step))
        elif path.suffix.lower() == '.mat':
            clips.append(raw_clip([path], path.stem, str(path), cfa=cfa))
    if not clips:
        raise DataError(f'{root}: holds no folders, videos or .mat files; expected one folder of images or raw files, one '
                        'video, or one .mat file per clip.')
    return clips
