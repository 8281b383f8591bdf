"""Builds: what goes in comes out, whatever happens in between."""
import contextlib
import dataclasses
import errno
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
import types
import zipfile

import cv2
import lmdb
import numpy as np
import pytest

from jddb_plugin.checks import DataError
from jddb_plugin.data import burst_lmdb, lmdb_reader, workers
from jddb_plugin.data.build import build
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.data.frame_source import FrameSource
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.data.source_clips import find_clips, video_clip
from jddb_plugin.data.verify import verify as in_a_worker

METADATA = CameraMetadata('grbg', 12, (64.0,) * 4, (4095.0,) * 4, (2.0, 1.0, 1.5),
                          ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
                          noise_shot=(0.001,) * 4, noise_read=(0.01,) * 4, source='test')


def contents(path):
    """All that is in an LMDB folder: values by key, and the text files."""
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        values = dict(transaction.cursor())
    return values, {p.name: p.read_text() for p in path.iterdir() if p.suffix != '.mdb'}


def verify(path):
    try:
        return in_a_worker(path, workers=0)
    finally:
        lmdb_reader.close(path)


def source_of(path, **kwargs):
    return FrameSource(str(path), {'type': 'lmdb'}, 'test', **kwargs)


@pytest.fixture
def raw_reader(monkeypatch):
    """A stand-in that reads .dng files written by write_raw."""
    module = types.ModuleType('jddb_plugin.data.raw_reader')

    def read_raw(path, cfa=None, log_notes=True):
        with np.load(path) as file:
            metadata = dataclasses.replace(METADATA, **json.loads(str(file['fields'])), **({'cfa': cfa} if cfa else {}))
            return types.SimpleNamespace(mosaic=file['mosaic'], metadata=metadata, notes=())

    module.read_raw = read_raw
    module.list_raw_files = lambda folder: sorted(p for p in folder.iterdir() if p.suffix in ('.dng', '.tif', '.mat'))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def write_raw(path, mosaic, **fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'wb') as file:
        np.savez(file, mosaic=mosaic, fields=json.dumps(fields))


def noise(shape, bits, seed=0):
    return np.random.default_rng(seed).integers(0, 2 ** bits, shape).astype(np.uint8 if bits == 8 else np.uint16)


@pytest.fixture
def bitmaps(tmp_path):
    """Three clips of 40 frames that have to be encoded."""
    for clip in range(3):
        (tmp_path / 'source' / f'clip{clip}').mkdir(parents=True)
        for index in range(40):
            cv2.imwrite(str(tmp_path / 'source' / f'clip{clip}' / f'{index}.bmp'), noise((64, 80, 3), 8, 100 * clip + index))
    return tmp_path / 'source'


@pytest.mark.parametrize('bits', [10, 12, 14, 16])
def test_mosaics_come_back_as_they_were(tmp_path, raw_reader, bits):
    frames = [noise((32, 40), bits, i) for i in range(3)]
    frames[0][0, 0] = 2 ** bits - 1
    for index, frame in enumerate(frames):
        write_raw(tmp_path / 'in' / 'night' / f'{index}.dng', frame, bits=bits, white_level=[1000.0] * 4,
                  noise_read=[0.01 * (1 + index)] * 4)
    build(find_clips(tmp_path / 'in'), str(tmp_path / 'x.lmdb'))
    source = source_of(tmp_path / 'x.lmdb', frames='mosaic')
    clip = source.clips['night']
    assert (clip.channels, clip.size) == (1, (32, 40))
    for index, frame in enumerate(frames):
        assert source.read(clip, index).dtype == np.uint16
        assert np.array_equal(source.read(clip, index), frame)
    metadata = source.metadata(clip)
    assert (metadata.bits, metadata.cfa, metadata.noise_read) == (bits, 'grbg', (0.01,) * 4)
    assert (tmp_path / 'x.lmdb' / 'meta_info.txt').read_text().splitlines()[0] == 'night/00000000.png (32,40,1) 1'
    summary, problems = verify(tmp_path / 'x.lmdb')
    assert problems == [] and summary.endswith('sound; 1 clips, 3 frames, 1 clips of mosaics')


@pytest.mark.parametrize(('bits', 'suffix'), [(8, 'png'), (8, 'bmp'), (16, 'png'), (16, 'tif')])
def test_srgb_comes_back_as_it_was(tmp_path, bits, suffix):
    (tmp_path / 'in' / 'clip').mkdir(parents=True)
    frames = [noise((30, 34, 3), bits, i) for i in range(3)]
    for index, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / 'in' / 'clip' / f'{index}.{suffix}'), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    build(find_clips(tmp_path / 'in'), str(tmp_path / 'x.lmdb'))
    source = source_of(tmp_path / 'x.lmdb')
    for index, frame in enumerate(frames):
        assert np.array_equal(source.read(source.clips['clip'], index), frame)
    assert verify(tmp_path / 'x.lmdb')[1] == []


def test_a_zip_file_and_its_folder_build_the_same(tmp_path, texture_folder):
    with zipfile.ZipFile(tmp_path / 'set.zip', 'w') as archive:
        for path in texture_folder.rglob('*.png'):
            archive.write(path, f'train/{path.relative_to(texture_folder)}')
    build(find_clips(texture_folder), str(tmp_path / 'a.lmdb'))
    build(find_clips(tmp_path / 'set.zip'), str(tmp_path / 'b.lmdb'))
    assert contents(tmp_path / 'a.lmdb') == contents(tmp_path / 'b.lmdb')


@pytest.mark.parametrize('name', ['../out/0.png', '/out/0.png', 'a/../../0.png', '..\\out\\0.png', 'C:/out/0.png'])
def test_zip_members_that_lead_out_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / 'bad.zip', 'w') as archive:
        archive.writestr(name, b'x')
    with pytest.raises(DataError, match='leads out of the archive'):
        find_clips(tmp_path / 'bad.zip')


def test_gray_and_palette_pictures_become_rgb(tmp_path):
    from PIL import Image
    (tmp_path / 'in' / 'clip').mkdir(parents=True)
    gray = Image.fromarray(noise((8, 10), 8))
    gray.save(tmp_path / 'in' / 'clip' / '0.png')
    gray.convert('P').save(tmp_path / 'in' / 'clip' / '1.png')
    build(find_clips(tmp_path / 'in'), str(tmp_path / 'x.lmdb'))
    assert '(8,10,3)' in (tmp_path / 'x.lmdb' / 'meta_info.txt').read_text()
    assert verify(tmp_path / 'x.lmdb')[1] == []


def write_video(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*('MJPG' if path.suffix == '.avi' else 'mp4v')), 25, (64, 48))
    assert video.isOpened()
    for index in range(frames):
        video.write(np.full((48, 64, 3), (0, 0, 10 * index), np.uint8))
    video.release()


def test_a_mosaic_without_metadata_is_told_what_it_lacks(tmp_path):
    (tmp_path / 'in' / 'clip').mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'in' / 'clip' / '0.tiff'), np.zeros((8, 8), np.float32))
    with pytest.raises(DataError, match='0.tiff: .* If it is a Bayer mosaic, its camera is described in metadata.json beside it'):
        build(find_clips(tmp_path / 'in'), str(tmp_path / 'x.lmdb'))


@pytest.mark.parametrize('name', ['a.avi', 'a.mp4'])
def test_videos(tmp_path, name):
    write_video(tmp_path / 'in' / name, 20)
    build(find_clips(tmp_path / 'in', start=3, count=4, step=2), str(tmp_path / 'x.lmdb'))
    source = source_of(tmp_path / 'x.lmdb')
    clip = source.clips['a']
    means = [source.read(clip, i)[..., 0].mean() for i in range(len(clip.keys))]
    np.testing.assert_allclose(means, [30, 50, 70, 90], atol=4)
    assert source.read(clip, 3)[..., 2].mean() < 5  # red is the first channel
    build([video_clip(tmp_path / 'in' / name)], str(tmp_path / 'all.lmdb'))
    assert len(source_of(tmp_path / 'all.lmdb').clips['a'].keys) == 20
    with pytest.raises(DataError, match='has 20 frames, not enough for 10 from 3 in steps of 2'):
        find_clips(tmp_path / 'in', start=3, count=10, step=2)
    (tmp_path / 'in' / name).write_bytes(b'no video')
    with pytest.raises(DataError, match='not a video that OpenCV can read'):
        find_clips(tmp_path / 'in')


def test_workers_change_nothing(tmp_path, bitmaps):
    build(find_clips(bitmaps), str(tmp_path / 'a.lmdb'))
    build(find_clips(bitmaps), str(tmp_path / 'b.lmdb'), workers=2)
    assert contents(tmp_path / 'a.lmdb') == contents(tmp_path / 'b.lmdb')


def _build(source, output, **kwargs):
    build(find_clips(source), str(output), **kwargs)


def _killed_build(source, output, values, **kwargs):
    """A build in a process of its own that is killed when it has put ``values`` values."""

    def build_and_die():
        put, count = burst_lmdb.BurstLmdbWriter._put, [0]

        def counted(self, *given):
            if count[0] == values:
                os.kill(os.getpid(), signal.SIGKILL)
            count[0] += 1
            put(self, *given)

        burst_lmdb.BurstLmdbWriter._put = counted
        _build(source, output, **kwargs)

    child = multiprocessing.get_context('fork').Process(target=build_and_die)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def test_a_killed_build_is_completed(tmp_path, bitmaps, monkeypatch):
    monkeypatch.setattr(burst_lmdb, '_COMMIT_VALUES', 5)
    _build(bitmaps, tmp_path / 'whole.lmdb')
    total = len(contents(tmp_path / 'whole.lmdb')[0])
    for values in (0, 4, 5, 37, total - 1):
        output = tmp_path / f'{values}.lmdb'
        _killed_build(bitmaps, output, values)
        partial = output.with_name(output.name + '.partial')
        assert partial.exists() and not output.exists()
        with pytest.raises(DataError, match='left over from an interrupted build; continue with --resume.* --overwrite'):
            _build(bitmaps, output)
        assert len(contents(partial)[0]) == values // 5 * 5
        _build(bitmaps, output, resume=True)
        assert contents(output) == contents(tmp_path / 'whole.lmdb')
        assert not partial.exists()


def _workers_of(parent):
    found = []
    for pid in filter(str.isdecimal, os.listdir('/proc')):
        with contextlib.suppress(OSError), open(f'/proc/{pid}/stat') as stat, open(f'/proc/{pid}/cmdline') as command:
            if int(stat.read().rsplit(')', 1)[1].split()[1]) == parent and 'spawn_main' in command.read():
                found.append(pid)
    return found


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='finds processes by /proc')
def test_workers_end_with_a_killed_build(tmp_path, bitmaps):
    output = tmp_path / 'x.lmdb'
    child = multiprocessing.get_context('fork').Process(target=_build, args=(bitmaps, output), kwargs={'workers': 1})
    child.start()
    deadline = time.monotonic() + 60
    started = []
    while not started and time.monotonic() < deadline:
        started = _workers_of(child.pid)
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)  # while it starts
    child.join()
    while any(os.path.exists(f'/proc/{pid}') for pid in started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(started) == 1 and not os.path.exists(f'/proc/{started[0]}')
    _build(bitmaps, output, resume=True)
    assert verify(output)[1] == []


def test_an_interrupted_build_can_start_anew(tmp_path, bitmaps):
    _killed_build(bitmaps, tmp_path / 'x.lmdb', 40)
    _build(bitmaps, tmp_path / 'x.lmdb', overwrite=True)
    assert verify(tmp_path / 'x.lmdb')[1] == []


def interrupted(monkeypatch, source, output, after, error):
    """A build that fails with ``error`` after so many commits."""
    commit, calls = BurstLmdbWriter._commit, []

    def failing(writer):
        if len(calls) == after:
            calls.append(0)
            with writer._one_line():
                raise error
        calls.append(0)
        commit(writer)

    with monkeypatch.context() as patch:
        patch.setattr(burst_lmdb, '_COMMIT_VALUES', 5)
        patch.setattr(BurstLmdbWriter, '_commit', failing)
        _build(source, output)


@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'No space left on device'), lmdb.DiskError('No space left on device')])
def test_a_full_disk_is_said_in_one_line_and_resumed(tmp_path, bitmaps, monkeypatch, error):
    with pytest.raises(DataError, match=r'x\.lmdb\.partial: the disk is full \(.*\)\. Free .*, then .*--resume') as caught:
        interrupted(monkeypatch, bitmaps, tmp_path / 'x.lmdb', 3, error)
    assert '\n' not in str(caught.value)
    assert len(contents(tmp_path / 'x.lmdb.partial')[0]) >= 15
    _build(bitmaps, tmp_path / 'x.lmdb', resume=True)
    _build(bitmaps, tmp_path / 'whole.lmdb')
    assert contents(tmp_path / 'x.lmdb') == contents(tmp_path / 'whole.lmdb')


def test_an_interrupt_keeps_what_is_there(tmp_path, bitmaps, monkeypatch):
    with pytest.raises(DataError, match=r'x\.lmdb: interrupted; .* --resume'):
        interrupted(monkeypatch, bitmaps, tmp_path / 'x.lmdb', 3, KeyboardInterrupt())
    _build(bitmaps, tmp_path / 'x.lmdb', resume=True)
    assert verify(tmp_path / 'x.lmdb')[1] == []


def test_another_source_is_not_resumed(tmp_path, bitmaps, monkeypatch):
    def leave():
        with pytest.raises(DataError):
            interrupted(monkeypatch, bitmaps, tmp_path / 'x.lmdb', 3, OSError(errno.ENOSPC, 'full'))

    leave()
    shutil.copy(bitmaps / 'clip2' / '0.bmp', bitmaps / 'clip2' / '40.bmp')
    with pytest.raises(DataError, match=r'another source \(1 frames differ, the first is clip2/00000040\)'):
        _build(bitmaps, tmp_path / 'x.lmdb', resume=True)
    (bitmaps / 'clip2' / '40.bmp').unlink()
    cv2.imwrite(str(bitmaps / 'clip0' / '3.bmp'), noise((64, 82, 3), 8))
    with pytest.raises(DataError, match='another source .* clip0/00000003'):
        _build(bitmaps, tmp_path / 'x.lmdb', resume=True)
    (tmp_path / 'x.lmdb.partial' / 'plan.json').unlink()
    with pytest.raises(DataError, match='plan.json: cannot be read .* --overwrite'):
        _build(bitmaps, tmp_path / 'x.lmdb', resume=True)
    with open(tmp_path / 'x.lmdb.partial' / 'data.mdb', 'r+b') as file:
        file.truncate(20000)
    with pytest.raises(DataError, match='damaged .* --overwrite'):
        _build(bitmaps, tmp_path / 'x.lmdb', resume=True)


def test_a_frame_can_be_mended_and_the_build_resumed(tmp_path, bitmaps):
    good = (bitmaps / 'clip2' / '7.bmp').read_bytes()
    (bitmaps / 'clip2' / '7.bmp').write_bytes(good[:54] + b'cut off')  # its header is good
    with pytest.raises(DataError, match=r'clip2/7\.bmp: not a readable image'):
        _build(bitmaps, tmp_path / 'x.lmdb')
    assert len(contents(tmp_path / 'x.lmdb.partial')[0]) == 87
    (bitmaps / 'clip2' / '7.bmp').write_bytes(good)
    _build(bitmaps, tmp_path / 'x.lmdb', resume=True)
    _build(bitmaps, tmp_path / 'whole.lmdb')
    assert contents(tmp_path / 'x.lmdb') == contents(tmp_path / 'whole.lmdb')


def test_a_second_builder_is_refused(tmp_path, bitmaps):
    with BurstLmdbWriter(str(tmp_path / 'x.lmdb')) as writer:
        writer.put_image('clip', 0, noise((8, 8, 3), 8))
        for options in ({}, {'resume': True}, {'overwrite': True}):
            with pytest.raises(DataError, match='another process is building it'):
                _build(bitmaps, tmp_path / 'x.lmdb', **options)
    assert list(source_of(tmp_path / 'x.lmdb').clips) == ['clip']


def test_mosaics_and_srgb_are_not_mixed_up(tmp_path, raw_reader, texture_lmdb):
    write_raw(tmp_path / 'in' / 'night' / '0.dng', noise((32, 40), 12))
    build(find_clips(tmp_path / 'in'), str(tmp_path / 'x.lmdb'))
    with pytest.raises(DataError, match='night/00000000: holds Bayer mosaics, but sRGB frames are expected'):
        source_of(tmp_path / 'x.lmdb')
    with pytest.raises(DataError, match='a/00000000: holds sRGB frames, but Bayer mosaics are expected'):
        source_of(texture_lmdb, frames='mosaic')
    source = source_of(texture_lmdb)
    with pytest.raises(DataError, match='a/metadata: no camera metadata'):
        source.metadata(source.clips['a'])


@pytest.mark.parametrize(('fields', 'message'), [
    ({'cfa': 'rggb'}, 'frame 1 .1.dng.: cfa is rggb, but grbg in the first frame'),
    ({'bits': 14}, 'bits is 14, but 12'),
    ({'color_matrix': [[0.9, 0, 0], [0, 1, 0], [0, 0, 1]]}, 'color_matrix is .* but'),
    ({'bits': 10, 'white_level': [1000.0] * 4}, 'but has 10 bits per sample'),
])
def test_raw_frames_of_a_clip_fit_together(tmp_path, raw_reader, fields, message):
    write_raw(tmp_path / 'in' / 'night' / '0.dng', noise((32, 40), 12))
    write_raw(tmp_path / 'in' / 'night' / '1.dng', noise((32, 40), 12), **fields)
    with pytest.raises(DataError, match=message):
        build(find_clips(tmp_path / 'in'), str(tmp_path / 'x.lmdb'))


def test_raw_frames_of_unequal_size_are_named(tmp_path, raw_reader):
    write_raw(tmp_path / 'in' / 'night' / '0.dng', noise((32, 40), 12))
    write_raw(tmp_path / 'in' / 'night' / '1.dng', noise((32, 42), 12))
    with pytest.raises(DataError, match='size is 42 x 32, but 40 x 32'):
        build(find_clips(tmp_path / 'in'), str(tmp_path / 'x.lmdb'))


def test_what_a_folder_holds(tmp_path, raw_reader, texture_folder):
    write_raw(tmp_path / 'in' / 'raw' / '0.dng', noise((8, 8), 12))
    write_raw(tmp_path / 'in' / 'mosaics' / '0.tif', noise((8, 8), 12))
    (tmp_path / 'in' / 'mosaics' / '0.json').write_text('{}')
    write_raw(tmp_path / 'in' / 'matlab' / '0.mat', noise((8, 8), 12))
    shutil.copytree(texture_folder / 'a', tmp_path / 'in' / 'pictures')
    kinds = {clip.name: type(clip).__name__ for clip in find_clips(tmp_path / 'in')}
    assert kinds == {'raw': 'RawClip', 'mosaics': 'RawClip', 'matlab': 'RawClip', 'pictures': 'ImageClip'}
    shutil.copy(texture_folder / 'a' / '00000000.png', tmp_path / 'in' / 'raw')  # a preview beside a camera's file
    assert {clip.name: len(clip.stamps) for clip in find_clips(tmp_path / 'in')}['raw'] == 1
    shutil.copy(texture_folder / 'a' / '00000000.png', tmp_path / 'in' / 'mosaics')
    with pytest.raises(DataError, match='raw files and pictures, 0.tif and 00000000.png'):
        find_clips(tmp_path / 'in')


def test_names_that_do_not_fit(tmp_path, texture_folder):
    (texture_folder / 'a').rename(texture_folder / 'a\nb')
    with pytest.raises(DataError, match='names of clips must consist of printable characters'):
        _build(texture_folder, tmp_path / 'x.lmdb')
    assert not (tmp_path / 'x.lmdb.partial').exists()  # nothing was written that could be resumed
    with pytest.raises(DataError, match="duplicate clip name 'b'"):
        build([clip for clip in find_clips(texture_folder) if clip.name == 'b'] * 2, str(tmp_path / 'x.lmdb'))


def test_a_killed_worker_is_said(tmp_path):
    with pytest.raises(DataError, match='use fewer workers'):
        list(workers.run_in_order([_die], 1))


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


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


def test_an_uncompressed_build_is_sound_and_reads_the_same(texture_folder, tmp_path):
    clips = find_clips(texture_folder)
    for encoding in ('png', 'tiff'):
        build(clips, str(tmp_path / f'{encoding}.lmdb'), encoding=encoding, workers=int(encoding == 'tiff'))
    summary, problems = verify(tmp_path / 'tiff.lmdb')
    assert 'sound; 2 clips, 14 frames' in summary and not problems
    sources = [FrameSource(str(tmp_path / f'{encoding}.lmdb'), {'type': 'lmdb'}, 'test') for encoding in ('png', 'tiff')]
    for name in ('a', 'b'):
        frames = [source.read(source.clips[name], 3) for source in sources]
        assert np.array_equal(*frames)
