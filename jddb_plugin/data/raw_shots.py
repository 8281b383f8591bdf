"""How many mosaics a camera file other than a DNG holds: Canon's rolls (CR3), Pentax's and others' pixel shift."""
from __future__ import annotations

import struct
from collections.abc import Iterator

from jddb_plugin.data import dng_tags as t
from jddb_plugin.data.tiff_tags import Content, parse_tiff

_BOXES = (b'moov', b'trak', b'mdia', b'minf', b'stbl')
_CFA = 32803
_MOST = 1000


def count_shots(content: Content) -> int:
    """Mosaics of a file, by its headers; 1 if they do not say."""
    if content[4:8] == b'ftyp':
        return _samples_of_tracks(content)
    found = [part for top in parse_tiff(content) for part in top.walk() if part.number(t.PHOTOMETRIC) == _CFA]
    full = [part for part in found if part.number(t.SUBFILE_TYPE) == 0]
    sizes = [(part.number(t.HEIGHT), part.number(t.WIDTH)) for part in full]
    return max(sizes.count(max(sizes)), 1) if sizes else 1


def boxes(content: Content, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, first byte, end) of the boxes between two places."""
    place = start
    while place + 8 <= end:
        size, = struct.unpack('>I', content[place:place + 4])
        head = 8
        if size == 1 and place + 16 <= end:
            size, = struct.unpack('>Q', content[place + 8:place + 16])
            head = 16
        size = end - place if size == 0 else size
        if size < head:
            return
        yield bytes(content[place + 4:place + 8]), place + head, min(place + size, end)
        place += size


def _samples_of_tracks(content: Content) -> int:
    """The most samples of a track: a still has one, a roll one for each shot."""
    most = 1
    stack = [(0, len(content))]
    while stack:
        for name, first, end in boxes(content, *stack.pop()):
            if name in _BOXES:
                stack.append((first, end))
            elif name == b'stsz' and first + 12 <= end:
                count, = struct.unpack('>I', content[first + 8:first + 12])
                most = max(most, min(count, _MOST))
    return most
