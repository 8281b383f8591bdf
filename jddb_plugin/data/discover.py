"""What a path holds: clips, each a folder of images or of raw files, a video, or a folder inside a zip file.

The rules are the same for all who look for clips: the LMDB builder (source_clips.py) and ``jddb restore``
(restoration/bursts.py), for which a clip is a burst.

- A zip file holds a clip for each folder of images in it.
- A folder that holds frames is one clip, see :func:`jddb_plugin.data.folders.frames_of_folder`. Pictures and videos beside its
  raw files, and folders of pictures in it, are skipped, and the log says so.
- Any other folder holds a clip for each folder of frames and for each video in it. Folders without frames are skipped, and the
  log says so. Frames and clips side by side are an error, since either could be meant.
- Names that begin with a dot are skipped.
"""
from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Optional

from jddb_plugin.checks import DataError
from jddb_plugin.data.archives import Member, list_members
from jddb_plugin.data.folders import frames_of_folder
from jddb_plugin.data.images import natural_key

VIDEO_SUFFIXES = ('.mp4', '.mov', '.avi', '.mkv', '.webm', '.m4v')
_logger = logging.getLogger('jddb_plugin')


@dataclass(frozen=True)
class FoundClip:
    """A clip on disk, not read yet.

    Attributes:
        name: of the clip.
        where: file or folder, for messages.
        kind: 'images', 'raw', 'video', 'zip', or 'broken'.
        path: the folder, the video, or the zip file.
        files: frames of kinds 'images' and 'raw', in order.
        members: frames of kind 'zip', in order.
        error: why a clip of kind 'broken' cannot be used.
    """

    name: str
    where: str
    kind: str
    path: Path
    files: tuple[Path, ...] = ()
    members: tuple[Member, ...] = ()
    error: str = ''


def discover(root: Path, *, skip: Optional[Path] = None) -> list[FoundClip]:
    """The clips that a path holds, in natural order of their names.

    Args:
        root: a folder, or a zip file.
        skip: a folder that is not searched, e.g. that of the results.

    Raises:
        DataError: there are none, the path is something else, or its own frames cannot be told from clips.
    """
    if root.is_file() and root.suffix.lower() == '.zip':
        return _zip_clips(root)
    if not root.is_dir():
        problem = 'a file' if root.exists() else 'no such folder'
        raise DataError(f'{root}: {problem}; expected a folder of frames, a folder of clips, or a zip file of folders of images.')
    if (root / 'data.mdb').is_file():
        raise DataError(f'{root}: is a burst LMDB already; expected a folder of frames, or a folder of clips.')
    own = clip_of_folder(root)
    clips = _inner_clips(root, skip)
    if own is None:
        if not clips:
            raise DataError(f'{root}: holds no frames (images or raw files), and no folders of frames or videos.')
        return clips
    if clips and (own.kind != 'raw' or any(clip.kind not in ('images', 'video') for clip in clips)):
        raise DataError(f'{root}: holds frames ({own.files[0].name}, ...) and clips ({clips[0].path.name}, ...); give either the '
                        'files or the clips, or move one kind to another folder.')
    if clips:
        _logger.warning('%s: skipped what lies beside the raw files: %s', root, _some([clip.path.name for clip in clips]))
    return [own]


def clip_of_folder(folder: Path) -> Optional[FoundClip]:
    """The frames of one folder; None if it holds none.

    Raises:
        DataError: the folder cannot be read, or holds frames of several kinds.
    """
    try:
        files, is_raw = frames_of_folder(folder)
    except OSError as error:
        raise DataError(f'{folder}: cannot be read ({error.strerror or error}).') from error
    if not files:
        return None
    return FoundClip(folder.resolve().name, str(folder), 'raw' if is_raw else 'images', folder, tuple(files))


def _inner_clips(root: Path, skip: Optional[Path]) -> list[FoundClip]:
    skipped = None if skip is None else skip.resolve()
    clips: list[FoundClip] = []
    empty: list[str] = []
    for path in sorted(root.iterdir(), key=lambda path: natural_key(path.name)):
        if path.name.startswith('.') or (skipped is not None and path.resolve() == skipped):
            continue
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
            clips.append(FoundClip(path.stem, str(path), 'video', path))
        elif path.is_dir():
            clip = _clip_or_error(path)
            if clip is None:
                empty.append(path.name)
            else:
                clips.append(clip)
    if empty and clips:
        _logger.warning('%s: skipped folders without frames: %s', root, _some(empty))
    return clips


def _clip_or_error(folder: Path) -> Optional[FoundClip]:
    """One folder of several: an error in it must not hide the others."""
    try:
        return clip_of_folder(folder)
    except DataError as error:
        return FoundClip(folder.name, str(folder), 'broken', folder, error=str(error))


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:4]) + (', ...' if len(names) > 4 else '')


def _zip_clips(path: Path) -> list[FoundClip]:
    clips = [FoundClip(PurePosixPath(folder).name or path.stem, f'{path}: {folder}', 'zip', path, members=members)
             for folder, members in list_members(path).items()]
    if not clips:
        raise DataError(f'{path}: holds no images; expected one folder of images per clip.')
    return clips
