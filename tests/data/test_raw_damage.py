"""Files that are truncated or half copied: never a picture with repeated or empty rows."""
import struct

import numpy as np
import pytest

from jddb_plugin.checks import DataError
from jddb_plugin.data.raw_damage import check_whole
from jddb_plugin.data.raw_reader import read_raw
from jddb_plugin.data.raw_shots import count_shots
from jddb_plugin.data.tiff_tags import parse_tiff
from tests.data.raw_files import (
    ASCII,
    LONG,
    SHORT,
    UNDEFINED,
    Ifd,
    camera_tags,
    lossless_jpeg,
    mosaic_tags,
    random_mosaic,
    raw_bytes,
    tiff_bytes,
    write_dng,
    write_nested_dng,
)

_PREVIEW = {'NewSubfileType': 1, 'ImageWidth': 8, 'ImageLength': 4, 'BitsPerSample': (8, 8, 8), 'Compression': 1,
            'Photometric': 2,
            'SamplesPerPixel': 3, 'RowsPerStrip': 4, 'PlanarConfiguration': 1, 'Orientation': 1}


def _sub_directory(make, model, compression=1, bits=16):
    """A NEF, ARW or the like: a preview, and the mosaic below it."""
    mosaic = random_mosaic((280, 420))
    raw = {name: value for name, value in mosaic_tags(mosaic, bits=bits, Compression=compression).items()
           if name not in ('CFALayout', 'CFAPlaneColor')}
    data = raw_bytes(mosaic) if bits == 16 else np.random.default_rng(0).integers(0, 256, 280 * 420, dtype=np.uint8).tobytes()
    return [Ifd({**_PREVIEW, 'Make': make, 'Model': model}, bytes(96), [Ifd(raw, data)])]


def nef():
    return tiff_bytes(_sub_directory('NIKON CORPORATION', 'NIKON D200'), order='>', tail=True)


def nef_with_directories_at_its_end():
    return tiff_bytes(_sub_directory('NIKON CORPORATION', 'NIKON D200'), order='>')


def arw():
    return tiff_bytes(_sub_directory('SONY', 'DSLR-A900'), tail=True)


def compressed_arw():
    return tiff_bytes(_sub_directory('SONY', 'DSLR-A900', 32767, 8), tail=True)


def cr2():
    mosaic = random_mosaic((120, 180))
    main = {'ImageWidth': 8, 'ImageLength': 4, 'BitsPerSample': (8, 8, 8), 'Compression': 6, 'Make': 'Canon',
            'Model': 'Canon EOS 40D'}
    raw = {'Compression': 6, 50752: (SHORT, [1, 90, 90])}
    return tiff_bytes([Ifd(main, b'\xff\xd8\xff\xd9'), Ifd(raw, lossless_jpeg(mosaic, 14))], head=b'CR\x02\0' + bytes(4),
                      tail=True)


def rw2(height=280, width=420):
    needed = -(-(-(-height * width // 14) * 16) // 0x4000) * 0x4000
    values = {1: (UNDEFINED, b'0300'), 2: (SHORT, [width]), 3: (SHORT, [height]), 4: (SHORT, [2]), 5: (SHORT, [2]),
              6: (SHORT, [height - 2]), 7: (SHORT, [width - 2]), 8: (SHORT, [1]), 9: (SHORT, [4]), 10: (SHORT, [12]),
              11: (SHORT, [34316]), 14: (SHORT, [4095]), 15: (SHORT, [4095]), 16: (SHORT, [4095]), 23: (SHORT, [80]),
              28: (SHORT, [0]),
              29: (SHORT, [0]), 30: (SHORT, [0]), 36: (SHORT, [570]), 37: (SHORT, [263]), 38: (SHORT, [438]), 45: (SHORT, [4]),
              271: (ASCII, 'Panasonic'), 272: (ASCII, 'DMC-LX3'), 273: (LONG, [0xFFFFFFFF]), 274: (SHORT, [1]),
              278: (LONG, [height]),
              279: (LONG, [needed]), 280: (LONG, [2048])}
    directory = Ifd(values)
    data = np.random.default_rng(0).integers(0, 8, needed, dtype=np.uint8).tobytes()
    return tiff_bytes([directory], magic=0x55).ljust(2048, b'\0') + data


def flat_dng():
    mosaic = random_mosaic((280, 420))
    return tiff_bytes([Ifd({**mosaic_tags(mosaic), **camera_tags(), 'WhiteLevel': 16383}, raw_bytes(mosaic))], tail=True)


def jpeg_dng():
    mosaic = random_mosaic((96, 128))
    return tiff_bytes([Ifd({**mosaic_tags(mosaic), **camera_tags(), 'Compression': 7, 'WhiteLevel': 16383},
                           lossless_jpeg(mosaic))],
                      tail=True)


@pytest.mark.parametrize(('make', 'suffix'), [
    (nef, 'nef'), (nef_with_directories_at_its_end, 'nef'), (arw, 'arw'), (compressed_arw, 'arw'), (cr2, 'cr2'), (rw2, 'rw2'),
    (rw2, 'rwl'), (flat_dng, 'dng'), (jpeg_dng, 'dng')])
def test_cut_at_any_byte_is_refused(tmp_path, make, suffix):
    pytest.importorskip('rawpy')
    content, path = make(), tmp_path / f'a.{suffix}'
    path.write_bytes(content)
    assert min(read_raw(path, log_notes=False).mosaic.shape) > 90
    size = len(content)
    cuts = {size - 1, size - 2, size - 5, 2048, 2047, *range(1, 600, 37), *range(600, size, size // 25)}
    for cut in sorted(cut for cut in cuts if 0 < cut < size):
        path.write_bytes(content[:cut])
        with pytest.raises(DataError) as error:
            read_raw(path, log_notes=False)
        assert f'a.{suffix}: ' in str(error.value) and '\n' not in str(error.value)
        if cut > 1000:
            assert 'truncated' in str(error.value)


def test_panasonic_without_a_byte_count_is_measured_by_its_packing(tmp_path):
    pytest.importorskip('rawpy')
    content = rw2()
    directories = parse_tiff(content)
    directories[0].tags.pop(279)
    check_whole(tmp_path / 'a.rw2', content, directories)
    with pytest.raises(DataError, match='is truncated'):
        check_whole(tmp_path / 'a.rw2', content[:2048 + 280 * 420 * 8 // 7 - 100], directories)


@pytest.mark.parametrize('tail', [True, False])
def test_previews_that_are_cut_count_too(tmp_path, tail):
    write_nested_dng(tmp_path / 'a.dng', [random_mosaic()], tail=tail)
    content = (tmp_path / 'a.dng').read_bytes()
    for cut in (len(content) - 1, len(content) - 90):
        (tmp_path / 'a.dng').write_bytes(content[:cut])
        with pytest.raises(DataError, match='is truncated'):
            read_raw(tmp_path / 'a.dng')


def test_strips_behind_the_end_and_too_short_are_refused(tmp_path):
    mosaic = random_mosaic()
    for tags, message in (({'StripOffsets': 1 << 30}, 'is truncated'), ({'StripByteCounts': 100}, 'holds 100 bytes, but 12288'),
                          ({'RowsPerStrip': 32}, 'holds 1 of 2 strips'),
                          ({'TileWidth': 32, 'TileLength': 32}, 'holds 1 of 6 tiles')):
        write_dng(tmp_path / 'a.dng', mosaic, **tags)
        with pytest.raises(DataError, match=message):
            read_raw(tmp_path / 'a.dng')


def test_a_half_copied_file_of_zeros_is_refused(tmp_path):
    pytest.importorskip('rawpy')
    mosaic = random_mosaic()
    stream = lossless_jpeg(mosaic)
    for data, tags in ((raw_bytes(mosaic)[:8000] + bytes(4288), {}), (stream[:9000] + bytes(len(stream) - 9000),
                                                                      {'Compression': 7}),
                       (stream[:9000], {'Compression': 7})):
        write_dng(tmp_path / 'a.dng', mosaic, data=data, **tags)
        with pytest.raises(DataError, match='damaged or truncated'):
            read_raw(tmp_path / 'a.dng')


def test_bytes_changed_at_random_are_refused_or_harmless(tmp_path, capfd):
    pytest.importorskip('rawpy')
    content = jpeg_dng()
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(100):
        changed = bytearray(content)
        changed[int(rng.integers(0, len(content)))] = int(rng.integers(0, 256))
        (tmp_path / 'a.dng').write_bytes(changed)
        try:
            read_raw(tmp_path / 'a.dng', log_notes=False)
        except DataError as error:
            errors.append(str(error))
    assert len(errors) > 20 and not any('\n' in error for error in errors)
    assert 'corrupt' not in capfd.readouterr().err  # LibRaw's reports became errors


def test_flat_pictures_are_not_taken_for_damage(tmp_path):
    pytest.importorskip('rawpy')
    for value in (0, 1024, 5000, 16383, 65535):
        mosaic = np.full((64, 96), value, np.uint16)
        write_dng(tmp_path / 'a.dng', mosaic, data=lossless_jpeg(mosaic), Compression=7)
        assert (read_raw(tmp_path / 'a.dng').mosaic == min(value, 16383)).all()
    mosaic = random_mosaic()
    mosaic[40:] = 16383  # a white sky
    write_dng(tmp_path / 'a.dng', mosaic, data=lossless_jpeg(mosaic), Compression=7)
    assert np.array_equal(read_raw(tmp_path / 'a.dng').mosaic, mosaic)


def test_libraws_report_of_damage_is_an_error(tmp_path, monkeypatch):
    rawpy = pytest.importorskip('rawpy')
    import os

    class Raw:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def unpack(self):
            os.write(2, b'a.raw: data corrupted at 1234\n')

    monkeypatch.setattr(rawpy, 'imread', lambda *args, **kwargs: Raw())
    from jddb_plugin.data.libraw import open_raw
    with pytest.raises(DataError, match=r'damaged or truncated \(.*data corrupted at 1234'), open_raw(tmp_path / 'a.raw'):
        pass


def _box(name, *content):
    content = b''.join(content)
    return struct.pack('>I4s', len(content) + 8, name) + content


def cr3(*, shots=1):
    """The boxes of a CR3 file, without samples."""
    table = _box(b'stsz', struct.pack('>III', 0, 0, shots), struct.pack('>I', 100) * shots)
    track = _box(b'trak', _box(b'mdia', _box(b'minf', _box(b'stbl', table))))
    camera = tiff_bytes([Ifd({'Make': 'Canon', 'Model': 'Canon EOS R5'})])
    shot = tiff_bytes([Ifd({'ExposureTime': 0.008, 'ISO': 400, 'LensModel': 'RF50mm'})])
    canon = _box(b'uuid', bytes.fromhex('85c0b687820f11e08111f4ce462b6a48'), _box(b'CMT1', camera), _box(b'CMT2', shot))
    return _box(b'ftyp', b'crx \0\0\0\1crx isom') + _box(b'moov', canon, track) + _box(b'mdat', bytes(100 * shots))


def test_canon_boxes():
    content = cr3()
    check_whole('a.cr3', content, [])
    assert count_shots(content) == 1 and count_shots(cr3(shots=24)) == 24
    for cut in (len(content) - 1, len(content) - 60, len(content) - 107, len(content) - 112, 30):
        with pytest.raises(DataError, match='is truncated'):
            check_whole('a.cr3', content[:cut], [])


def test_a_canon_roll_is_told(tmp_path):
    (tmp_path / 'CSI_1.CR3').write_bytes(cr3(shots=3))
    with pytest.raises(DataError, match='holds 3 mosaics .*--frames-of-file'):
        read_raw(tmp_path / 'CSI_1.CR3')


def test_fuji_and_minolta_headers():
    fuji = b'FUJIFILMCCD-RAW '.ljust(84, b'\0') + struct.pack('>6I', 108, 50, 158, 10, 168, 500) + bytes(560)
    check_whole('a.raf', fuji, [])
    for cut in (667, 200, 160, 120):
        with pytest.raises(DataError, match='is truncated'):
            check_whole('a.raf', fuji[:cut], [])
    head = struct.pack('>4sI4sI8s4HBB', b'\0MRM', 56, b'\0PRD', 24, b'21810002', 20, 30, 20, 30, 16, 12) + bytes(1)
    minolta = head[:34] + b'\x59' + bytes(64 - 35) + bytes(20 * 30 * 12 // 8)
    check_whole('a.mrw', minolta, [])
    with pytest.raises(DataError, match='is truncated'):
        check_whole('a.mrw', minolta[:-1], [])


def test_foveon_is_refused_by_name(tmp_path):
    (tmp_path / 'a.x3f').write_bytes(b'FOVb' + bytes(1000))
    with pytest.raises(DataError, match='a.x3f: is a Foveon file'):
        read_raw(tmp_path / 'a.x3f')


def test_a_file_that_shrinks_while_it_is_read_is_one_line(tmp_path, monkeypatch):
    from jddb_plugin.data import raw_camera
    (tmp_path / 'a.dng').write_bytes(flat_dng())
    check = raw_camera.check_whole

    def shrinking(*arguments):
        check(*arguments)
        with open(tmp_path / 'a.dng', 'r+b') as file:
            file.truncate(5000)

    monkeypatch.setattr(raw_camera, 'check_whole', shrinking)
    with pytest.raises(DataError, match='a.dng: cannot be read .*truncated while it was read'):
        read_raw(tmp_path / 'a.dng')


def test_slices_of_files_are_those_of_their_bytes(tmp_path):
    from jddb_plugin.data.tiff_tags import FileContent
    content = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    (tmp_path / 'a').write_bytes(content)
    file = FileContent(tmp_path / 'a')
    file._BLOCK = 64
    assert len(file) == 5000 and file[7] == content[7]
    assert file[:] == content and file[4990:6000] == content[4990:] and file[9:3] == b''
    for start, end in ((0, 5000), (100, 900), (4000, 9000), (50, 50)):
        for found in (content[130:132], content[63:66], content[4999:], b'not there', content[100:102]):
            assert file.rfind(found, start, end) == content.rfind(found, start, end)
