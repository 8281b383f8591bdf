"""Copies of LMDBs on the node's own disk, for shared file systems that are slow at random reads."""
from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Optional, Union

from jddb_plugin.checks import DataError
from jddb_plugin.files import take_lock

_logger = logging.getLogger('jddb_plugin')
_CHUNK = 8 << 20
_SPARE = 64 << 20


def stage(lmdb_path: Union[str, Path], stage_dir: Optional[str]) -> Path:
    """Copy an LMDB folder below ``stage_dir``, once per node, and return the copy's path.

    Several processes may call this at once: one copies, the others wait for it. A copy is verified by SHA-256 when it is
    made; a later call uses it if the source's path, sizes and times are the same and the copy's sizes are right. Copies
    are not removed, since another job may read them: the cluster removes a job's own folder, the owner any other.

    Args:
        lmdb_path: the database's folder.
        stage_dir: folder of the copies; ``auto`` takes that of the job (:func:`job_folder`), and copies nothing if there is
            none; None copies nothing.

    Returns:
        the copy's folder; ``lmdb_path`` itself, after a warning, if there is no room or it cannot be copied.

    Raises:
        DataError: ``lmdb_path`` is not an LMDB folder.
    """
    path = Path(lmdb_path).expanduser()
    if not (path / 'data.mdb').is_file():
        raise DataError(f'{path}: is not an LMDB (it has no data.mdb).')
    if stage_dir == 'auto':
        stage_dir = job_folder(os.environ)
        if stage_dir is None:
            _logger.info('%s: is not copied, since no folder of this job is known; name one by stage_dir.', path)
    if not stage_dir:
        return path
    folder = Path(stage_dir).expanduser()
    try:
        return _stage(path, folder)
    except OSError as error:
        _logger.warning('%s: cannot be copied to %s (%s); the original is read.', path, folder, error)
        return path


def job_folder(environment: Mapping[str, str]) -> Optional[str]:
    """A folder that is removed with this job: $SLURM_TMPDIR, or a $TMPDIR that has the job's number in its path.

    Any other $TMPDIR, /tmp say, belongs to all: copies of gigabytes would stay there.
    """
    job = environment.get('SLURM_JOB_ID')
    for name, is_own in (('SLURM_TMPDIR', True), ('TMPDIR', False)):
        folder = environment.get(name)
        if folder and (is_own or (job and re.search(rf'(?<!\d){job}(?!\d)', os.path.realpath(folder)))):
            return folder
    return None


def _stage(path: Path, folder: Path) -> Path:
    stamp = _stamp(path)
    target = folder / f'{path.resolve().stem}-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}.lmdb'
    folder.mkdir(parents=True, exist_ok=True)
    lock = None
    while lock is None:  # the previous holder may have removed its file
        lock = take_lock(folder / f'{target.name}.lock', wait=True)
    try:
        if _is_whole(path, target):
            return target
        partial = target.with_name(f'{target.name}.partial')
        for leftover in (target, partial):
            shutil.rmtree(leftover, ignore_errors=True)
        needed = sum(file.stat().st_size for file in _files(path))
        free = shutil.disk_usage(folder).free
        if free < needed + _SPARE:
            _logger.warning('%s: needs %.1f GB, but %s has %.1f GB left; the original is read.', path, needed / 1e9, folder,
                            free / 1e9)
            return path
        _logger.info('Copy %s (%.1f GB) to %s', path, needed / 1e9, target)
        try:
            partial.mkdir()
            for file in _files(path):
                _copy(file, partial / file.name)
            if _stamp(path) != stamp:
                raise OSError('it changed while it was copied')
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target
    finally:
        lock.release()


def _files(path: Path) -> list[Path]:
    """Files to copy: all but LMDB's table of readers, which belongs to the node."""
    return sorted(file for file in path.iterdir() if file.is_file() and file.name != 'lock.mdb')


def _stamp(path: Path) -> str:
    files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in _files(path)]
    return f'{path.resolve()} {files}'


def _is_whole(path: Path, copy: Path) -> bool:
    """Whether all files are there at full length; some clusters remove old files from such folders."""
    sizes = [{file.name: file.stat().st_size for file in _files(p)} for p in (path, copy) if p.is_dir()]
    return len(sizes) == 2 and sizes[0] == sizes[1]


def _copy(source: Path, target: Path) -> None:
    digest = hashlib.sha256()
    with open(source, 'rb') as reader, open(target, 'wb') as writer:
        for chunk in iter(lambda: reader.read(_CHUNK), b''):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    check = hashlib.sha256()
    with open(target, 'rb') as reader:
        for chunk in iter(lambda: reader.read(_CHUNK), b''):
            check.update(chunk)
    if check.digest() != digest.digest():
        raise OSError(f'the copy of {source.name} differs')
