"""Files that are complete or not there, locks, and temporary folders of killed processes."""
import logging
import os
import signal
import subprocess
import sys
import time

import filelock
import pytest

from jddb_plugin import files
from jddb_plugin.files import atomic_write, take_lock, temporary_folder

from .small_run import environment


@pytest.mark.parametrize('durable', [False, True])
def test_a_file_is_the_old_or_the_new_one(tmp_path, durable):
    path = tmp_path / 'x.txt'
    with atomic_write(path, durable=durable) as partial:
        partial.write_text('old')
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), atomic_write(path, durable=durable) as partial:
        partial.write_text('ne')
        raise KeyboardInterrupt
    assert path.read_text() == 'old'
    with atomic_write(path, durable=durable) as partial:
        partial.write_text('new')
    assert path.read_text() == 'new' and [p.name for p in tmp_path.iterdir()] == ['x.txt']
    with atomic_write(path, durable=durable, keep_suffix=True) as partial:
        assert partial.name == 'x.partial.txt'
        partial.write_text('newer')
    assert path.read_text() == 'newer' and [p.name for p in tmp_path.iterdir()] == ['x.txt']


def test_the_content_reaches_the_disk_before_the_name_does(tmp_path, monkeypatch):
    done = []
    for name in ('fsync', 'replace'):
        call = getattr(os, name)
        monkeypatch.setattr(files.os, name, lambda *given, name=name, call=call: (done.append(name), call(*given)))
    with atomic_write(tmp_path / 'x', durable=True) as partial:
        partial.write_text('x')
    assert done == ['fsync', 'replace', 'fsync']


def test_one_holds_a_lock(tmp_path):
    lock = take_lock(tmp_path / 'lock', wait=False)
    assert lock is not None and take_lock(tmp_path / 'lock', wait=False) is None
    lock.release()
    again = take_lock(tmp_path / 'lock', wait=True)
    assert again is not None
    again.release()


def test_without_locks_there_is_a_warning(tmp_path, monkeypatch, caplog):
    def acquire(*_, **__):
        raise NotImplementedError('FileSystem does not appear to support flock')

    monkeypatch.setattr(filelock.FileLock, 'acquire', acquire)
    with caplog.at_level(logging.WARNING, logger='jddb_plugin'):
        take_lock(tmp_path / 'lock', wait=True).release()
    assert 'cannot be locked (FileSystem does not' in caplog.text and 'make sure that no other' in caplog.text


def test_a_file_that_cannot_be_made_is_an_error(tmp_path):
    with pytest.raises(OSError, match='No such file'):
        take_lock(tmp_path / 'nowhere' / 'lock', wait=False)


def test_folders_of_killed_processes_are_removed_and_others_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, 'tempdir', str(tmp_path))
    code = 'import sys\nfrom jddb_plugin.files import temporary_folder\n' \
           'with temporary_folder() as folder:\n    print(folder, flush=True)\n    sys.stdin.read()\n'
    runs = [subprocess.Popen([sys.executable, '-c', code], env=environment(TMPDIR=str(tmp_path)), text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    killed, alive = (run.stdout.readline().strip() for run in runs)
    runs[0].send_signal(signal.SIGKILL)
    runs[0].wait()
    for name, age in (('jddb_plugin_new', 60), ('jddb_plugin_old', 100000), ('other_old', 100000)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    assert os.path.isdir(killed)
    with temporary_folder() as own:
        assert {p.name for p in tmp_path.iterdir()} == {own.name, os.path.basename(alive), 'jddb_plugin_new', 'other_old'}
        with temporary_folder() as inner:
            assert own.is_dir() and inner != own
    assert not own.exists()
    runs[1].communicate('')
    assert not os.path.exists(alive) and runs[1].returncode == 0
