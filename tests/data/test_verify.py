"""What verify finds in damaged burst LMDBs."""
import cv2
import lmdb
import pytest

from jddb_plugin.checks import DataError
from jddb_plugin.data.build import build
from jddb_plugin.data.source_clips import find_clips
from jddb_plugin.data.verify import verify as in_a_worker

from .build_run import contents, noise, source_of, verify, write_raw


@pytest.fixture
def sound(tmp_path, raw_reader, texture_folder):
    """An LMDB with a clip of mosaics, and one with sRGB."""
    for index in range(2):
        write_raw(tmp_path / 'in' / 'night' / f'{index}.dng', noise((32, 40), 12, index))
    build(find_clips(tmp_path / 'in'), str(tmp_path / 'raw.lmdb'))
    build(find_clips(texture_folder), str(tmp_path / 'srgb.lmdb'))
    return tmp_path


def replace(path, key, value):
    with lmdb.open(str(path), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        if value is None:
            transaction.delete(key.encode())
        else:
            transaction.put(key.encode(), value)


def fix_checksum(path, key, value):
    import zlib
    lines = [f'{key} {zlib.crc32(value):08x}' if line.startswith(key) else line
             for line in (path / 'checksums.txt').read_text().splitlines()]
    (path / 'checksums.txt').write_text('\n'.join(lines) + '\n')


def png(shape, bits):
    return cv2.imencode('.png', noise(shape, bits))[1].tobytes()


@pytest.mark.parametrize(('name', 'key', 'value', 'message'), [
    ('srgb', 'a/00000003', None, 'missing'),
    ('srgb', 'c/00000000', b'x', 'is in the database, but not in checksums.txt'),
    ('srgb', 'a/00000003', png((96, 110, 3), 8), r'is \[96, 110, 3\], but \[96, 112, 3\] in meta_info.txt'),
    ('srgb', 'a/00000003', png((96, 112), 8), r'is \[96, 112, 1\], but'),
    ('srgb', 'a/00000003', b'no png', 'neither a PNG'),
    ('raw', 'night/00000001', png((32, 40), 8), 'expected a Bayer mosaic'),
    ('raw', 'night/00000001', png((32, 40), 14), 'but the clip has 12 bits per sample'),
    ('raw', 'night/metadata', b'{"cfa": ', 'not valid JSON'),
    ('raw', 'night/metadata', None, 'missing'),
])
def test_verify_finds_damage(sound, name, key, value, message):
    path = sound / f'{name}.lmdb'
    assert verify(path)[1] == []
    replace(path, key, value)
    if value is not None:
        with_wrong_checksum = verify(path)[1]
        assert len(with_wrong_checksum) == 1 and with_wrong_checksum[0].startswith(key)
        fix_checksum(path, key, value)
    problems = verify(path)[1]
    assert len(problems) == 1 and problems[0].startswith(key)
    import re
    assert re.search(message, problems[0])


def test_verify_finds_a_flipped_byte(sound):
    path = sound / 'srgb.lmdb'
    data = bytearray((path / 'data.mdb').read_bytes())
    value = contents(path)[0][b'b/00000002']
    data[data.index(value) + len(value) // 2] ^= 1
    (path / 'data.mdb').write_bytes(data)
    problems = verify(path)[1]
    assert len(problems) == 1 and problems[0].startswith('b/00000002: checksum')


def test_verify_names_damaged_pages(sound):
    path = sound / 'srgb.lmdb'
    data = bytearray((path / 'data.mdb').read_bytes())
    for page in range(2, len(data) // 4096):
        data[4096 * page + 8:4096 * page + 64] = bytes(range(56))
    (path / 'data.mdb').write_bytes(data)
    with pytest.raises(DataError, match='cannot be read as an LMDB'):
        verify(path)


def test_verify_survives_pages_that_cannot_be_read(sound):
    path = sound / 'srgb.lmdb'
    data = (path / 'data.mdb').read_bytes()
    place = data.index(b'a/00000003') - 8  # before the key: the value's length, in two halves
    longer = data[place:place + 2] + (30000000 >> 16).to_bytes(2, 'little') + data[place + 4:place + 18]
    # The value ends in the map, but behind the end of the file: a process that reads it gets SIGBUS.
    (path / 'data.mdb').write_bytes(data.replace(data[place:place + 18], longer))
    problems = in_a_worker(path)[1]
    assert len(problems) == 1 and problems[0].startswith('data.mdb: reading it crashes the process')


def test_what_is_no_burst_lmdb_is_one_line(sound):
    path = sound / 'srgb.lmdb'
    with pytest.raises(DataError, match='is not an LMDB'):
        verify(sound / 'in')
    (sound / 'foreign.lmdb').mkdir()
    replace(sound / 'foreign.lmdb', 'x', b'y')
    with pytest.raises(DataError, match='meta_info.txt: cannot be read'):
        verify(sound / 'foreign.lmdb')
    with pytest.raises(DataError, match='meta_info.txt: missing'):
        source_of(sound / 'foreign.lmdb')
    (path / 'checksums.txt').write_text('what\n')
    with pytest.raises(DataError, match='checksums.txt, line 1: expected'):
        verify(path)


@pytest.mark.parametrize('length', [0, 100, 5000, 20000, -1])
def test_a_truncated_database_is_one_line(sound, length):
    path = sound / 'srgb.lmdb'
    size = (path / 'data.mdb').stat().st_size
    with open(path / 'data.mdb', 'r+b') as file:
        file.truncate(size + length if length < 0 else length)
    source = source_of(path)
    with pytest.raises(DataError, match=r'srgb\.lmdb: cannot be read as an LMDB \(.*\); rebuild it') as caught:
        source.read(source.clips['b'], 6)
    assert '\n' not in str(caught.value)
    with pytest.raises(DataError, match='cannot be read as an LMDB'):
        verify(path)
