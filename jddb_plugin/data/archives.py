"""Images inside zip files, read in place."""
from __future__ import annotations

import contextlib
import functools
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from jddb_plugin.checks import DataError
from jddb_plugin.data.images import IMAGE_SUFFIXES, natural_key


class Member(NamedTuple):
    """A file in a zip file, by its name, with its size in bytes and its checksum."""

    name: str
    size: int
    crc: int


def list_members(path: Path) -> dict[str, tuple[Member, ...]]:
    """Images of a zip file by the folder that holds them, in natural order of their names.

    Raises:
        DataError: not a zip file, or a name in it that leads out of it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f'{path}: not a complete zip file ({error}); download it again.') from error
    folders: dict[PurePosixPath, list[Member]] = {}
    for info in infos:
        name = PurePosixPath(info.filename.replace('\\', '/'))
        if name.is_absolute() or '..' in name.parts or ':' in name.parts[0]:
            raise DataError(f'{path}: {info.filename}: leads out of the archive; this is no data set, do not unpack it.')
        if name.suffix.lower() in IMAGE_SUFFIXES and not name.name.startswith('.') and '__MACOSX' not in name.parts:
            folders.setdefault(name.parent, []).append(Member(info.filename, info.file_size, info.CRC))
    return {str(folder): tuple(sorted(members, key=lambda member: natural_key(PurePosixPath(member.name).name)))
            for folder, members in sorted(folders.items())}


@contextlib.contextmanager
def open_member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    """A file in a zip file, open for reading.

    Raises:
        DataError: it cannot be read, at once or within the block.
    """
    try:
        with _open(archive).open(name) as file:
            yield file
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, KeyError) as error:  # RuntimeError if encrypted
        raise DataError(f'{archive}: {name}: cannot be read ({error}); download the zip file again.') from error


def read_member(archive: Path, name: str) -> bytes:
    """Content of a file in a zip file; errors as of :func:`open_member`."""
    with open_member(archive, name) as file:
        return file.read()


@functools.lru_cache(maxsize=1)
def _open(path: Path) -> zipfile.ZipFile:
    """Each process keeps its archive open: the list of members of a large one takes a while to read."""
    return zipfile.ZipFile(path)
