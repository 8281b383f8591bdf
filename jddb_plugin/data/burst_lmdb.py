"""Burst LMDBs: one key ``clip/00000000`` per frame, an encoded image each, and the toolbox's meta_info.txt.

The format is the toolbox's own (its FileClient and data sets read it). Writing differs: the map grows as needed, and the database
gets its name only when it is complete. Readers survive a fork. Frames are
sRGB of 8 or 16 bit, or Bayer mosaics as single-channel images of 16 bit with samples as the sensor gave them, 10 to 16
bit; an image is a PNG, or an uncompressed TIFF. A clip of mosaics has the camera metadata of its first frame as JSON under
``clip/metadata``, and those of a frame that differs under ``clip/00000000/metadata``. ``checksums.txt`` holds the CRC-32 of
every value.
"""
from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator, Optional

import lmdb
import numpy as np
from filelock import FileLock

from jddb_plugin.checks import DataError, check_choice
from jddb_plugin.data.images import PNG_LEVEL, encode_png, image_header, image_suffix, to_tiff
from jddb_plugin.data.lmdb_reader import CHECKSUMS, META_INFO, METADATA, close, frame_key, metadata_key, open_readonly
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.files import atomic_write, take_lock

PLAN = 'plan.json'  # of build.py; removed when the build is complete
LOCK = 'build.lock'
#: How frames may be stored.
ENCODINGS = ('png', 'tiff')
_FIRST_MAP_BYTES = 64 << 20
# A kill loses at most this much.
_COMMIT_BYTES = 32 << 20
_COMMIT_VALUES = 32
_LITTLE_ROOM = 1 << 20


class BurstLmdbWriter:
    """Context manager that writes ``path`` atomically.

    Values go to ``path + '.partial'``, which is renamed when the block ends. Only one process may write there; a kill
    leaves it there.

    Args:
        path: the database's folder, must end in ``.lmdb``.
        overwrite: replace an existing database once the new one is complete, and a leftover ``.partial`` at once.
        resume: continue with a leftover ``.partial``; values in it (:meth:`holds`) need not be put again.
        keep_partial: keep ``.partial`` when the block fails, for ``resume``; otherwise it is removed.
        encoding: of :meth:`put_image`, 'png' or 'tiff' (uncompressed: larger, and decoded many times faster).

    Raises:
        DataError: the name does not end in ``.lmdb``; the database exists; another process is writing it, or was interrupted
            while writing it; it cannot be written, e.g. because the disk is full.
    """

    def __init__(self, path: str, *, overwrite: bool = False, resume: bool = False, keep_partial: bool = False,
                 encoding: str = 'png') -> None:
        check_choice(encoding, ENCODINGS, 'encoding')
        self.path = Path(path).expanduser()
        if self.path.suffix != '.lmdb':
            raise DataError(f"{path}: the name of a burst LMDB must end in '.lmdb'.")
        self.partial = self.path.with_name(self.path.name + '.partial')
        self._overwrite, self._resume, self._keep = overwrite, resume, keep_partial
        self._check_new()
        self._file_lock: Optional[FileLock] = None
        self._encoding = encoding
        self._shapes: dict[str, tuple[int, int, int]] = {}
        self._suffixes: dict[str, str] = {}
        self._checksums: dict[str, int] = {}
        self._pending: list[tuple[str, bytes]] = []
        self._pending_bytes = 0
        self._env: Optional[lmdb.Environment] = None

    def _check_new(self) -> None:
        if self.path.exists() and not self._overwrite:
            raise DataError(f'{self.path}: already exists; remove it, choose another name, or pass --overwrite.')

    def __enter__(self) -> BurstLmdbWriter:
        with self._one_line():
            self.partial.mkdir(parents=True, exist_ok=True)
            self._file_lock = take_lock(self.partial / LOCK, wait=False)
            if self._file_lock is None:
                raise DataError(f'{self.path}: another process is building it; wait for it, or choose another name.')
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def _start(self) -> None:
        if self.path.exists() and not self._overwrite:  # another process has finished it since the first look
            shutil.rmtree(self.partial)
        self._check_new()
        left_over = (self.partial / 'data.mdb').exists()
        if left_over and not self._resume:
            if not self._overwrite:
                raise DataError(f'{self.partial}: left over from an interrupted build; continue with --resume, or start over '
                                'with --overwrite.')
            for file in self.partial.iterdir():
                if file.name != LOCK:
                    file.unlink()
        with self._one_line():
            if left_over and self._resume and (self.partial / 'data.mdb').stat().st_size:  # else killed at the very start
                open_readonly(str(self.partial)).close()
            self._env = lmdb.open(str(self.partial), map_size=_FIRST_MAP_BYTES)
            with self._env.begin() as transaction:
                for key, value in transaction.cursor():
                    self._record(key.decode(), value)

    def holds(self, key: str) -> bool:
        """Whether the value exists, put now or before an interruption."""
        return key in self._checksums

    def get(self, key: str) -> Optional[bytes]:
        """The value, or None if it does not exist."""
        pending = dict(self._pending).get(key)
        if pending is not None:
            return pending
        with self._one_line(), self._open_environment().begin() as transaction:
            return transaction.get(key.encode())

    def write_plan(self, plan: dict[str, str]) -> None:
        """Store the plan of a build beside its data until it is complete."""
        with self._one_line(), atomic_write(self.partial / PLAN) as file:
            file.write_text(json.dumps(plan), encoding='utf-8')

    def read_plan(self) -> dict[str, str]:
        """The plan that :meth:`write_plan` stored before an interruption.

        Raises:
            DataError: there is none, or it is damaged.
        """
        try:
            return dict(json.loads((self.partial / PLAN).read_text(encoding='utf-8')))
        except (OSError, ValueError) as error:
            raise DataError(f'{self.partial / PLAN}: cannot be read ({error}), so the build cannot be resumed; start '
                            'over with --overwrite.') from error

    def __len__(self) -> int:
        return len(self._checksums)

    def put(self, clip: str, index: int, image: bytes) -> None:
        """Add frame ``index`` of ``clip``: the bytes of a PNG or TIFF, RGB of 8 or 16 bit or one channel of 16 bit."""
        key = frame_key(clip, index)
        shape, bits = image_header(image, key)
        if (shape[2], bits) not in ((3, 8), (3, 16), (1, 16)):
            raise DataError(f'{key}: expected an image with 3 channels of 8 or 16 bits, or 1 of 16, '
                            f'got {shape[2]} of {bits}.')
        self._put(key, image, shape)

    def put_image(self, clip: str, index: int, image: np.ndarray) -> None:
        """Add a frame given as RGB [H, W, 3], uint8 or uint16, or as a Bayer mosaic [H, W], uint16."""
        key = frame_key(clip, index)
        png = encode_png(image, key)
        self.put(clip, index, png if self._encoding == 'png' else to_tiff(png, key))

    def put_metadata(self, clip: str, metadata: CameraMetadata, index: Optional[int] = None) -> None:
        """Add the camera metadata of a clip of Bayer mosaics, or of one of its frames if they differ from the first frame's."""
        key = metadata_key(clip, index)
        self._put(key, metadata.check(key).to_json().encode())

    def _put(self, key: str, value: bytes, shape: Optional[tuple[int, int, int]] = None) -> None:
        if not key.isprintable() or len(key.encode()) > 500:  # meta_info.txt has one line per key, LMDB keys 511 bytes
            raise DataError(f'{key!r}: names of clips must consist of printable characters and be shorter than 480 bytes; rename '
                            'the clip.')
        self._pending.append((key, value))
        self._pending_bytes += len(value)
        self._record(key, value, shape)
        if self._pending_bytes >= _COMMIT_BYTES or len(self._pending) >= _COMMIT_VALUES:
            self._commit()

    def _record(self, key: str, value: bytes, shape: Optional[tuple[int, int, int]] = None) -> None:
        self._checksums[key] = zlib.crc32(value)
        if not key.endswith(f'/{METADATA}'):
            self._shapes[key] = shape or image_header(value, key)[0]  # not known yet if it was written before an interruption
            self._suffixes[key] = image_suffix(value)

    def _commit(self) -> None:
        environment = self._open_environment()
        with self._one_line():
            while self._pending:
                try:
                    with environment.begin(write=True) as transaction:
                        for key, value in self._pending:
                            transaction.put(key.encode(), value)
                    break
                except lmdb.MapFullError:
                    environment.set_mapsize(2 * environment.info()['map_size'])
            self._pending, self._pending_bytes = [], 0

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        """Turn errors of the disk and of LMDB into one line with a remedy."""
        remedy = 'then continue with --resume; values written so far are kept' if self._keep else 'then run the command again'
        try:
            yield
        except (lmdb.Error, OSError) as error:
            if self._disk_is_full(error):
                raise DataError(f'{self.partial}: the disk is full ({error}). Free some space, {remedy}.') from error
            if isinstance(error, (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError)):
                raise DataError(f'{self.partial}: damaged ({error}); start over with --overwrite.') from error
            raise DataError(f'{self.partial}: cannot be written ({error}). Fix the problem, {remedy}.') from error

    def _disk_is_full(self, error: Exception) -> bool:
        if isinstance(error, lmdb.DiskError) or getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        try:  # LMDB reports a write that found room for a part only as an input/output error
            return shutil.disk_usage(self.partial).free < max(self._pending_bytes, _LITTLE_ROOM)
        except OSError:
            return False

    def _open_environment(self) -> lmdb.Environment:
        if self._env is None:
            raise DataError(f'{self.path}: the writer is not open; use it in a with statement.')
        return self._env

    def _close(self) -> None:
        if self._env is not None:
            self._env.close()
        if self._file_lock is not None:
            self._file_lock.release()

    def __exit__(self, kind: Optional[type], error: Optional[BaseException], trace: object) -> None:
        try:
            if kind is None:
                self._finish()
            elif self._keep and self._checksums:
                with suppress(DataError):  # the block's own error is the one to report
                    self._commit()
            else:
                shutil.rmtree(self.partial, ignore_errors=True)
        finally:
            self._close()

    def _finish(self) -> None:
        self._commit()
        environment = self._open_environment()
        with self._one_line():
            environment.sync(True)
            environment.close()
            frames = [f'{key}{self._suffixes[key]} ({h},{w},{c}) {PNG_LEVEL}\n'
                      for key, (h, w, c) in sorted(self._shapes.items())]
            checksums = [f'{key} {value:08x}\n' for key, value in sorted(self._checksums.items())]
            for name, lines in ((META_INFO, frames), (CHECKSUMS, checksums)):
                with open(self.partial / name, 'w', encoding='utf-8') as file:
                    file.writelines(lines)
                    file.flush()
                    os.fsync(file.fileno())
            close(self.path)
            if self.path.exists():
                shutil.rmtree(self.path)
            self.partial.rename(self.path)
            for name in (PLAN, LOCK):
                (self.path / name).unlink(missing_ok=True)
