"""Tasks in parallel processes, results in order: torch's DataLoader, whose samples are the results."""
from __future__ import annotations

import signal
import threading
from typing import Any, Callable, Generator, Iterable, Iterator, TypeVar, Union

import cv2
from torch.utils.data import DataLoader, Dataset

from jddb_plugin.checks import DataError, JDDBError
from jddb_plugin.children import end_with_parent

Result = TypeVar('Result')
Task = Callable[[], Result]


class _Results(Dataset):
    """A data set whose indices are the tasks themselves.

    Our own errors are results, too, and are raised when the result is taken: the loader would wrap their messages.
    """

    def __getitem__(self, task: Task[Result]) -> Union[Result, JDDBError]:
        try:
            return task()
        except JDDBError as error:
            return error


def _start_worker(_: int) -> None:
    """A worker leaves interrupts to its parent, ends when the parent is killed, and uses one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    end_with_parent()


def _identity(result: Any) -> Any:
    return result


def run_in_order(tasks: Iterable[Task[Result]], workers: int) -> Generator[Result, None, None]:
    """Results of the tasks, in their order.

    Args:
        tasks: functions that can be pickled; taken as they are needed, not more than two per worker ahead.
        workers: processes (spawned); 0 runs the tasks in this one.

    Raises:
        DataError: raised by a task, or a worker was killed.
    """
    if not workers:
        for task in tasks:
            yield task()
        return
    loader = DataLoader(_Results(), sampler=tasks, batch_size=None, num_workers=workers, collate_fn=_identity,
                        worker_init_fn=_start_worker, multiprocessing_context='spawn')
    results = _start(loader)
    try:
        while True:
            try:
                result = next(results)
            except StopIteration:
                return
            except RuntimeError as error:
                if 'DataLoader worker (pid' not in str(error):
                    raise
                raise DataError('a worker process was killed, which happens when memory runs out; use fewer workers.'
                                ) from error
            if isinstance(result, JDDBError):
                raise result
            yield result
    finally:
        del results  # ends the workers


def _start(loader: DataLoader) -> Iterator[Any]:
    """An iterator that raises in its next() only: torch's handler of SIGCHLD would raise anywhere, e.g. within a write."""
    number = getattr(signal, 'SIGCHLD', None)
    if number is None or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(number)
    try:
        return iter(loader)
    finally:
        signal.signal(number, before)
