"""Clips of frames, sRGB from a burst LMDB or a folder of folders, or Bayer mosaics from a burst LMDB, behind one reader."""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

import numpy as np

from jddb_plugin.checks import DataError, OptionError, check_choice
from jddb_plugin.data.images import decode_mosaic, decode_srgb, image_size, list_images
from jddb_plugin.data.lmdb_reader import META_INFO, metadata_key, read_value
from jddb_plugin.data.metadata import CameraMetadata, parse_metadata
from jddb_plugin.data.staging import stage

#: The clips that the literature holds out of REDS for testing.
REDS4 = ('000', '011', '015', '020')
META_LINE = re.compile(r'(?P<clip>.+)/(?P<frame>[^/]+)\.\w+ \((?P<height>\d{1,6}),(?P<width>\d{1,6}),(?P<channels>\d{1,6})\) \d+')

_CHANNELS = {'srgb': 3, 'mosaic': 1}
_NAMES = {3: 'sRGB frames', 1: 'Bayer mosaics'}


@dataclass(frozen=True)
class Clip:
    """Frames of equal size, in order.

    Attributes:
        name: of the clip.
        keys: what the reader reads each frame by: LMDB keys or file paths.
        size: (height, width) in RGB pixels, or samples of the mosaic.
        channels: 3 for sRGB, 1 for a Bayer mosaic.
    """

    name: str
    keys: tuple[str, ...]
    size: tuple[int, int]
    channels: int = 3


def read_lines(path: Path) -> list[str]:
    """Lines of a text file of an LMDB.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_text(encoding='utf-8').splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f'{path}: cannot be read ({error}); rebuild the LMDB.') from error


class FrameSource:
    """Clips below ``dataroot``.

    Args:
        dataroot: an LMDB folder (``meta_info.txt`` beside ``data.mdb``), or a folder with one folder of images per
            clip.
        io_backend: ``{type: lmdb}`` or ``{type: disk}``, as in the toolbox's data sets.
        where: the option section, for messages.
        frames: kind of the frames, ``srgb`` or ``mosaic``.
        stage_dir: folder on the node's own disk that an LMDB is copied to first, or ``auto``; see staging.py.
        odd: whether sRGB frames may have an odd width or height; mosaics always may.

    Raises:
        DataError: the folder is missing, empty, damaged, or holds frames of unequal size, of odd size where that is not
            allowed, or of the other kind.
    """

    def __init__(self, dataroot: str, io_backend: Mapping[str, Any], where: str, *, frames: str = 'srgb',
                 stage_dir: Optional[str] = None, odd: bool = False) -> None:
        kind = io_backend.get('type')
        check_choice(kind, ('lmdb', 'disk'), f'{where}.io_backend.type')
        check_choice(frames, tuple(_CHANNELS), f'{where}.frames')
        if kind == 'disk' and (frames == 'mosaic' or stage_dir is not None):
            option = 'mosaics are read' if frames == 'mosaic' else 'stage_dir works'
            raise OptionError(f'{where}.io_backend: {option} with type lmdb only; build an LMDB with '
                              'jddb lmdb build.')
        self.frames = frames
        self._odd = odd or frames == 'mosaic'
        self.root = Path(dataroot).expanduser()
        self.kind = kind
        if not self.root.is_dir():
            raise DataError(f'{where}: {self.root}: no such folder; expected an LMDB, or a folder of clips.')
        is_lmdb = (self.root / 'data.mdb').is_file()
        if is_lmdb != (kind == 'lmdb'):
            found = 'an LMDB' if is_lmdb else 'no LMDB (it has no data.mdb)'
            raise OptionError(f"{where}.io_backend: type is '{kind}', but {self.root} is {found}.")
        if is_lmdb and stage_dir is not None:
            self.root = stage(self.root, stage_dir)
        self.clips = self._scan_lmdb() if is_lmdb else self._scan_folders()
        if not self.clips:
            raise DataError(f'{self.root}: holds no clips; expected one folder of images per clip, or a burst LMDB.')

    def _scan_lmdb(self) -> dict[str, Clip]:
        meta = self.root / META_INFO
        if not meta.is_file():
            raise DataError(f'{meta}: missing, so the LMDB is incomplete; rebuild it.')
        frames: dict[str, list[tuple[str, tuple[int, int]]]] = {}
        for number, line in enumerate(read_lines(meta), 1):
            match = META_LINE.fullmatch(line.strip())
            if match is None:
                raise DataError(f"{meta}, line {number}: expected 'clip/frame.png (height,width,channels) level', "
                                f'got {line[:200]!r}.')
            key = f"{match['clip']}/{match['frame']}"
            channels = int(match['channels'])
            if channels != _CHANNELS[self.frames]:
                raise DataError(f'{self.root}: {key}: holds {_NAMES.get(channels, f"{channels} channels")}, but '
                                f'{_NAMES[_CHANNELS[self.frames]]} are expected here; choose another database.')
            frames.setdefault(match['clip'], []).append((key, (int(match['height']), int(match['width']))))
        channels = _CHANNELS[self.frames]
        return {name: self._clip(name, sorted(entries), channels) for name, entries in sorted(frames.items())}

    def _scan_folders(self) -> dict[str, Clip]:
        clips = {}
        for folder in sorted(p for p in self.root.iterdir() if p.is_dir()):
            files = list_images(folder)
            if files:
                clips[folder.name] = self._clip(folder.name, [(str(f), image_size(f)) for f in files])
        return clips

    def _clip(self, name: str, entries: Sequence[tuple[str, tuple[int, int]]], channels: int = 3) -> Clip:
        first_key, first_size = entries[0]
        for key, size in entries:
            if size != first_size:
                raise DataError(f'{key}: is {size[1]} x {size[0]}, but {first_key} of the same clip is '
                                f'{first_size[1]} x {first_size[0]}; all frames of a clip must have one size.')
        if not self._odd and (first_size[0] % 2 or first_size[1] % 2):
            raise DataError(f'{first_key}: is {first_size[1]} x {first_size[0]}; width and height must be even, as the 2 x 2 '
                            'Bayer cell is. Crop the clip by one row or column.')
        return Clip(name, tuple(key for key, _ in entries), first_size, channels)

    def select(self, only: Optional[Sequence[str]], without: Sequence[str], where: str) -> list[Clip]:
        """Clips by name.

        Args:
            only: names of the clips; all if None.
            without: names to exclude, whether they exist or not.
            where: the option section, for messages.

        Raises:
            DataError: a name of ``only`` does not exist, or no clip is left.
        """
        for name in only or ():
            if name not in self.clips:
                raise DataError(f"{where}.clips: '{name}' is not in {self.root}; it holds {', '.join(list(self.clips)[:8])}"
                                f"{' ...' if len(self.clips) > 8 else ''}.")
        chosen = [self.clips[name] for name in (self.clips if only is None else only) if name not in without]
        if not chosen:
            raise DataError(f'{where}: no clip of {self.root} is left after excluding {", ".join(without)}.')
        return chosen

    def read(self, clip: Clip, index: int, *, window: Optional[tuple[int, int, int, int]] = None) -> np.ndarray:
        """Frame ``index`` of ``clip`` as RGB [H, W, 3], uint8 or uint16, or as a Bayer mosaic [H, W], uint16.

        Args:
            clip: one of :attr:`clips`.
            index: of the frame.
            window: (y, x, height, width) of the part to return; all of it if None.

        Raises:
            DataError: the frame is missing, unreadable, or not of the clip's size.
        """
        key = clip.keys[index]
        if self.kind == 'lmdb':
            where, content = f'{self.root}: {key}', read_value(self.root, key)
        else:
            where = key
            try:
                content = Path(key).read_bytes()
            except OSError as error:
                raise DataError(f'{where}: cannot be read ({error}).') from error
        decode = decode_srgb if clip.channels == 3 else decode_mosaic
        return decode(content, where, size=clip.size, window=window)

    def metadata(self, clip: Clip, index: int = 0) -> CameraMetadata:
        """Camera metadata of a frame of a clip of mosaics.

        Raises:
            DataError: there is none, or it is damaged.
        """
        number = int(clip.keys[index].rsplit('/', 1)[-1]) if index and clip.keys[index].rsplit('/', 1)[-1].isdecimal() else 0
        for key in ([metadata_key(clip.name, number)] if number else []) + [metadata_key(clip.name)]:
            content = read_value(self.root, key) if self.kind == 'lmdb' else None
            if content is not None:
                return parse_metadata(content.decode(errors='replace'), f'{self.root}: {key}')
        raise DataError(f'{self.root}: {metadata_key(clip.name)}: no camera metadata, which clips of mosaics need; rebuild '
                        'the LMDB.')
