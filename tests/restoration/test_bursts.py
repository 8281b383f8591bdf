import dataclasses
import os

import cv2
import lmdb
import numpy as np
import pytest

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.restoration.bursts import burst_of_files, find_bursts, safe_name, with_unique_names
from tests.data.test_raw_reader import write_dng, write_matlab
from tests.restoration.samples import CAMERA, make_burst, make_mosaics, scenes, write_tiffs

_NOISE = (2.5e-3, 1e-2)


def _write_pngs(folder, count=3, size=(40, 48), suffix='.png'):
    folder.mkdir(parents=True, exist_ok=True)
    for index, rgb in enumerate(scenes(count, size)):
        cv2.imwrite(str(folder / f'{index}{suffix}'), (255 * rgb[..., ::-1]).astype(np.uint8))
    return folder


def _write_lmdb(path, clips=('a', 'b'), *, srgb=False, metadata=CAMERA):
    with BurstLmdbWriter(str(path)) as writer:
        for name in clips:
            for index, mosaic in enumerate(make_mosaics(3, (40, 48))):
                rgb = np.stack([(mosaic >> 5).astype(np.uint8)] * 3, axis=-1)
                writer.put_image(name, index, rgb if srgb else mosaic)
            if not srgb and metadata is not None:
                writer.put_metadata(name, metadata)
    return path


def _set(path, key, value):
    """Change a value of an LMDB."""
    with lmdb.open(str(path), map_size=64 << 20) as environment, environment.begin(write=True) as transaction:
        transaction.put(key.encode(), value)


def test_a_folder_of_dngs(tmp_path):
    (tmp_path / 'burst').mkdir()
    mosaics = {}
    for name in (10, 2, 1):
        samples = np.random.default_rng(name).integers(90, 4000, (24, 32)).astype(np.uint16)
        mosaics[name] = write_dng(tmp_path / 'burst' / f'{name}.dng', samples=samples)
    (tmp_path / 'burst' / '.hidden.dng').write_bytes(b'')
    (tmp_path / 'burst' / 'notes.txt').write_text('')
    burst, = find_bursts(tmp_path / 'burst')
    assert (burst.name, burst.frames, burst.is_video) == ('burst', ('1.dng', '2.dng', '10.dng'), False)
    assert [file.name for file in burst.files] == list(burst.frames)
    for index, name in enumerate((1, 2, 10)):
        frame = burst.read(index)
        assert np.array_equal(frame.mosaic, mosaics[name]) and frame.metadata.cfa == 'rggb'


def test_a_folder_of_folders_and_what_is_broken_among_them(tmp_path):
    for name in ('b', 'a', '.hidden'):
        write_tiffs(tmp_path / name, size=(20, 24))
    (tmp_path / 'empty').mkdir()
    write_tiffs(tmp_path / 'mixed', size=(20, 24))
    _write_pngs(tmp_path / 'mixed')
    bursts = find_bursts(tmp_path)
    assert [burst.name for burst in bursts] == ['a', 'b', 'mixed']
    assert bursts[0].read(1).metadata == dataclasses.replace(CAMERA, source='1.tif')
    with pytest.raises(DataError, match='mixed: holds raw files and pictures'):  # only then: others go on
        bursts[2].read(0)
    with pytest.raises(DataError, match='mixed: holds raw files and pictures'):
        bursts[2].check()
    with pytest.raises(DataError, match='mixed: holds raw files and pictures'):
        find_bursts(tmp_path / 'mixed')


def test_folders_in_a_folder_of_frames(tmp_path):
    write_tiffs(tmp_path / 'burst', size=(20, 24))
    _write_pngs(tmp_path / 'burst' / 'previews')
    burst, = find_bursts(tmp_path / 'burst')
    assert burst.name == 'burst' and len(burst.frames) == 3
    write_tiffs(tmp_path / 'many' / 'one', size=(20, 24))
    _write_pngs(tmp_path / 'many')
    with pytest.raises(DataError, match='many: holds frames .* and clips'):
        find_bursts(tmp_path / 'many')


def test_files_are_one_burst_in_the_order_given(tmp_path):
    folder = write_tiffs(tmp_path / 'x', size=(20, 24))
    files = [folder / '2.tif', folder / '0.tif']
    burst = burst_of_files(files)
    assert burst.name == 'x' and burst.frames == ('2.tif', '0.tif') and burst.files == tuple(files)
    assert np.array_equal(burst.read(0).mosaic, make_mosaics(3, (20, 24))[2])
    pictures = _write_pngs(tmp_path / 'y')
    for wrong, message in (([files[0], pictures / '0.png'], '0.png is a picture, other files are raw'),
                           ([tmp_path / 'a.mp4'], 'is a video; build a burst LMDB'), ([tmp_path / 'a.txt'], 'is not a frame')):
        with pytest.raises(DataError, match=message):
            burst_of_files(wrong)


def test_matlab_files_need_a_pattern(tmp_path):
    for index in range(2):
        write_matlab(tmp_path / f'{index}.mat')
    burst, = find_bursts(tmp_path, cfa='gbrg')
    assert burst.frames == ('0.mat', '1.mat') and burst.read(1).metadata.cfa == 'gbrg'
    with pytest.raises(DataError, match='does not state its Bayer pattern'):
        find_bursts(tmp_path)[0].read(0)


def test_an_lmdb_of_mosaics(tmp_path):
    bursts = find_bursts(_write_lmdb(tmp_path / 'x.lmdb'))
    assert [burst.name for burst in bursts] == ['a', 'b'] and not any(burst.is_video or burst.files for burst in bursts)
    assert bursts[1].frames == ('b/00000000', 'b/00000001', 'b/00000002') and bursts[1].where.endswith('x.lmdb: b')
    frame = bursts[1].read(2)
    assert np.array_equal(frame.mosaic, make_mosaics(3, (40, 48))[2]) and frame.metadata == CAMERA
    with pytest.raises(DataError, match='no camera metadata'):
        find_bursts(_write_lmdb(tmp_path / 'y.lmdb', metadata=None))[0].read(0)


@pytest.mark.parametrize('kind', ['lmdb', 'pngs', 'jpgs', 'tiffs'])
def test_videos_become_noisy_raw(tmp_path, kind):
    path = _write_lmdb(tmp_path / 'x.lmdb', srgb=True) if kind == 'lmdb' else \
        _write_pngs(tmp_path / 'x', suffix={'pngs': '.png', 'jpgs': '.jpg', 'tiffs': '.tif'}[kind])
    burst = find_bursts(path, noise=_NOISE)[0]
    assert burst.is_video and len(burst.frames) == 3
    frame, again, other = burst.read(0), burst.read(0), burst.read(1)
    assert frame.mosaic.shape == (40, 48) and np.array_equal(frame.mosaic, again.mosaic)
    assert not np.array_equal(frame.mosaic, other.mosaic)
    assert frame.metadata.noise_shot == (2.5e-3,) * 4 and frame.metadata.noise_read == (1e-2,) * 4
    message = 'is a JPEG, already demosaicked' if kind == 'jpgs' else 'is a picture, not raw; give --noise'
    with pytest.raises(OptionError, match=message):
        find_bursts(path)[0].read(0)


def test_noise_of_a_video_is_that_of_the_published_protocol(tmp_path):
    from jddb_plugin.data.images import decode_srgb, to_float
    from jddb_plugin.ops.bayer import mosaic_rgb, unpack
    from jddb_plugin.ops.camera import reference_camera
    from jddb_plugin.ops.noise import NoiseModel
    folder = _write_pngs(tmp_path / 'x')
    image = decode_srgb((folder / '2.png').read_bytes(), 'x')
    clean = mosaic_rgb(reference_camera().unprocess(to_float(image)))
    expected = unpack(NoiseModel.of(*_NOISE).sample_test_frame(clean, frame_number=3))
    found = find_bursts(folder, noise=_NOISE)[0].read(2)
    assert np.abs(found.mosaic / 65535 - expected.numpy()).max() < 1e-5 and found.metadata.cfa == 'rggb'


def test_a_video_of_odd_size(tmp_path):
    frame = find_bursts(_write_pngs(tmp_path / 'x', size=(41, 47)), noise=_NOISE)[0].read(0)
    assert frame.mosaic.shape == (41, 47)


def test_nothing_to_restore(tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').touch()
    for name, message in (('empty', 'holds no frames'), ('file', 'a file; expected a folder'), ('nowhere', 'no such folder')):
        with pytest.raises(DataError, match=message):
            find_bursts(tmp_path / name)
    (tmp_path / 'x.lmdb').mkdir()
    (tmp_path / 'x.lmdb' / 'data.mdb').write_bytes(b'')
    with pytest.raises(DataError, match='meta_info.txt: cannot be read'):
        find_bursts(tmp_path / 'x.lmdb')


@pytest.mark.parametrize('line', [
    '', 'a', 'a/0.png (40,48,1)', 'a/0.png (4' + '0' * 5000 + ',48,1) 1', 'a/0.png (-1,48,1) 1', '/0.png (40,48,1) 1',
    'a/0.png (40,48,2) 1', 'a/0.png (41,48,1) 1', 'a/0.png (40,48,01) 1', '\x00', '/' * 50000, 'a/' + '.a' * 50000, '(' * 50000,
    'a/' + 'x' * 600 + '.png (40,48,1) 1', '../../x/9.png (40,48,1) 1', 'a/9.png (40,48,1) 1'])
def test_hostile_lines_of_an_lmdb_are_told(tmp_path, line):
    path = _write_lmdb(tmp_path / 'x.lmdb', clips=('a',))
    for content in (line, f'a/00000000.png (40,48,1) 1\n{line}'):
        (path / 'meta_info.txt').write_text(content)
        if not line and content:
            continue  # no line at all
        with pytest.raises(DataError) as error:
            for burst in find_bursts(path):
                for index in range(len(burst.frames)):
                    burst.read(index)
        assert len(str(error.value)) < 1500 and '\n' not in str(error.value)


@pytest.mark.parametrize('value', [b'', b'{}', b'[' * 100000, b'\xff\xfe', b'null', b'{"cfa": NaN}', b'9' * 5000])
def test_hostile_metadata_of_an_lmdb_is_told(tmp_path, value):
    path = _write_lmdb(tmp_path / 'x.lmdb', clips=('a',))
    _set(path, 'a/metadata', value)
    with pytest.raises(DataError) as error:
        find_bursts(path)[0].read(0)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('name', 'expected'), [
    ('../../etc/passwd', 'etc_passwd'), ('/', 'burst'), ('..', 'burst'), ('', 'burst'), ('a b', 'a_b'), ('\x00', 'burst'),
    ('a\nb', 'a_b'), ('C:\\x', 'C__x'), ('\u202ecod.exe', 'cod.exe'), ('h\xe9', 'h'), ('a.b-c_1', 'a.b-c_1'), ('.git', 'git'),
    ('~', 'burst'), ('x' * 300, 'x' * 100), ('\udcff', 'burst'), ('-rf', '-rf')])
def test_names_are_made_safe(name, expected):
    assert safe_name(name) == expected


def test_names_are_made_unique():
    names = ['a', 'A', 'a', 'a_2', 'b/c', 'b_c', '..', '', 'x' * 200, 'x' * 199]
    found = [burst.name for burst in with_unique_names([dataclasses.replace(make_burst(2, (8, 8)), name=name) for name in names])]
    assert found[:3] == ['a', 'A_2', 'a_3'] and found[3] == 'a_2_2' and found[4:8] == ['b_c', 'b_c_2', 'burst', 'burst_2']
    assert len({name.lower() for name in found}) == len(names) and all(os.path.basename(name) == name for name in found)
