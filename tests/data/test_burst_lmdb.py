import multiprocessing
import os
import zlib

import cv2
import lmdb
import numpy as np
import pytest

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data import burst_lmdb, lmdb_reader
from jddb_plugin.data.build import write_folders
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.data.frame_source import FrameSource


def _source(path, kind='lmdb'):
    return FrameSource(str(path), {'type': kind}, 'datasets.train')


def test_frames_come_back_as_they_were(texture_lmdb, textures):
    source = _source(texture_lmdb)
    assert list(source.clips) == ['a', 'b']
    for name, frames in textures.items():
        clip = source.clips[name]
        assert clip.size == frames[0].shape[:2]
        for index, frame in enumerate(frames):
            assert np.array_equal(source.read(clip, index), frame)


def test_folder_and_lmdb_hold_the_same(texture_lmdb, texture_folder):
    a, b = _source(texture_lmdb), _source(texture_folder, 'disk')
    for name, clip in a.clips.items():
        assert b.clips[name].size == clip.size
        for index in range(len(clip.keys)):
            assert np.array_equal(a.read(clip, index), b.read(b.clips[name], index))


def test_the_toolbox_reads_the_format(texture_lmdb, textures, tmp_path):
    from basicsr.utils import FileClient, imfrombytes
    # An environment may be open once per process: read a copy.
    copy = tmp_path / 'copy.lmdb'
    copy.mkdir()
    (copy / 'data.mdb').write_bytes((texture_lmdb / 'data.mdb').read_bytes())
    client = FileClient('lmdb', db_paths=str(copy), client_keys='gt')
    image = imfrombytes(client.get('a/00000003', 'gt'))
    assert np.array_equal(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), textures['a'][3])


@pytest.mark.parametrize('bits', [10, 12, 14, 16])
def test_the_toolbox_reads_mosaics(tmp_path, bits):
    from basicsr.utils import FileClient, imfrombytes
    mosaic = np.random.default_rng(0).integers(0, 2 ** bits, (8, 10)).astype(np.uint16)
    with BurstLmdbWriter(str(tmp_path / 'x.lmdb')) as writer:
        writer.put_image('clip', 0, mosaic)
    assert (tmp_path / 'x.lmdb' / 'meta_info.txt').read_text() == 'clip/00000000.png (8,10,1) 1\n'
    client = FileClient('lmdb', db_paths=str(tmp_path / 'x.lmdb'), client_keys='gt')
    image = imfrombytes(client.get('clip/00000000', 'gt'), flag='unchanged')
    assert image.dtype == np.uint16 and np.array_equal(image, mosaic)


def test_checksums_lie_beside(texture_lmdb):
    lines = (texture_lmdb / 'checksums.txt').read_text().splitlines()
    assert len(lines) == 14
    key, checksum = lines[3].split()
    assert (key, int(checksum, 16)) == ('a/00000003', zlib.crc32(lmdb_reader.read_value(texture_lmdb, key)))


@pytest.mark.parametrize('image', [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_frames_of_another_kind_are_refused(tmp_path, image):
    with pytest.raises(DataError, match='clip/00000000: expected uint8 or uint16 RGB .* or a uint16 mosaic'), \
            BurstLmdbWriter(str(tmp_path / 'x.lmdb')) as writer:
        writer.put_image('clip', 0, image)


def test_a_replaced_database_is_read_anew(tmp_path, textures):
    for frame in textures['a'][:2]:
        with BurstLmdbWriter(str(tmp_path / 'x.lmdb'), overwrite=True) as writer:
            writer.put_image('clip', 0, frame)
        source = _source(tmp_path / 'x.lmdb')
        assert np.array_equal(source.read(source.clips['clip'], 0), frame)


def test_sixteen_bit_frames_keep_their_bits(tmp_path):
    frame = np.random.default_rng(0).integers(0, 65536, (8, 10, 3)).astype(np.uint16)
    with BurstLmdbWriter(str(tmp_path / 'deep.lmdb')) as writer:
        writer.put_image('clip', 0, frame)
    source = _source(tmp_path / 'deep.lmdb')
    assert np.array_equal(source.read(source.clips['clip'], 0), frame)


def test_frames_are_ordered_by_number(tmp_path, textures):
    (tmp_path / 'own' / 'clip').mkdir(parents=True)
    for index in range(12):
        cv2.imwrite(str(tmp_path / 'own' / 'clip' / f'frame{index}.png'), np.full((8, 8, 3), index, np.uint8))
    source = _source(tmp_path / 'own', 'disk')
    assert [source.read(source.clips['clip'], i)[0, 0, 0] for i in range(12)] == list(range(12))


def test_orientation_tags_are_ignored(tmp_path):
    from PIL import Image
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    (tmp_path / 'own' / 'clip').mkdir(parents=True)
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(tmp_path / 'own' / 'clip' / '0.jpg', exif=exif)
    source = _source(tmp_path / 'own', 'disk')
    assert source.read(source.clips['clip'], 0).shape == (8, 12, 3)


def _read_in_child(source, index, queue):
    queue.put(source.read(source.clips['a'], index).sum())


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_readers_survive_fork_and_spawn(texture_lmdb, textures, method):
    source = _source(texture_lmdb)
    source.read(source.clips['a'], 0)  # opened in the parent before the child starts
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(source, 2, queue))
    child.start()
    assert queue.get(timeout=120) == textures['a'][2].sum()
    child.join()
    assert np.array_equal(source.read(source.clips['a'], 1), textures['a'][1])


def test_two_sources_share_one_database(texture_lmdb):
    first, second = _source(texture_lmdb), _source(texture_lmdb)
    assert np.array_equal(first.read(first.clips['a'], 0), second.read(second.clips['a'], 0))


def test_the_map_grows(tmp_path, monkeypatch):
    monkeypatch.setattr(burst_lmdb, '_FIRST_MAP_BYTES', 1 << 16)
    frames = np.random.default_rng(0).integers(0, 256, (6, 100, 100, 3)).astype(np.uint8)
    with BurstLmdbWriter(str(tmp_path / 'x.lmdb')) as writer:
        for index, frame in enumerate(frames):
            writer.put_image('clip', index, frame)
    source = _source(tmp_path / 'x.lmdb')
    assert all(np.array_equal(source.read(source.clips['clip'], i), frame) for i, frame in enumerate(frames))


def test_a_failed_build_leaves_nothing(tmp_path, texture_folder):
    (texture_folder / 'b' / '00000004.png').write_bytes(b'\x89PNG not really')
    with pytest.raises(DataError, match='00000004.png: not a readable image'):  # noqa: SIM117
        with BurstLmdbWriter(str(tmp_path / 'x.lmdb')) as writer:
            write_folders(writer, sorted(texture_folder.iterdir()))
    assert not [name for name in os.listdir(tmp_path) if 'lmdb' in name]


def test_an_existing_database_is_kept_until_the_new_one_is_complete(tmp_path, textures):
    path = tmp_path / 'x.lmdb'
    with BurstLmdbWriter(str(path)) as writer:
        writer.put_image('old', 0, textures['a'][0])
    with pytest.raises(DataError, match='already exists'):
        BurstLmdbWriter(str(path))
    with pytest.raises(RuntimeError), BurstLmdbWriter(str(path), overwrite=True) as writer:
        writer.put_image('new', 0, textures['a'][1])
        raise RuntimeError
    assert list(_source(path).clips) == ['old']
    with BurstLmdbWriter(str(path), overwrite=True) as writer:
        writer.put_image('new', 0, textures['a'][1])
    assert list(_source(path).clips) == ['new']


def test_wrong_data_is_named(tmp_path, texture_lmdb, texture_folder, textures):
    with pytest.raises(DataError, match='nowhere: no such folder'):
        _source(tmp_path / 'nowhere')
    with pytest.raises(OptionError, match="type is 'disk', but .* is an LMDB"):
        _source(texture_lmdb, 'disk')
    with pytest.raises(OptionError, match="type is 'lmdb', but .* is no LMDB"):
        _source(texture_folder)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match='holds no clips'):
        _source(tmp_path / 'empty', 'disk')
    with pytest.raises(DataError, match="must end in '.lmdb'"):
        BurstLmdbWriter(str(tmp_path / 'x.mdb'))
    cv2.imwrite(str(texture_folder / 'a' / '00000005.png'), textures['a'][5][:90])
    with pytest.raises(DataError, match='00000005.png: is 112 x 90, but .*00000000.png of the same clip is 112 x 96'):
        _source(texture_folder, 'disk')
    (texture_folder / 'a' / '00000005.png').write_bytes(b'nothing')
    with pytest.raises(DataError, match='00000005.png: not a readable image'):
        _source(texture_folder, 'disk')
    for name in os.listdir(texture_folder / 'a'):
        cv2.imwrite(str(texture_folder / 'a' / name), textures['a'][0][:95])
    with pytest.raises(DataError, match='width and height must be even'):
        _source(texture_folder, 'disk')


def test_damaged_databases_are_named(tmp_path, textures):
    path = tmp_path / 'x.lmdb'
    with BurstLmdbWriter(str(path)) as writer:
        writer.put_image('clip', 0, textures['a'][0])
        writer.put_image('clip', 1, textures['a'][1])
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b'clip/00000000')
        transaction.put(b'clip/00000001', b'not a picture')
    source = _source(path)
    with pytest.raises(DataError, match='clip/00000000: empty or missing'):
        source.read(source.clips['clip'], 0)
    with pytest.raises(DataError, match='clip/00000001: not a readable image'):
        source.read(source.clips['clip'], 1)
    (path / 'meta_info.txt').write_text('clip 00000000\n')
    with pytest.raises(DataError, match='meta_info.txt, line 1: expected'):
        _source(path)
    (path / 'meta_info.txt').unlink()
    with pytest.raises(DataError, match='meta_info.txt: missing'):
        _source(path)
    (tmp_path / 'torn.lmdb').mkdir()
    (tmp_path / 'torn.lmdb' / 'data.mdb').write_bytes(b'torn')
    with pytest.raises(DataError, match='cannot be read as an LMDB'):
        lmdb_reader.read_value(tmp_path / 'torn.lmdb', 'clip/00000000')


@pytest.mark.parametrize(('shape', 'bits'), [((8, 10, 3), 8), ((8, 10, 3), 16), ((8, 10), 16)])
def test_frames_without_compression_hold_the_same_pixels(tmp_path, shape, bits):
    image = np.random.default_rng(0).integers(0, 2 ** bits, shape, np.uint16 if bits == 16 else np.uint8)
    with BurstLmdbWriter(str(tmp_path / 'x.lmdb'), encoding='tiff') as writer:
        writer.put_image('clip', 0, image)
    channels = shape[2] if len(shape) == 3 else 1
    assert (tmp_path / 'x.lmdb' / 'meta_info.txt').read_text() == f'clip/00000000.tiff (8,10,{channels}) 1\n'
    source = FrameSource(str(tmp_path / 'x.lmdb'), {'type': 'lmdb'}, 'test', frames='srgb' if channels == 3 else 'mosaic')
    clip = source.clips['clip']
    assert np.array_equal(source.read(clip, 0), image)
    assert np.array_equal(source.read(clip, 0, window=(2, 4, 4, 5)), image[2:6, 4:9])
    with pytest.raises(OptionError, match="'jpg' is not a valid choice"):
        BurstLmdbWriter(str(tmp_path / 'y.lmdb'), encoding='jpg')
