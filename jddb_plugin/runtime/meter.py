"""Speed and memory of a run, as shares and rates since the last line of the log."""
from __future__ import annotations

import sys
import time

import torch

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

_waited = 0.0


class waiting:  # noqa: N801 - reads as a statement: with waiting(): ...
    """Context in which the training loop waits for its next batch."""

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        global _waited
        _waited += time.perf_counter() - self._start


def peak_gigabytes(device: torch.device) -> float:
    """Most memory in use so far: the GPU's for tensors, or the process's resident memory on a CPU (NaN on Windows)."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 1e9
    if resource is None:
        return float('nan')
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == 'darwin' else 1024) / 1e9


class Meter:
    """Iterations, samples and waiting between two readings."""

    def __init__(self, samples_per_iteration: int, device: torch.device) -> None:
        self.samples_per_iteration = samples_per_iteration
        self.device = device
        self.restart()

    def restart(self) -> None:
        """Begin an interval now."""
        self._begin, self._waited, self._iterations, self._spent = time.perf_counter(), _waited, 0, 0.0

    def count(self) -> None:
        """One more iteration."""
        self._iterations += 1

    def pause(self, seconds: float) -> None:
        """Leave out time that was spent on something else than training, such as validation."""
        self._spent += seconds

    def read(self) -> dict[str, float]:
        """Values for the log; empty before the first iteration. Starts the next interval."""
        if not self._iterations:
            return {}
        elapsed = max(time.perf_counter() - self._begin - self._spent, 1e-9)
        rate = self._iterations / elapsed
        values = {'iterations_per_second': rate, 'samples_per_second': rate * self.samples_per_iteration,
                  'data_wait': (_waited - self._waited) / elapsed, 'peak_memory_gb': peak_gigabytes(self.device)}
        self.restart()
        return values
