"""Processes that multiprocessing has started end with their parent."""
from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """In a child: end when the parent has ended, however and whenever it did.

    The watchdog of torch's data loader compares the parent's number with the one that the worker has read itself. A parent that
    is killed while its workers start is gone by then: a worker reads the number of its new parent, and waits for work for ever.
    The pipe that multiprocessing gives every child is closed by the kernel, however early the parent was killed.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError('end_with_parent() is for processes that multiprocessing has started.')
    sentinel = parent.sentinel

    def wait_for_parent() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=wait_for_parent, daemon=True).start()
