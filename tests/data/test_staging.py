import logging
import multiprocessing
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data import staging
from jddb_plugin.data.frame_source import FrameSource
from jddb_plugin.data.staging import stage


@pytest.fixture
def database(tmp_path, texture_lmdb):
    shutil.copytree(texture_lmdb, tmp_path / 'shared' / 'textures.lmdb')
    return tmp_path / 'shared' / 'textures.lmdb'


def test_a_copy_is_made_once(tmp_path, database, monkeypatch):
    copies = []
    copy = staging._copy
    monkeypatch.setattr(staging, '_copy', lambda source, target: (copies.append(source.name), copy(source, target)))
    first = stage(database, str(tmp_path / 'node'))
    assert first.parent == tmp_path / 'node' and first.suffix == '.lmdb'
    assert sorted(copies) == ['checksums.txt', 'data.mdb', 'meta_info.txt']
    assert (first / 'data.mdb').read_bytes() == (database / 'data.mdb').read_bytes()
    assert stage(database, str(tmp_path / 'node')) == first and len(copies) == 3
    assert [p.name for p in (tmp_path / 'node').iterdir() if p.suffix != '.lock'] == [first.name]


def test_a_changed_source_or_a_cut_copy_is_copied_anew(tmp_path, database):
    first = stage(database, str(tmp_path / 'node'))
    os.utime(database / 'data.mdb', ns=(1, 1))
    second = stage(database, str(tmp_path / 'node'))
    assert second != first
    with open(second / 'data.mdb', 'r+b') as file:
        file.truncate(100)
    assert stage(database, str(tmp_path / 'node')) == second
    assert (second / 'data.mdb').read_bytes() == (database / 'data.mdb').read_bytes()
    (second / 'meta_info.txt').unlink()
    assert (stage(database, str(tmp_path / 'node')) / 'meta_info.txt').is_file()


def test_what_a_killed_copy_left_is_replaced(tmp_path, database):
    first = stage(database, str(tmp_path / 'node'))
    first.rename(first.with_name(first.name + '.partial'))
    (first.with_name(first.name + '.partial') / 'data.mdb').write_bytes(b'half')
    assert stage(database, str(tmp_path / 'node')) == first
    assert not first.with_name(first.name + '.partial').exists()


def _stage(database, folder, gate, queue):
    copies = []
    copy = staging._copy

    def slow(source, target):
        copies.append(source.name)
        copy(source, target)
        gate.wait(0.3)

    staging._copy = slow
    path = stage(database, folder)
    queue.put((str(path), len(copies), (path / 'data.mdb').stat().st_size))


def test_processes_at_once_copy_once(tmp_path, database):
    context = multiprocessing.get_context('fork')
    queue, gate = context.Queue(), context.Event()
    children = [context.Process(target=_stage, args=(database, str(tmp_path / 'node'), gate, queue)) for _ in range(4)]
    for child in children:
        child.start()
    results = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert sorted(count for _, count, _ in results) == [0, 0, 0, 3]
    assert len({(path, size) for path, _, size in results}) == 1


@pytest.mark.parametrize('trouble', ['room', 'full', 'differs', 'folder'])
def test_the_source_is_read_where_it_cannot_be_copied(tmp_path, database, monkeypatch, caplog, trouble):
    folder = tmp_path / 'node'
    if trouble == 'room':
        monkeypatch.setattr(staging.shutil, 'disk_usage', lambda _: SimpleNamespace(free=1000))
    elif trouble == 'folder':
        folder.write_text('not a folder')
    elif trouble == 'full':
        def copy(source, target):
            target.write_bytes(b'half')
            raise OSError(28, 'No space left on device')
        monkeypatch.setattr(staging, '_copy', copy)
    else:  # what is read back is not what was written
        monkeypatch.setattr(staging.os, 'fsync', lambda handle: os.pwrite(handle, b'!', 0))
    with caplog.at_level(logging.WARNING, logger='jddb_plugin'):
        assert stage(database, str(folder)) == database
    assert caplog.messages and 'the original is read' in caplog.messages[0]
    if folder.is_dir():
        assert [p.suffix for p in folder.iterdir()] == ['.lock']


def test_auto_takes_the_jobs_folder(tmp_path, database, monkeypatch):
    for name in ('SLURM_TMPDIR', 'TMPDIR', 'SLURM_JOB_ID'):
        monkeypatch.delenv(name, raising=False)
    assert stage(database, 'auto') == database
    assert stage(database, None) == database
    monkeypatch.setenv('TMPDIR', str(tmp_path / 'tmp'))
    for job in (None, '77', '7'):  # 'tmp' and 'job_770' are no job's own
        if job:
            monkeypatch.setenv('SLURM_JOB_ID', job)
            monkeypatch.setenv('TMPDIR', str(tmp_path / 'job_770'))
        assert stage(database, 'auto') == database
    assert not (tmp_path / 'tmp').exists() and not (tmp_path / 'job_770').exists()
    monkeypatch.setenv('SLURM_JOB_ID', '770')
    assert stage(database, 'auto').parent == tmp_path / 'job_770'
    monkeypatch.setenv('SLURM_TMPDIR', str(tmp_path / 'slurm'))
    assert stage(database, 'auto').parent == tmp_path / 'slurm'
    with pytest.raises(DataError, match='is not an LMDB'):
        stage(tmp_path, 'auto')


def test_frame_sources_read_the_copy(tmp_path, database, textures, texture_folder):
    source = FrameSource(str(database), {'type': 'lmdb'}, 'test', stage_dir=str(tmp_path / 'node'))
    assert source.root.parent == tmp_path / 'node'
    assert np.array_equal(source.read(source.clips['b'], 2), textures['b'][2])
    with pytest.raises(OptionError, match='stage_dir works with type lmdb only'):
        FrameSource(str(texture_folder), {'type': 'disk'}, 'test', stage_dir='auto')
    with pytest.raises(OptionError, match='mosaics are read with type lmdb only'):
        FrameSource(str(texture_folder), {'type': 'disk'}, 'test', frames='mosaic')
    with pytest.raises(OptionError, match="'raw' is not a valid choice"):
        FrameSource(str(texture_folder), {'type': 'disk'}, 'test', frames='raw')
