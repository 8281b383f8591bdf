"""Burst LMDBs: one key ``clip/00000000`` per frame, an encoded PNG each, and the toolbox's meta_info.txt.

The format is the toolbox's own (its FileClient and data sets read it). What differs is the writing - the map grows as
needed, and the database appears under its name only when it is complete - and that readers survive a fork.
"""
from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Iterable, Optional

import cv2
import lmdb
import numpy as np
from tqdm import tqdm

from jddb_plugin.checks import DataError
from jddb_plugin.data.images import decode_srgb, image_size, list_images

PNG_LEVEL = 1
_FIRST_MAP_BYTES = 64 << 20
_COMMIT_BYTES = 256 << 20

# A process may open an environment once, and must not carry it through a fork. So each process has one environment
# per database, opened at the first read, and closes all of them just before it forks.
_environments: dict[str, lmdb.Environment] = {}
_lock = threading.RLock()


def _before_fork() -> None:
    _lock.acquire()
    for environment in _environments.values():
        environment.close()
    _environments.clear()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)


def read_value(path: Path, key: str) -> Optional[bytes]:
    """Value of ``key`` in the LMDB folder ``path``, or None; read-only, without locks or read-ahead.

    Raises:
        DataError: the database cannot be opened or is damaged.
    """
    name = str(path.resolve())
    try:
        with _lock:
            if name not in _environments:
                _environments[name] = lmdb.open(name, readonly=True, lock=False, readahead=False, meminit=False)
            with _environments[name].begin() as transaction:
                return transaction.get(key.encode())
    except lmdb.Error as error:
        raise DataError(f'{path}: cannot be read as an LMDB ({error}); build it anew.') from error


class BurstLmdbWriter:
    """Context manager that writes ``path`` atomically.

    Frames go to ``path + '.partial'``, which is renamed when the block ends and removed when it fails.

    Args:
        path: the database's folder, must end in ``.lmdb``.
        overwrite: replace an existing database once the new one is complete.

    Raises:
        DataError: the name does not end in ``.lmdb``, or the database exists.
    """

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        self.path = Path(path).expanduser()
        if self.path.suffix != '.lmdb':
            raise DataError(f"{path}: the name of a burst LMDB must end in '.lmdb'.")
        if self.path.exists() and not overwrite:
            raise DataError(f'{path}: exists already; remove it, choose another name, or pass --overwrite.')
        self._partial = self.path.with_name(self.path.name + '.partial')
        self._lines: list[str] = []
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0

    def __enter__(self) -> BurstLmdbWriter:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        self._env = lmdb.open(str(self._partial), map_size=_FIRST_MAP_BYTES)
        return self

    def put(self, clip: str, index: int, png: bytes, shape: tuple[int, int, int]) -> None:
        """Add frame ``index`` of ``clip``: the bytes of a PNG file of ``shape`` (height, width, channels)."""
        key = f'{clip}/{index:08d}'
        self._pending.append((key.encode(), png))
        self._pending_bytes += len(png)
        self._lines.append(f'{key}.png ({shape[0]},{shape[1]},{shape[2]}) {PNG_LEVEL}\n')
        if self._pending_bytes >= _COMMIT_BYTES:
            self._commit()

    def put_image(self, clip: str, index: int, rgb: np.ndarray) -> None:
        """Add a frame given as RGB [H, W, 3], uint8 or uint16."""
        ok, png = cv2.imencode('.png', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])
        if not ok:
            raise DataError(f'{clip}/{index:08d}: the frame could not be encoded.')
        self.put(clip, index, png.tobytes(), rgb.shape)

    def _commit(self) -> None:
        while self._pending:
            try:
                with self._env.begin(write=True) as transaction:
                    for key, value in self._pending:
                        transaction.put(key, value)
                break
            except lmdb.MapFullError:
                self._env.set_mapsize(2 * self._env.info()['map_size'])
        self._pending, self._pending_bytes = [], 0

    def __exit__(self, kind: Optional[type], error: Optional[BaseException], trace: object) -> None:
        try:
            if kind is None:
                self._commit()
                self._env.sync(True)
        finally:
            self._env.close()
        if kind is not None:
            shutil.rmtree(self._partial, ignore_errors=True)
            return
        with open(self._partial / 'meta_info.txt', 'w') as file:
            file.writelines(self._lines)
            file.flush()
            os.fsync(file.fileno())
        if self.path.exists():
            shutil.rmtree(self.path)
        self._partial.rename(self.path)


def write_folders(writer: BurstLmdbWriter, folders: Iterable[Path], *, prefix: str = '') -> None:
    """Add folders of frames, one clip each, named by the folder.

    PNG files go in as they are; other formats are encoded as PNG, 16 bit kept.

    Raises:
        DataError: a folder holds no images, or an image is unreadable or of another size than its clip.
    """
    clips = []
    for folder in folders:
        files = list_images(folder)
        if not files:
            raise DataError(f'{folder}: holds no images.')
        sizes = {image_size(file) for file in files}
        if len(sizes) > 1:
            raise DataError(f'{folder}: frames of unequal size: {", ".join(f"{w} x {h}" for h, w in sorted(sizes))}.')
        clips.append((prefix + folder.name, files))
    progress = tqdm(total=sum(len(files) for _, files in clips), unit='frame', desc=f'Write {writer.path.name}')
    with progress:
        for name, files in clips:
            for index, file in enumerate(files):
                content = file.read_bytes()
                image = decode_srgb(content, str(file))
                if file.suffix.lower() == '.png':
                    writer.put(name, index, content, image.shape)
                else:
                    writer.put_image(name, index, image)
                progress.update()
