"""Reading burst LMDBs, and the names of their keys and files; burst_lmdb.py describes the format and writes them."""
from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional

import lmdb

from jddb_plugin.checks import DataError

META_INFO = 'meta_info.txt'
CHECKSUMS = 'checksums.txt'
METADATA = 'metadata'

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


def open_readonly(path: str) -> lmdb.Environment:
    """Open for reading. Reading beyond the end of a truncated file would end the process with SIGBUS, so its size is checked."""
    environment = lmdb.open(path, readonly=True, lock=False, readahead=False, meminit=False)
    expected = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
    actual = os.path.getsize(os.path.join(path, 'data.mdb'))
    if actual < expected:
        environment.close()
        raise lmdb.CorruptedError(f'data.mdb holds {actual} of at least {expected} bytes')
    return environment


@contextmanager
def _readable(path: Path) -> Iterator[lmdb.Environment]:
    name = str(path.resolve())
    try:
        with _lock:
            if name not in _environments:
                _environments[name] = open_readonly(name)
            yield _environments[name]
    except (lmdb.Error, OSError) as error:
        raise DataError(f'{path}: cannot be read as an LMDB ({error}); rebuild it.') from error


def read_value(path: Path, key: str) -> Optional[bytes]:
    """Value of ``key`` in the LMDB folder ``path``, or None; read-only, without locks or read-ahead.

    Raises:
        DataError: the database cannot be opened or is damaged.
    """
    with _readable(path) as environment, environment.begin() as transaction:
        return transaction.get(key.encode())


def close(path: Path) -> None:
    """Close the LMDB folder ``path`` in this process, so that others can open or replace it."""
    with _lock:
        environment = _environments.pop(str(path.resolve()), None)
        if environment is not None:
            environment.close()


def list_keys(path: Path) -> list[str]:
    """All keys of the LMDB folder ``path`` in order.

    Raises:
        DataError: the database cannot be opened or is damaged.
    """
    with _readable(path) as environment, environment.begin() as transaction:
        return [key.decode(errors='replace') for key in transaction.cursor().iternext(values=False)]


def frame_key(clip: str, index: int) -> str:
    """Key of a frame."""
    return f'{clip}/{index:08d}'


def metadata_key(clip: str, index: Optional[int] = None) -> str:
    """Key of the camera metadata of a clip, or of one of its frames, which has its own only if they differ."""
    return f'{clip}/{METADATA}' if index is None else f'{frame_key(clip, index)}/{METADATA}'
