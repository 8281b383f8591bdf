"""Builds that are killed, interrupted or run out of space are completed later."""
import contextlib
import errno
import multiprocessing
import os
import shutil
import signal
import time

import cv2
import lmdb
import pytest

from jddb_plugin.checks import DataError
from jddb_plugin.data import burst_lmdb
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter

from .build_run import contents, noise, run_build, source_of, verify


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
        run_build(source, output, **kwargs)

    child = multiprocessing.get_context('fork').Process(target=build_and_die)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def test_a_killed_build_is_completed(tmp_path, bitmaps, monkeypatch):
    monkeypatch.setattr(burst_lmdb, '_COMMIT_VALUES', 5)
    run_build(bitmaps, tmp_path / 'whole.lmdb')
    total = len(contents(tmp_path / 'whole.lmdb')[0])
    for values in (0, 4, 5, 37, total - 1):
        output = tmp_path / f'{values}.lmdb'
        _killed_build(bitmaps, output, values)
        partial = output.with_name(output.name + '.partial')
        assert partial.exists() and not output.exists()
        with pytest.raises(DataError, match='left over from an interrupted build; continue with --resume.* --overwrite'):
            run_build(bitmaps, output)
        assert len(contents(partial)[0]) == values // 5 * 5
        run_build(bitmaps, output, resume=True)
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
    child = multiprocessing.get_context('fork').Process(target=run_build, args=(bitmaps, output), kwargs={'workers': 1})
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
    run_build(bitmaps, output, resume=True)
    assert verify(output)[1] == []


def test_an_interrupted_build_can_start_anew(tmp_path, bitmaps):
    _killed_build(bitmaps, tmp_path / 'x.lmdb', 40)
    run_build(bitmaps, tmp_path / 'x.lmdb', overwrite=True)
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
        run_build(source, output)


@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'No space left on device'), lmdb.DiskError('No space left on device')])
def test_a_full_disk_is_said_in_one_line_and_resumed(tmp_path, bitmaps, monkeypatch, error):
    with pytest.raises(DataError, match=r'x\.lmdb\.partial: the disk is full \(.*\)\. Free .*, then .*--resume') as caught:
        interrupted(monkeypatch, bitmaps, tmp_path / 'x.lmdb', 3, error)
    assert '\n' not in str(caught.value)
    assert len(contents(tmp_path / 'x.lmdb.partial')[0]) >= 15
    run_build(bitmaps, tmp_path / 'x.lmdb', resume=True)
    run_build(bitmaps, tmp_path / 'whole.lmdb')
    assert contents(tmp_path / 'x.lmdb') == contents(tmp_path / 'whole.lmdb')


def test_an_interrupt_keeps_what_is_there(tmp_path, bitmaps, monkeypatch):
    with pytest.raises(DataError, match=r'x\.lmdb: interrupted; .* --resume'):
        interrupted(monkeypatch, bitmaps, tmp_path / 'x.lmdb', 3, KeyboardInterrupt())
    run_build(bitmaps, tmp_path / 'x.lmdb', resume=True)
    assert verify(tmp_path / 'x.lmdb')[1] == []


def test_another_source_is_not_resumed(tmp_path, bitmaps, monkeypatch):
    def leave():
        with pytest.raises(DataError):
            interrupted(monkeypatch, bitmaps, tmp_path / 'x.lmdb', 3, OSError(errno.ENOSPC, 'full'))

    leave()
    shutil.copy(bitmaps / 'clip2' / '0.bmp', bitmaps / 'clip2' / '40.bmp')
    with pytest.raises(DataError, match=r'another source \(1 frames differ, the first is clip2/00000040\)'):
        run_build(bitmaps, tmp_path / 'x.lmdb', resume=True)
    (bitmaps / 'clip2' / '40.bmp').unlink()
    cv2.imwrite(str(bitmaps / 'clip0' / '3.bmp'), noise((64, 82, 3), 8))
    with pytest.raises(DataError, match='another source .* clip0/00000003'):
        run_build(bitmaps, tmp_path / 'x.lmdb', resume=True)
    (tmp_path / 'x.lmdb.partial' / 'plan.json').unlink()
    with pytest.raises(DataError, match='plan.json: cannot be read .* --overwrite'):
        run_build(bitmaps, tmp_path / 'x.lmdb', resume=True)
    with open(tmp_path / 'x.lmdb.partial' / 'data.mdb', 'r+b') as file:
        file.truncate(20000)
    with pytest.raises(DataError, match='damaged .* --overwrite'):
        run_build(bitmaps, tmp_path / 'x.lmdb', resume=True)


def test_a_frame_can_be_mended_and_the_build_resumed(tmp_path, bitmaps):
    good = (bitmaps / 'clip2' / '7.bmp').read_bytes()
    (bitmaps / 'clip2' / '7.bmp').write_bytes(good[:54] + b'cut off')  # its header is good
    with pytest.raises(DataError, match=r'clip2/7\.bmp: not a readable image'):
        run_build(bitmaps, tmp_path / 'x.lmdb')
    assert len(contents(tmp_path / 'x.lmdb.partial')[0]) == 87
    (bitmaps / 'clip2' / '7.bmp').write_bytes(good)
    run_build(bitmaps, tmp_path / 'x.lmdb', resume=True)
    run_build(bitmaps, tmp_path / 'whole.lmdb')
    assert contents(tmp_path / 'x.lmdb') == contents(tmp_path / 'whole.lmdb')


def test_a_second_builder_is_refused(tmp_path, bitmaps):
    with BurstLmdbWriter(str(tmp_path / 'x.lmdb')) as writer:
        writer.put_image('clip', 0, noise((8, 8, 3), 8))
        for options in ({}, {'resume': True}, {'overwrite': True}):
            with pytest.raises(DataError, match='another process is building it'):
                run_build(bitmaps, tmp_path / 'x.lmdb', **options)
    assert list(source_of(tmp_path / 'x.lmdb').clips) == ['clip']
