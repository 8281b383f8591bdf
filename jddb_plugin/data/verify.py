"""Check a finished burst LMDB: every value against its checksum, every frame against meta_info.txt."""
from __future__ import annotations

import functools
import re
import zlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional

from tqdm import tqdm

from jddb_plugin.checks import DataError
from jddb_plugin.data.frame_source import META_LINE, read_lines
from jddb_plugin.data.images import decode_mosaic, decode_srgb, image_header
from jddb_plugin.data.lmdb_reader import CHECKSUMS, META_INFO, METADATA, list_keys, metadata_key, read_value
from jddb_plugin.data.metadata import parse_metadata
from jddb_plugin.data.workers import run_in_order

_CHUNK = 16


@dataclass(frozen=True)
class _Expected:
    key: str
    checksum: int
    shape: Optional[tuple[int, int, int]]  # None for metadata


def verify(path: Path, *, workers: int = 1) -> tuple[str, list[str]]:
    """Decode and check everything.

    Args:
        path: the database's folder.
        workers: processes. 0 uses this one; pages whose damage crashes the reading process would end it.

    Returns:
        a summary in one line, and one line for each problem, which names its key.

    Raises:
        DataError: the folder is not a burst LMDB, or cannot be read at all.
    """
    path = path.expanduser()
    if not (path / 'data.mdb').is_file():
        raise DataError(f'{path}: is not an LMDB (it has no data.mdb).')
    shapes, checksums = _read_meta(path), _read_checksums(path)
    expected = [_Expected(key, value, shapes.get(key)) for key, value in checksums.items()]
    problems = [f'{key}: is in {META_INFO}, but not in {CHECKSUMS}' for key in shapes if key not in checksums]
    problems += [f'{item.key}: is in {CHECKSUMS}, but not in {META_INFO}' for item in expected
                 if item.shape is None and not item.key.endswith(f'/{METADATA}')]
    mosaics = {key.rsplit('/', 1)[0] for key, shape in shapes.items() if shape[2] == 1}
    problems += [f'{metadata_key(clip)}: missing; a clip of mosaics needs metadata'
                 for clip in sorted(mosaics) if metadata_key(clip) not in checksums]

    def tasks() -> Iterator[functools.partial[list[str]]]:
        yield functools.partial(_unexpected_keys, path, frozenset(checksums))
        for start in range(0, len(expected), _CHUNK):
            yield functools.partial(_check, path, tuple(expected[start:start + _CHUNK]))

    with closing(run_in_order(tasks(), workers)) as results, \
            tqdm(total=len(expected), unit='value', desc=f'Verify {path.name}') as progress:
        try:
            for number, found in enumerate(results):
                problems += found
                progress.update(min(_CHUNK, len(expected) - progress.n) if number else 0)
        except DataError as error:
            if 'worker process was killed' not in str(error):
                raise
            problems.append(f'data.mdb: reading it crashes the process (after {progress.n} of {len(expected)} values): pages of '
                            'the database itself are damaged')
    clips = len({key.rsplit('/', 1)[0] for key in shapes})
    state = f'{len(problems)} problem{"s" * (len(problems) > 1)}' if problems else 'sound'
    return f'{path}: {state}; {clips} clips, {len(shapes)} frames, {len(mosaics)} clips of mosaics', problems


def _read_meta(path: Path) -> dict[str, tuple[int, int, int]]:
    shapes = {}
    for number, line in enumerate(read_lines(path / META_INFO), 1):
        match = META_LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(f"{path / META_INFO}, line {number}: expected 'clip/frame.png (height,width,channels) level', got "
                            f'{line!r}; rebuild the LMDB.')
        shapes[f"{match['clip']}/{match['frame']}"] = int(match['height']), int(match['width']), int(match['channels'])
    return shapes


def _read_checksums(path: Path) -> dict[str, int]:
    checksums = {}
    for number, line in enumerate(read_lines(path / CHECKSUMS), 1):
        match = re.fullmatch(r'(.+) ([0-9a-f]{8})', line)
        if match is None:
            raise DataError(f"{path / CHECKSUMS}, line {number}: expected 'key 8-hex-digits', got {line!r}; rebuild the LMDB.")
        checksums[match[1]] = int(match[2], 16)
    return checksums


def _unexpected_keys(path: Path, known: frozenset[str]) -> list[str]:
    return [f'{key}: is in the database, but not in {CHECKSUMS}' for key in list_keys(path) if key not in known]


def _check(path: Path, values: tuple[_Expected, ...]) -> list[str]:
    problems = []
    bits: dict[str, int] = {}  # of clips of mosaics
    for value in values:
        try:
            content = read_value(path, value.key)
            if content is None:
                raise DataError('missing')
            if zlib.crc32(content) != value.checksum:
                raise DataError(f'checksum {zlib.crc32(content):08x}, expected {value.checksum:08x}')
            if value.key.endswith(f'/{METADATA}'):
                parse_metadata(content.decode(errors='replace'), 'damaged')
            elif value.shape is not None:
                _check_frame(path, value.key, content, value.shape, bits)
        except DataError as error:
            problems.append(f'{value.key}: {error}')
    return problems


def _check_frame(path: Path, key: str, content: bytes, shape: tuple[int, int, int], bits: dict[str, int]) -> None:
    actual, depth = image_header(content, 'value')
    if actual != shape:
        raise DataError(f'is {list(actual)}, but {list(shape)} in {META_INFO}')
    if shape[2] == 3:
        if depth not in (8, 16):
            raise DataError(f'{depth} bits per channel, expected 8 or 16')
        decode_srgb(content, 'value')
        return
    mosaic = decode_mosaic(content, 'value')
    clip = key.rsplit('/', 1)[0]
    if clip not in bits:
        try:
            text = read_value(path, metadata_key(clip)) or b''
            bits[clip] = parse_metadata(text.decode(errors='replace'), clip).bits
        except DataError:  # reported under its own key
            bits[clip] = 16
    if int(mosaic.max()) >= 2 ** bits[clip]:
        raise DataError(f'holds a sample of {int(mosaic.max())}, but the clip has {bits[clip]} bits per sample')
