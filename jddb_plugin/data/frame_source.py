"""Clips of sRGB frames, from a burst LMDB or a folder of folders, behind one reader."""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

import numpy as np

from jddb_plugin.checks import DataError, OptionError, check_choice
from jddb_plugin.data.burst_lmdb import read_value
from jddb_plugin.data.images import decode_srgb, image_size, list_images

#: The clips that the literature holds out of REDS for testing.
REDS4 = ('000', '011', '015', '020')
_META_LINE = re.compile(r'(?P<clip>.+)/(?P<frame>[^/]+)\.\w+ \((?P<height>\d+),(?P<width>\d+),(?P<channels>\d+)\) \d+')


@dataclass(frozen=True)
class Clip:
    """Frames of equal size, in order.

    Attributes:
        name: of the clip.
        keys: what the reader reads each frame by: LMDB keys or file paths.
        size: (height, width) in RGB pixels.
    """

    name: str
    keys: tuple[str, ...]
    size: tuple[int, int]


class FrameSource:
    """Clips below ``dataroot``.

    Args:
        dataroot: an LMDB folder (``meta_info.txt`` beside ``data.mdb``), or a folder with one folder of images per
            clip.
        io_backend: ``{type: lmdb}`` or ``{type: disk}``, as in the toolbox's data sets.
        where: the option section, for messages.

    Raises:
        DataError: the folder is missing, empty, damaged, or holds frames of unequal or odd size.
    """

    def __init__(self, dataroot: str, io_backend: Mapping[str, Any], where: str) -> None:
        kind = io_backend.get('type')
        check_choice(kind, ('lmdb', 'disk'), f'{where}.io_backend.type')
        self.root = Path(dataroot).expanduser()
        self.kind = kind
        if not self.root.is_dir():
            raise DataError(f'{where}.dataroot_gt: {self.root}: no such folder.')
        is_lmdb = (self.root / 'data.mdb').is_file()
        if is_lmdb != (kind == 'lmdb'):
            found = 'an LMDB' if is_lmdb else 'no LMDB (it has no data.mdb)'
            raise OptionError(f"{where}.io_backend: type is '{kind}', but {self.root} is {found}.")
        self.clips = self._scan_lmdb() if is_lmdb else self._scan_folders()
        if not self.clips:
            raise DataError(f'{self.root}: holds no clips; expected one folder of images per clip, or a burst LMDB.')

    def _scan_lmdb(self) -> dict[str, Clip]:
        meta = self.root / 'meta_info.txt'
        if not meta.is_file():
            raise DataError(f'{meta}: missing; the LMDB was not built completely, build it anew.')
        frames: dict[str, list[tuple[str, tuple[int, int]]]] = {}
        for number, line in enumerate(meta.read_text().splitlines(), 1):
            match = _META_LINE.fullmatch(line.strip())
            if match is None:
                raise DataError(f"{meta}, line {number}: expected 'clip/frame.png (height,width,channels) level', "
                                f'got {line!r}.')
            key = f"{match['clip']}/{match['frame']}"
            frames.setdefault(match['clip'], []).append((key, (int(match['height']), int(match['width']))))
        return {name: self._clip(name, sorted(entries)) for name, entries in sorted(frames.items())}

    def _scan_folders(self) -> dict[str, Clip]:
        clips = {}
        for folder in sorted(p for p in self.root.iterdir() if p.is_dir()):
            files = list_images(folder)
            if files:
                clips[folder.name] = self._clip(folder.name, [(str(f), image_size(f)) for f in files])
        return clips

    @staticmethod
    def _clip(name: str, entries: Sequence[tuple[str, tuple[int, int]]]) -> Clip:
        first_key, first_size = entries[0]
        for key, size in entries:
            if size != first_size:
                raise DataError(f'{key}: is {size[1]} x {size[0]}, but {first_key} of the same clip is '
                                f'{first_size[1]} x {first_size[0]}; all frames of a clip must have one size.')
        if first_size[0] % 2 or first_size[1] % 2:
            raise DataError(f'{first_key}: is {first_size[1]} x {first_size[0]}; width and height must be even, as the 2 x 2 '
                            'Bayer cell is. Crop the clip by one row or column.')
        return Clip(name, tuple(key for key, _ in entries), first_size)

    def select(self, only: Optional[Sequence[str]], without: Sequence[str], where: str) -> list[Clip]:
        """Clips by name.

        Args:
            only: names to take; all if None.
            without: names to leave out, whether they are there or not.
            where: the option section, for messages.

        Raises:
            DataError: a name is not there, or nothing is left.
        """
        for name in only or ():
            if name not in self.clips:
                raise DataError(f"{where}.clips: '{name}' is not in {self.root}; it holds {', '.join(list(self.clips)[:8])}"
                                f"{' ...' if len(self.clips) > 8 else ''}.")
        chosen = [self.clips[name] for name in (self.clips if only is None else only) if name not in without]
        if not chosen:
            raise DataError(f'{where}: no clip of {self.root} is left after leaving out {", ".join(without)}.')
        return chosen

    def read(self, clip: Clip, index: int, *, window: Optional[tuple[int, int, int, int]] = None) -> np.ndarray:
        """Frame ``index`` of ``clip`` as RGB [H, W, 3], uint8 or uint16.

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
        return decode_srgb(content, where, size=clip.size, window=window)
