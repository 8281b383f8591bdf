"""Checkpoints and training states on disk: complete or not there, and which of them to keep."""
from __future__ import annotations

import contextlib
import errno
import os
import zipfile
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import torch

from jddb_plugin.checks import CheckpointError
from jddb_plugin.files import atomic_write


def save_atomically(content: Any, path: str) -> None:
    """Write a checkpoint so that ``path`` is either the old file or the complete new one, even after a power cut.

    Raises:
        CheckpointError: it could not be written (disk full, quota, permissions); the old file is untouched.
    """
    try:
        with atomic_write(path, durable=True) as partial, open(partial, 'wb') as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f'{path}: the checkpoint could not be written ({_reason(error)}); earlier ones are complete. '
                              'Free some space, or keep fewer by logger.keep_last, and resume with --auto_resume.') from error


def _reason(error: BaseException) -> str:
    """What the system said; torch hides it behind an error of its archive writer."""
    cause: Optional[BaseException] = error
    while cause is not None:
        if isinstance(cause, OSError):
            return 'the quota is used up' if cause.errno == getattr(errno, 'EDQUOT', None) else str(cause.strerror or cause)
        error, cause = cause, cause.__context__
    return str(error).splitlines()[0]


def remove_partial(*folders: str) -> None:
    """Remove what a run that was killed has left half written; no other may be writing there."""
    for folder in folders:
        for path in Path(folder).glob('*.partial'):
            with contextlib.suppress(OSError):
                path.unlink()


def load_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint without running code from it.

    Raises:
        CheckpointError: missing, truncated, damaged, or not a checkpoint of tensors and plain values.
    """
    if not os.path.isfile(path):
        raise CheckpointError(f'{path}: no such checkpoint.')
    _check_records(path)
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch.load raises many types for damaged files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f'{path}: truncated, or not a checkpoint that can be loaded safely ({reason}).') from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{path}: expected a checkpoint (a dict), found {type(content).__name__}.')
    return content


def _check_records(path: str) -> None:
    """Raise CheckpointError where a record differs from its checksum, which torch does not look at."""
    if not zipfile.is_zipfile(path):
        return  # of an old torch, or no checkpoint at all
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
        reason = '' if record is None else f'{record} differs from its checksum'
    except Exception as error:  # many types, as of torch.load
        reason = str(error) or type(error).__name__
    if reason:
        raise CheckpointError(f'{path}: damaged ({reason}); copy it again.')


def iterations(states: str) -> list[int]:
    """Iterations of the training states in a folder, newest first."""
    stems = (path.stem for path in Path(states).glob('*.state'))
    return sorted((int(stem) for stem in stems if stem.isdigit()), reverse=True)


def network_file(models: str, label: str, iteration: int) -> str:
    """Where the toolbox keeps network ``label`` (``g`` of ``network_g``) of an iteration."""
    return os.path.join(models, f'net_{label}_{iteration}.pth')


def newest_readable(states: str, models: str, labels: Sequence[str]) -> tuple[Optional[str], list[str]]:
    """The newest training state that can be read together with its networks.

    Returns:
        Its path (None if there is none at all), and one line about each newer one that was skipped.

    Raises:
        CheckpointError: there are states, and none can be read.
    """
    skipped = []
    for iteration in iterations(states):
        path = os.path.join(states, f'{iteration}.state')
        try:
            check_state(load_checkpoint(path), path)
            for label in labels:
                load_checkpoint(network_file(models, label, iteration))
        except CheckpointError as error:
            skipped.append(f'auto_resume skips iteration {iteration}: {error}')
            continue
        return path, skipped
    if skipped:
        raise CheckpointError(f'{states}: none of its training states can be read; restore or remove them, or start anew without '
                              f'--auto_resume. The last one tried: {skipped[-1]}')
    return None, []


def check_state(state: dict[str, Any], path: str) -> None:
    """Check that a file holds what a run goes on from.

    Raises:
        CheckpointError: something is missing.
    """
    for key in ('epoch', 'iter', 'optimizers', 'schedulers'):
        if key not in state:
            raise CheckpointError(f"{path}: not a training state ('{key}' is missing).")


def set_aside_later(states: str, iteration: int) -> list[int]:
    """Rename states of later iterations, ``.state`` -> ``.state.superseded``: a run that goes on from ``iteration`` leaves them.

    They are damaged, or of a past that the run was taken back from. Else the next --auto_resume would go on from them, and
    they would count as the newest when old ones are removed.
    """
    later = [other for other in iterations(states) if other > iteration]
    for other in later:
        path = os.path.join(states, f'{other}.state')
        os.replace(path, f'{path}.superseded')
    return later


def _outdated(states: str, keep_last: int, keep_every: int) -> Iterator[int]:
    for position, iteration in enumerate(iterations(states)):
        if position >= keep_last and not (keep_every and iteration % keep_every == 0):
            yield iteration


def remove_outdated(states: str, models: str, labels: Sequence[str], *, keep_last: int, keep_every: int) -> None:
    """Remove states and their networks, but for the last ``keep_last`` and every ``keep_every``-th iteration (0: none).

    A state goes before its networks: an interruption leaves a complete pair, or networks without a state.
    """
    for iteration in list(_outdated(states, keep_last, keep_every)):
        for path in (os.path.join(states, f'{iteration}.state'),
                     *(network_file(models, label, iteration) for label in labels)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
