"""Large arrays that are read and written a few rows at a time, in memory or in a file without a name.

Not ``np.memmap``: mapped pages count as resident memory, which ``--memory`` bounds, and a full disk would end the process.
"""
from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO, Optional

import numpy as np
from numpy.typing import DTypeLike

from jddb_plugin.checks import DataError


def spool_folder() -> Path:
    """The system's folder for temporary files.

    Raises:
        DataError: none can be written to.
    """
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise DataError(f'there is no folder for temporary files ({error.strerror or error}); free some space, or choose one by '
                        'TMPDIR.') from error


class Rows:
    """An array [H, W, ...] that is written and read by rows.

    Args:
        shape: of the array.
        dtype: of its values.
        folder: where its file lies; None keeps it in memory. The file has no name there and is gone when it is closed, or
            when the process ends in whatever way.

    Raises:
        DataError: the disk is full, or the folder cannot be written to.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, *, folder: Optional[Path] = None) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self._folder = folder
        self._array = np.zeros(shape, dtype) if folder is None else None
        self._row_bytes = int(np.prod(shape[1:])) * self.dtype.itemsize
        self._file: Optional[IO[bytes]] = None
        if folder is not None:
            try:
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by close)
                self._file.truncate(shape[0] * self._row_bytes)
            except OSError as error:
                raise self._failed(error) from error

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of the process's memory that the array takes."""
        return 0 if self._array is None else self._array.nbytes

    def spill(self, folder: Path) -> None:
        """Move the array from memory into a file."""
        if self._array is None:
            return
        moved = Rows(self.shape, self.dtype, folder=folder)
        moved.write(0, self._array)
        self._array, self._file, self._folder = None, moved._file, folder

    def write(self, first: int, values: np.ndarray) -> None:
        """Write rows ``first``, ``first + 1``, ..."""
        if self._array is not None:
            self._array[first:first + len(values)] = values
            return
        try:
            content = np.ascontiguousarray(values, dtype=self.dtype).data.cast('B')
            position = first * self._row_bytes
            while content:
                written = os.pwrite(self._descriptor(), content, position)
                content, position = content[written:], position + written
        except OSError as error:
            raise self._failed(error) from error

    def read(self, first: int, last: int) -> np.ndarray:
        """Rows ``first`` to ``last - 1``; not to be changed."""
        if self._array is not None:
            return self._array[first:last]
        content = self._pread((last - first) * self._row_bytes, first * self._row_bytes)
        return np.frombuffer(content, self.dtype).reshape(last - first, *self.shape[1:])

    def read_columns(self, first: int, last: int) -> np.ndarray:
        """Columns ``first`` to ``last - 1`` of all rows, [H, last - first, ...]; not to be changed."""
        if self._array is not None:
            return self._array[:, first:last]
        pixel = self._row_bytes // self.shape[1]
        parts = [self._pread((last - first) * pixel, row * self._row_bytes + first * pixel) for row in range(self.shape[0])]
        return np.frombuffer(b''.join(parts), self.dtype).reshape(self.shape[0], last - first, *self.shape[2:])

    def close(self) -> None:
        """Free memory and disk."""
        self._array = None
        if self._file is not None:
            self._file.close()

    def _descriptor(self) -> int:
        if self._file is None:
            raise ValueError('the array is closed')
        return self._file.fileno()

    def _pread(self, count: int, position: int) -> bytes:
        parts = []
        while count:
            part = os.pread(self._descriptor(), count, position)
            if not part:
                raise DataError(f'{self._folder}: a temporary file was truncated; restore again.')
            parts.append(part)
            count, position = count - len(part), position + len(part)
        return b''.join(parts)

    def _failed(self, error: OSError) -> DataError:
        return DataError(f'{self._folder}: a temporary file of {self.shape[0] * self._row_bytes / 1e6:.0f} MB cannot be written '
                         f'({error.strerror or error}); free some space, or choose another folder by TMPDIR.')
