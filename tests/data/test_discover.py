"""Which clips a path holds: the LMDB builder and the restore command find the same."""
import zipfile

import cv2
import numpy as np
import pytest

from jddb_plugin.checks import DataError
from jddb_plugin.data.build import build
from jddb_plugin.data.discover import discover
from jddb_plugin.data.frame_source import FrameSource
from jddb_plugin.data.source_clips import find_clips
from jddb_plugin.restoration.batch import _find
from jddb_plugin.restoration.bursts import find_bursts
from jddb_plugin.restoration.settings import Inputs, Settings
from tests.data.raw_files import random_mosaic, write_dng

_NOISE = (2.5e-3, 1e-2)


def _pictures(folder, count=2, size=(12, 16)):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)
        cv2.imwrite(str(folder / f'{index}.png'), image)
    return folder


def _raw(folder, count=2):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        write_dng(folder / f'{index}.dng', random_mosaic(seed=index))
    return folder


def _names(root):
    """Names that the builder and the restore command find, which must be equal."""
    found = [clip.name for clip in discover(root)]
    assert [clip.name for clip in find_clips(root)] == found
    assert [burst.name for burst in find_bursts(root, noise=_NOISE)] == found
    return found


def test_a_folder_of_clips(tmp_path, caplog):
    for name in ('10', '9', 'b'):
        _pictures(tmp_path / name)
    _raw(tmp_path / 'raw')
    _pictures(tmp_path / '.hidden')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'notes.txt').write_text('')
    assert _names(tmp_path) == ['9', '10', 'b', 'raw']
    assert 'skipped folders without frames: empty' in caplog.text


def test_a_folder_of_frames_is_one_clip(tmp_path):
    assert _names(_pictures(tmp_path / 'video')) == ['video']
    assert _names(_raw(tmp_path / 'burst')) == ['burst']
    (clip,), (burst,) = find_clips(tmp_path / 'burst'), find_bursts(tmp_path / 'burst')
    assert [clip.source(index) for index in range(2)] == list(burst.frames) == ['0.dng', '1.dng']


def test_previews_in_a_folder_of_raw_files_are_skipped(tmp_path, caplog):
    _pictures(_raw(tmp_path / 'burst') / 'previews')
    assert _names(tmp_path / 'burst') == ['burst'] and 'skipped what lies beside the raw files: previews' in caplog.text


@pytest.mark.parametrize(('own', 'inner'), [(_pictures, _raw), (_pictures, _pictures), (_raw, _raw)])
def test_frames_and_clips_side_by_side_are_ambiguous(tmp_path, own, inner):
    inner(own(tmp_path / 'x') / 'inner')
    for find in (discover, find_clips, find_bursts):
        with pytest.raises(DataError, match=r'x: holds frames \(0\.\w+, \.\.\.\) and clips \(inner, \.\.\.\); give either'):
            find(tmp_path / 'x')


def test_the_folder_of_results_is_not_searched(tmp_path):
    _pictures(_pictures(tmp_path / 'video') / 'out', 1)
    assert [clip.name for clip in discover(tmp_path / 'video', skip=tmp_path / 'video' / 'out')] == ['video']
    bursts, failed = _find(Inputs([tmp_path / 'video']), tmp_path / 'video' / 'out', Settings(noise='low'))
    assert [burst.name for burst in bursts] == ['video'] and not failed


def test_a_broken_clip_does_not_hide_the_others(tmp_path):
    _raw(tmp_path / 'a')
    write_dng(tmp_path / 'a' / 'twin.dng', random_mosaic())
    (tmp_path / 'a' / 'twin.CR2').write_bytes(b'')
    _raw(tmp_path / 'b')
    assert [(clip.name, clip.kind) for clip in discover(tmp_path)] == [('a', 'broken'), ('b', 'raw')]
    with pytest.raises(DataError, match='a: holds the same shot twice'):
        find_clips(tmp_path)
    bursts = find_bursts(tmp_path)
    assert bursts[1].read(0).mosaic.shape
    with pytest.raises(DataError, match='a: holds the same shot twice'):
        bursts[0].read(0)


def test_a_zip_file_restores_as_its_folders(tmp_path):
    for name in ('a', 'b'):
        _pictures(tmp_path / 'in' / name)
    with zipfile.ZipFile(tmp_path / 'set.zip', 'w') as archive:
        for path in sorted((tmp_path / 'in').rglob('*.png')):
            archive.write(path, f'train/{path.relative_to(tmp_path / "in")}')
    assert _names(tmp_path / 'set.zip') == _names(tmp_path / 'in') == ['a', 'b']
    packed, plain = find_bursts(tmp_path / 'set.zip', noise=_NOISE)[1], find_bursts(tmp_path / 'in', noise=_NOISE)[1]
    assert packed.is_video and np.array_equal(packed.read(1).mosaic, plain.read(1).mosaic)
    bursts, _ = _find(Inputs([tmp_path / 'set.zip']), None, Settings(noise='low'))
    assert [burst.name for burst in bursts] == ['a', 'b']


def test_a_video_is_found_and_refers_to_the_builder(tmp_path):
    video = cv2.VideoWriter(str(tmp_path / 'v.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 25, (64, 48))
    for _ in range(3):
        video.write(np.zeros((48, 64, 3), np.uint8))
    video.release()
    _pictures(tmp_path / 'clip', size=(48, 64))
    assert _names(tmp_path) == ['clip', 'v']
    with pytest.raises(DataError, match=r'v.avi: is a video; build a burst LMDB from it with jddb lmdb build'):
        find_bursts(tmp_path)[1].read(0)
    build(find_clips(tmp_path), str(tmp_path / 'x.lmdb'))
    assert sorted(FrameSource(str(tmp_path / 'x.lmdb'), {'type': 'lmdb'}, 'test').clips) == ['clip', 'v']


def test_nothing_to_find(tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').touch()
    for name, message in (('empty', 'holds no frames'), ('file', 'a file; expected'), ('nowhere', 'no such folder; expected')):
        for find in (discover, find_clips, find_bursts):
            with pytest.raises(DataError, match=f'{name}: {message}'):
                find(tmp_path / name)
    build(find_clips(_pictures(tmp_path / 'in')), str(tmp_path / 'x.lmdb'))
    with pytest.raises(DataError, match='x.lmdb: is a burst LMDB already'):
        find_clips(tmp_path / 'x.lmdb')
