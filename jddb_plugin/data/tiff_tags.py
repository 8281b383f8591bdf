"""Directories of TIFF files and of the many raw formats that are laid out like one: DNG, CR2, NEF, ARW, RW2, ORF, PEF, ...

Only tags are read, no samples. Files are not trusted: directories may refer to each other in circles, values may lie behind the
end of the file; what cannot be read is skipped and recorded in :attr:`Directory.broken`.
"""
from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Optional, Union

_NOT_OPEN = -1


class FileContent:
    """A file that looks like bytes; a slice of it is read when it is taken.

    A memory-mapped file would end the process if the file is truncated meanwhile or its disk fails; this raises OSError.

    Raises:
        OSError: it cannot be opened.
    """

    _BLOCK = 1 << 20

    def __init__(self, path: Path) -> None:
        self._file = _NOT_OPEN
        self._file = os.open(path, os.O_RDONLY | getattr(os, 'O_BINARY', 0))
        self._size = os.fstat(self._file).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: Union[int, slice]) -> Any:
        if isinstance(part, int):
            return self[part:part + 1][0]
        start, stop, _ = part.indices(self._size)
        pieces = []
        while start < stop:
            piece = os.pread(self._file, stop - start, start)
            if not piece:
                raise OSError('the file was truncated while it was read')
            pieces.append(piece)
            start += len(piece)
        return b''.join(pieces)

    def rfind(self, found: bytes, start: int, end: int) -> int:
        """The last place of some bytes between two places, -1 if there is none."""
        end = min(end, self._size)
        while end - start >= len(found):
            first = max(end - self._BLOCK, start)
            place = self[first:end].rfind(found)
            if place >= 0:
                return first + place
            if first == start:
                return -1
            end = first + len(found) - 1
        return -1

    def __del__(self) -> None:
        if self._file != _NOT_OPEN:
            os.close(self._file)


Content = Union[bytes, FileContent]

#: Bytes of a value by its type, as TIFF numbers them.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_LETTERS = {1: 'B', 3: 'H', 4: 'I', 5: 'I', 6: 'b', 7: 'B', 8: 'h', 9: 'i', 10: 'i', 11: 'f', 12: 'd', 13: 'I', 16: 'Q', 17: 'q',
            18: 'Q'}
_RATIONAL = (5, 10)
#: Versions of the header: TIFF, BigTIFF, Panasonic and Leica, Olympus (three spellings).
_VERSIONS = (42, 43, 0x55, 0x4F52, 0x5352, 0x524F)
_SUB_DIRECTORIES, EXIF = 330, 34665
_MOST_DIRECTORIES = 64
_MOST_ENTRIES = 2000
_MOST_BYTES = 256 << 20

Number = Union[int, float]


@dataclass(frozen=True)
class Tag:
    """A value that is not yet decoded.

    Attributes:
        kind: its type, as TIFF numbers them.
        count: how many values.
        place: of the first one in the file.
        size: bytes of all.
    """

    kind: int
    count: int
    place: int
    size: int


@dataclass
class Directory:
    """One directory.

    Attributes:
        content: the file.
        order: '<' or '>'.
        tags: by their number.
        children: directories below it.
        exif: the directory of Exif tags.
        broken: numbers of tags whose values lie behind the end of the file; 0 if the directory itself does.
    """

    content: Content
    order: str
    tags: dict[int, Tag] = field(default_factory=dict)
    children: list[Directory] = field(default_factory=list)
    exif: Optional[Directory] = None
    broken: list[int] = field(default_factory=list)

    def __contains__(self, code: int) -> bool:
        return code in self.tags

    def bytes(self, code: int) -> bytes:
        """Bytes of a value; empty if it is not there."""
        tag = self.tags.get(code)
        return b'' if tag is None else bytes(self.content[tag.place:tag.place + tag.size])

    def numbers(self, code: int) -> tuple[Number, ...]:
        """Values as numbers; rational ones as quotients, NaN for those without one. Empty if it is not there, or is text."""
        tag = self.tags.get(code)
        if tag is None or tag.kind not in _LETTERS:
            return ()
        letters = _LETTERS[tag.kind] * (2 if tag.kind in _RATIONAL else 1)
        values = struct.unpack(f'{self.order}{tag.count * len(letters)}{letters[0]}', self.bytes(code))
        if tag.kind not in _RATIONAL:
            return values
        return tuple(top / bottom if bottom else math.nan for top, bottom in zip(values[::2], values[1::2]))

    def number(self, code: int, default: Number = 0) -> Number:
        """First value, or the default."""
        values = self.numbers(code)
        return values[0] if values else default

    def whole(self, code: int, default: int = 0) -> int:
        """First value as a whole number, or the default: for tags that the specification defines as whole numbers.

        Raises:
            ValueError: the value has a fraction, or is not a number.
        """
        value = self.number(code, default)
        if value != int(value):
            raise ValueError(f'tag {code} is {value}, expected a whole number')
        return int(value)

    def text(self, code: int) -> str:
        """Text up to its end; empty if it is not there."""
        return self.bytes(code).split(b'\0')[0].decode('utf-8', 'replace').strip()

    def walk(self) -> Iterator[Directory]:
        """Itself and all below it, without those of Exif."""
        yield self
        for child in self.children:
            yield from child.walk()


class _Parser:
    def __init__(self, content: Content, order: str, is_big: bool) -> None:
        self.content, self.order, self.is_big = content, order, is_big
        self.seen: set[int] = set()

    def chain(self, place: int) -> list[Directory]:
        """Directory at ``place`` and those that follow it."""
        found = []
        while place and place not in self.seen and len(self.seen) < _MOST_DIRECTORIES:
            self.seen.add(place)
            directory, place = self.directory(place)
            if directory is None:
                break
            found.append(directory)
        return found

    def directory(self, place: int) -> tuple[Optional[Directory], int]:
        """(what is at ``place``, place of the next one)."""
        head, entry, inline, letter = (8, 20, 8, 'Q') if self.is_big else (2, 12, 4, 'I')
        count = self._unpack('Q' if self.is_big else 'H', place)
        if count is None or count > _MOST_ENTRIES:
            return None, 0
        result = Directory(self.content, self.order)
        for at in range(place + head, place + head + count * entry, entry):
            code, kind, number = (self._unpack(name, at + offset) for name, offset in (('H', 0), ('H', 2), (letter, 4)))
            size = _SIZES.get(kind or 0, 0) * (number or 0)
            value = at + entry - inline if size <= inline else self._unpack(letter, at + entry - inline)
            if code is None or kind is None or number is None or value is None:
                result.broken.append(0)
                break
            if 0 < size <= _MOST_BYTES and value + size <= len(self.content):
                result.tags.setdefault(code, Tag(kind, number, value, size))
            elif size:
                result.broken.append(code)
        for sub in result.numbers(_SUB_DIRECTORIES)[:_MOST_DIRECTORIES]:
            if not isinstance(sub, int) or sub + 2 > len(self.content):
                result.broken.append(_SUB_DIRECTORIES)
            else:
                result.children += self.chain(sub)
        exif = result.number(EXIF)
        if isinstance(exif, int) and exif and exif not in self.seen:
            self.seen.add(exif)
            result.exif = self.directory(exif)[0]
        following = self._unpack(letter, place + head + count * entry)
        if following is None:
            result.broken.append(0)
        return result, following or 0

    def _unpack(self, letter: str, place: int) -> Optional[int]:
        size = struct.calcsize(letter)
        raw = self.content[place:place + size] if 0 <= place <= len(self.content) - size else b''
        return struct.unpack(self.order + letter, raw)[0] if len(raw) == size else None


def parse_tiff(content: Content) -> list[Directory]:
    """Top directories of a file; none if it is not laid out like a TIFF."""
    order = {b'II': '<', b'MM': '>'}.get(bytes(content[:2]))
    if order is None or len(content) < 8:
        return []
    version, = struct.unpack(order + 'H', content[2:4])
    if version not in _VERSIONS or version == 43 and len(content) < 16:
        return []
    first, = struct.unpack(order + 'Q', content[8:16]) if version == 43 else struct.unpack(order + 'I', content[4:8])
    return _Parser(content, order, version == 43).chain(first)
