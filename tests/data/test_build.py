"""Builds: what goes in comes out, whatever happens in between."""
import os
import shutil
import signal
import zipfile

import cv2
import numpy as np
import pytest

from jddb_plugin.checks import DataError
from jddb_plugin.data import workers
from jddb_plugin.data.build import build
from jddb_plugin.data.frame_source import FrameSource
from jddb_plugin.data.source_clips import find_clips, video_clip

from .build_run import contents, noise, run_build, source_of, verify, write_raw, write_video


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
        run_build(texture_folder, tmp_path / 'x.lmdb')
    assert not (tmp_path / 'x.lmdb.partial').exists()  # nothing was written that could be resumed
    with pytest.raises(DataError, match="duplicate clip name 'b'"):
        build([clip for clip in find_clips(texture_folder) if clip.name == 'b'] * 2, str(tmp_path / 'x.lmdb'))


def test_a_killed_worker_is_said(tmp_path):
    with pytest.raises(DataError, match='use fewer workers'):
        list(workers.run_in_order([_die], 1))


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


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
