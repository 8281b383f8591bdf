"""Where camera files keep their Exif data: in their own directories, in an embedded JPEG, or in boxes."""
from __future__ import annotations

import struct
from typing import Optional

from jddb_plugin.data.raw_shots import boxes
from jddb_plugin.data.tiff_tags import Content, Directory, parse_tiff

_CANON = bytes.fromhex('85c0b687820f11e08111f4ce462b6a48')
_PANASONIC_PREVIEW = 46
_MOST_SEGMENTS = 100


def exif_directories(content: Content) -> list[Directory]:
    """Directories that may hold Exif tags, in order of precedence."""
    if content[:16] == b'FUJIFILMCCD-RAW ' and len(content) >= 92:
        start, size = struct.unpack('>2I', content[84:92])
        return _of_tiff(_in_jpeg(bytes(content[start:start + size])))
    if content[4:8] == b'ftyp':
        return _of_canon(content)
    if content[:4] == b'\0MRM':
        return _of_tiff(_of_minolta(content))
    if content[:2] == b'\xff\xd8':
        return _of_tiff(_in_jpeg(bytes(content[:1 << 20])))
    found = _of_tiff(content)
    preview = found[0].bytes(_PANASONIC_PREVIEW) if found else b''
    return found + (_of_tiff(_in_jpeg(preview)) if preview[:2] == b'\xff\xd8' else [])


def _of_tiff(content: Optional[Content]) -> list[Directory]:
    directories = parse_tiff(content) if content else []
    return [part for top in directories[:1] for part in (top.exif, top) if part is not None]


def _in_jpeg(content: bytes) -> Optional[bytes]:
    """The block of Exif data of a JPEG."""
    place = 2
    for _ in range(_MOST_SEGMENTS):
        if place + 4 > len(content) or content[place] != 0xFF:
            return None
        marker, size = content[place + 1], struct.unpack('>H', content[place + 2:place + 4])[0]
        if marker == 0xE1 and content[place + 4:place + 10] == b'Exif\0\0':
            return content[place + 10:place + 2 + size]
        if marker == 0xDA:
            return None
        place += 2 + size
    return None


def _of_canon(content: Content) -> list[Directory]:
    """CR3: box CMT2 holds the tags of the shot, CMT1 the others, each laid out like a TIFF."""
    found: dict[bytes, list[Directory]] = {}
    for name, first, end in boxes(content, 0, len(content)):
        if name != b'moov':
            continue
        for inner, start, stop in boxes(content, first, end):
            if inner != b'uuid' or content[start:start + 16] != _CANON:
                continue
            for block, at, until in boxes(content, start + 16, stop):
                if block in (b'CMT1', b'CMT2'):
                    found[block] = _of_tiff(bytes(content[at:until]))
    return found.get(b'CMT2', []) + found.get(b'CMT1', [])


def _of_minolta(content: Content) -> Optional[bytes]:
    end = min(8 + struct.unpack('>I', content[4:8])[0], len(content))
    place = 8
    while place + 8 <= end:
        name, (size,) = bytes(content[place:place + 4]), struct.unpack('>I', content[place + 4:place + 8])
        if name == b'\0TTW':
            return bytes(content[place + 8:place + 8 + size])
        place += 8 + size
    return None
