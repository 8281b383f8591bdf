"""Tasks in parallel processes, results in order."""
from __future__ import annotations

import collections
import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Callable, Iterable, Iterator, TypeVar

import cv2

from jddb_plugin.checks import DataError

Result = TypeVar('Result')


def _start_worker() -> None:
    """A worker leaves interrupts to its parent, ends when the parent is killed, and is one of many."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)

    def end_with_parent() -> None:
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def run_in_order(tasks: Iterable[Callable[[], Result]], workers: int) -> Iterator[Result]:
    """Results of the tasks, in their order.

    Args:
        tasks: functions that can be pickled; taken as they are needed, not more than two per worker ahead.
        workers: processes (spawned); 0 runs the tasks in this one.

    Raises:
        DataError: a task's own, or a worker was killed.
    """
    if not workers:
        for task in tasks:
            yield task()
        return
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), _start_worker)
    ahead: collections.deque[Future[Result]] = collections.deque()
    try:
        for task in tasks:
            ahead.append(executor.submit(task))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except BrokenProcessPool as error:
        raise DataError('a worker process was killed, which happens when memory runs out; use fewer workers.') from error
    finally:
        executor.shutdown(cancel_futures=True)
