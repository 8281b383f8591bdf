"""Locks between processes that the kernel releases when their holder ends, however it ends."""
from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Optional

try:
    import fcntl
except ImportError:  # not a Unix: no locks
    fcntl = None  # type: ignore[assignment]

_logger = logging.getLogger('jddb_plugin')


class FileLock:
    """Exclusive lock on a file, which is made if it is not there.

    Where the file system knows no locks there is a warning, and everybody gets the lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: Optional[int] = None

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock; False if another holds it (and ``wait`` is False), or did and has removed the file meanwhile."""
        if fcntl is None:
            return True
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError as error:
            _logger.warning('%s: cannot be locked (%s); see to it that no other process works on the same.', self.path, error)
        self._handle = handle
        try:
            same = os.path.samestat(os.fstat(handle), os.stat(self.path))
        except FileNotFoundError:
            same = False
        if not same:
            self.release()
        return same

    def release(self) -> None:
        """Give the lock back; the file stays."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
