"""Signals that ask a run to stop: SIGTERM, and SIGUSR1, which Slurm sends as a warning (--signal=USR1@120).

The handler only takes a note. The training loop finishes its iteration, saves, and ends by :class:`Preempted`,
which the command turns into the exit status 75: "try again later", for the batch script to requeue the job.
"""
from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing import resource_tracker
from typing import Any, Iterator, Optional

from jddb_plugin.children import end_with_parent

#: EX_TEMPFAIL of sysexits.h.
EXIT_STATUS = 75
SIGNALS = tuple(getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1') if hasattr(signal, name))  # one on Windows

_received: Optional[str] = None
#: The launcher's process, once it is watched.
_launcher: Optional[int] = None


class Preempted(Exception):
    """The run was asked to stop and has saved its state."""


def _note(number: int, _: Any) -> None:
    global _received
    _received = signal.Signals(number).name


def received() -> Optional[str]:
    """Name of the signal that has asked this process to stop, or what else has; None if nothing has."""
    if _received is None and _launcher is not None and os.getppid() != _launcher:
        return 'the launcher has ended'
    return _received


def watch_launcher() -> None:
    """From now on the end of the parent process asks this one to stop, too.

    Processes of a torchrun that was killed would train on, unwatched, beside those of the next one.
    """
    global _launcher
    _launcher = os.getppid()


@contextlib.contextmanager
def watch() -> Iterator[None]:
    """Take a note of the signals while the context lasts, instead of dying of them."""
    global _received, _launcher
    _received = _launcher = None
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore() -> None:
    """From here on the signals change nothing: the process is about to end, with a status of its own."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def shield_children() -> Iterator[None]:
    """Processes that are started in this context never die of the signals, which Slurm sends to all of a job step's.

    A child inherits which signals are blocked, from its first instruction on. Signals to this process wait until
    the context ends. A worker of a data loader must then call :func:`obey_parent_only`.
    """
    if not hasattr(signal, 'pthread_sigmask'):  # on Windows
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    resource_tracker.ensure_running()  # shields itself from SIGTERM, and unblocks it here when it does
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def obey_parent_only() -> None:
    """In a shielded worker: end by SIGTERM if the parent sends it, and not if anybody else does; end when the parent does."""
    process = multiprocessing.parent_process()
    parent = None if process is None else process.pid

    def wait_for_signal() -> None:
        while True:
            if signal.sigwaitinfo({signal.SIGTERM}).si_pid in (parent, os.getpid()):
                os._exit(0)

    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        threading.Thread(target=wait_for_signal, daemon=True).start()
    end_with_parent()
