"""LibRaw, through rawpy: damage is reported as an error in one line."""
from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Optional

from jddb_plugin.checks import DataError, optional_package

_stderr_lock = threading.Lock()
_DAMAGE = re.compile(rb'(unexpected end of file|data corrupted|corrupt)', re.IGNORECASE)


@contextlib.contextmanager
def open_raw(path: Path, *, content: Optional[BinaryIO] = None, shot: int = 0) -> Iterator[Any]:
    """A ``rawpy.RawPy`` with its samples unpacked, closed behind the block.

    Args:
        path: the file.
        content: read instead of the file.
        shot: which of several mosaics.

    Raises:
        DataError: rawpy is not installed, LibRaw cannot read the file, or reports damage.
    """
    rawpy = optional_package('rawpy', str(path))
    try:
        with _check_stderr(path):
            raw = rawpy.imread(str(path) if content is None else content, shot_select=shot)
            raw.unpack()
        with raw:
            yield raw
    except (rawpy.LibRawIOError, rawpy.LibRawDataError) as error:
        raise DataError(f'{path}: LibRaw cannot read it: damaged or truncated ({_reason(error)}); copy it again.') from error
    except rawpy.LibRawError as error:
        raise DataError(f'{path}: LibRaw cannot read it ({_reason(error)}); replace it or convert it to DNG.') from error


def _reason(error: Exception) -> str:
    text = error.args[0] if error.args else type(error).__name__
    return text.decode(errors='replace') if isinstance(text, bytes) else str(text)


@contextlib.contextmanager
def _check_stderr(path: Path) -> Iterator[None]:
    """Raise DataError for damage that LibRaw reports on the standard error stream: rawpy reports it in no other way."""
    with _stderr_lock, tempfile.TemporaryFile() as file:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        try:
            saved = os.dup(2)
        except OSError:  # there is no such stream
            yield
            return
        try:
            os.dup2(file.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            output = file.read()
            if output and not _DAMAGE.search(output):
                os.write(2, output)
    if _DAMAGE.search(output):
        line = ' '.join(output.decode(errors='replace').replace(str(path), '').strip(' :\n').splitlines()[0].split())
        raise DataError(f'{path}: LibRaw cannot read it: damaged or truncated ({line}); copy it again.')
