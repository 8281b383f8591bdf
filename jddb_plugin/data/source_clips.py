"""Clips that burst LMDBs are built from: folders of images or raw files, zip files, videos.

Which clips a folder holds is decided by discover.py. A clip lists its frames without decoding them, and makes one task per frame
that does (see workers.py).
"""
from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator, Optional, Sequence

import numpy as np

from jddb_plugin.checks import DataError
from jddb_plugin.data.archives import open_member, read_member
from jddb_plugin.data.discover import FoundClip, discover
from jddb_plugin.data.images import decode_srgb, encode_png, image_header, image_size, list_images
from jddb_plugin.data.metadata import CameraMetadata

if TYPE_CHECKING:
    import mmcv

_TIFF = ('.tif', '.tiff')


@dataclass(frozen=True)
class EncodedFrame:
    """An encoded image, and the metadata of a raw frame; notes are lines for the log."""

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
        """Name of a frame's source, for messages."""
        return self.stamps[index].split('\t')[0]

    def check(self) -> None:
        """Raise DataError if the headers of the frames contradict each other."""

    def tasks(self, indices: Sequence[int]) -> Iterator[Task]:
        """One task for each of the frames ``indices``, which are in ascending order."""
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
            with open_member(self.archive, member) as file:
                sizes.add(image_size(file, f'{self.archive}: {member}'))
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
                                    'pass a smaller --count, or remove the file.')
                position += 1
            where = f'{self.file}: frame {target}'
            yield functools.partial(_encode_rgb, np.ascontiguousarray(frame[..., ::-1]), where)


def _check_sizes(sizes: set[tuple[int, int]], where: str) -> None:
    if len(sizes) > 1:
        raise DataError(f'{where}: frames of unequal size: {", ".join(f"{w} x {h}" for h, w in sorted(sizes))}; '
                        'all frames of a clip must have one size.')


def _encode_image(content: bytes, where: str) -> EncodedFrame:
    """An RGB PNG as it is, anything else encoded as PNG; decoded in any case, so that damage is found."""
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


def _encode_member(archive: Path, member: str) -> EncodedFrame:
    return _encode_image(read_member(archive, member), f'{archive}: {member}')


def _encode_raw(file: Path, cfa: Optional[str]) -> EncodedFrame:
    from jddb_plugin.data.raw_reader import read_raw
    frame = read_raw(file, cfa=cfa, log_notes=False)
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
        cfa: pattern of files that do not state it.
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
    available = len(range(start, frames, step))
    if available < (count or 1):
        raise DataError(f'{file}: has {frames} frames, not enough for {count or 1} from {start} in steps of {step}; '
                        'choose others with --start, --count and --step.')
    stamps = tuple(f'{_stamp(file)}\t{start + i * step}' for i in range(count or available))
    return VideoClip(file.stem, str(file), stamps, file, start, step)


def find_clips(root: Path, *, start: int = 0, count: Optional[int] = None, step: int = 1,
               cfa: Optional[str] = None) -> list[SourceClip]:
    """The clips of a folder or a zip file, by the rules of :mod:`jddb_plugin.data.discover`.

    Args:
        root: the folder or zip file.
        start, count, step: frames to take of a video.
        cfa: pattern of raw files that do not state it.

    Raises:
        DataError: there are none, or one cannot be used.
    """
    return [_source_clip(found, start, count, step, cfa) for found in discover(root)]


def _source_clip(found: FoundClip, start: int, count: Optional[int], step: int, cfa: Optional[str]) -> SourceClip:
    if found.kind == 'raw':
        return raw_clip(found.files, found.name, found.where, cfa=cfa)
    if found.kind == 'images':
        return ImageClip(found.name, found.where, tuple(map(_stamp, found.files)), found.files)
    if found.kind == 'video':
        return video_clip(found.path, start=start, count=count, step=step)
    if found.kind == 'zip':
        stamps = tuple(f'{member.name}\t{member.size}\t{member.crc:08x}' for member in found.members)
        return ZipClip(found.name, found.where, stamps, found.path, tuple(member.name for member in found.members))
    raise DataError(found.error)
