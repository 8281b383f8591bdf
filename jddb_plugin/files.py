"""Files that are complete or not there, locks between processes, and temporary folders that do not outlive a killed process."""
from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Union

from filelock import FileLock, Timeout

_logger = logging.getLogger('jddb_plugin')
_PREFIX = 'jddb_plugin_'
_LOCK = '.lock'
_DAY = 86400


@contextlib.contextmanager
def atomic_write(path: Union[str, os.PathLike[str]], *, durable: bool = False,
                 keep_suffix: bool = False) -> Iterator[Path]:
    """Write a file so that ``path`` is either the old one or the complete new one.

    The block writes to the path that it is given, ``NAME.partial`` beside ``path``, by whatever means. When it ends, the file
    takes its name; when it raises, the file is removed.

    Args:
        path: of the file.
        durable: also hold after a power cut: the content reaches the disk before the name does.
        keep_suffix: write to ``STEM.partial.SUFFIX``, for writers that choose the format by the name.

    Raises:
        OSError: it could not be written; the old file is untouched. A caller says what that means.
    """
    path = Path(path)
    partial = path.with_suffix(f'.partial{path.suffix}') if keep_suffix else path.with_name(f'{path.name}.partial')
    try:
        yield partial
        if durable:
            with open(partial, 'rb+') as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
        if durable:
            with contextlib.suppress(OSError):  # file systems that cannot do it are left alone
                _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def take_lock(path: Union[str, os.PathLike[str]], *, wait: bool) -> Optional[FileLock]:
    """An exclusive lock on a file, which is made if it is not there; the kernel releases it when the process ends, however.

    Where the file system knows no locks there is a warning, and everybody gets the lock.

    Returns:
        The lock, to be released; None if another process holds it and ``wait`` is False, or held it and has removed the file.

    Raises:
        OSError: the file cannot be made.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        return None
    except (OSError, NotImplementedError) as error:
        _logger.warning('%s: cannot be locked (%s); make sure that no other process works on the same.', path, error)
        return lock
    if not os.path.exists(path):
        lock.release()
        return None
    return lock


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is removed at the end of the block, or at the start of the next one, if the process is killed.

    The folder's lock, which the kernel releases when the process ends, says whether it is in use.
    """
    parent = Path(tempfile.gettempdir())
    _remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    lock = take_lock(folder / _LOCK, wait=False)
    try:
        yield folder
    finally:
        if lock is not None:
            lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f'{_PREFIX}*'):
        with contextlib.suppress(OSError):
            if hasattr(os, 'getuid') and folder.stat().st_uid != os.getuid():
                continue
            if not (folder / _LOCK).is_file() and time.time() - folder.stat().st_mtime < _DAY:
                continue  # it may just be in the making
            lock = take_lock(folder / _LOCK, wait=False)
            if lock is not None:
                try:
                    shutil.rmtree(folder, ignore_errors=True)
                finally:
                    lock.release()
