"""Schedules: pure functions of the iteration, counted from 1."""
from __future__ import annotations

import bisect
import math
from typing import Any, Callable, Sequence

from jddb_plugin.checks import OptionError, nearest

Schedule = Callable[[int], float]


def step(milestones: Sequence[int], values: Sequence[float]) -> Schedule:
    """``values[k]`` after k milestones: ``values[0]`` up to and including iteration ``milestones[0]``, and so on."""
    milestones, values = list(milestones), [float(v) for v in values]
    if len(values) != len(milestones) + 1 or milestones != sorted(milestones):
        raise OptionError(f'step schedule: needs ascending milestones and one value more than milestones, got '
                          f'milestones {milestones} and values {values}.')
    return lambda iteration: values[bisect.bisect_left(milestones, iteration)]


def _progress(begin: int, end: int) -> Callable[[int], float]:
    """0 up to iteration ``begin``, 1 from ``end`` on, linear between."""
    if not 0 <= begin < end:
        raise OptionError(f'schedule: needs 0 <= begin < end, got begin {begin} and end {end}.')
    return lambda iteration: min(max((iteration - begin) / (end - begin), 0.0), 1.0)


def linear(start: float, stop: float, end: int, begin: int = 0) -> Schedule:
    """From ``start`` at iteration ``begin`` to ``stop`` at ``end`` along a line."""
    progress = _progress(begin, end)
    return lambda iteration: start + (stop - start) * progress(iteration)


def cosine(start: float, stop: float, end: int, begin: int = 0) -> Schedule:
    """From ``start`` to ``stop`` along half a period of a cosine."""
    progress = _progress(begin, end)
    return lambda iteration: stop + (start - stop) * 0.5 * (1 + math.cos(math.pi * progress(iteration)))


def exponential(start: float, stop: float, end: int, begin: int = 0) -> Schedule:
    """From ``start`` to ``stop`` by a constant factor per iteration; both must be positive."""
    if start <= 0 or stop <= 0:
        raise OptionError(f'exponential schedule: start and stop must be positive, got {start} and {stop}.')
    progress = _progress(begin, end)
    return lambda iteration: start * (stop / start) ** progress(iteration)


def geometric(start: float, factor: float) -> Schedule:
    """``start`` times ``factor`` to the power of the iteration."""
    if not factor > 0:
        raise OptionError(f'geometric schedule: factor must be positive, got {factor}.')
    return lambda iteration: start * factor ** iteration


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    'step': step, 'linear': linear, 'cosine': cosine, 'exponential': exponential, 'geometric': geometric,
}


def build_schedule(schedule: str, **arguments: Any) -> Schedule:
    """Build a schedule by its name.

    Raises:
        OptionError: the name or an argument is unknown, or an argument is missing or out of range.
    """
    if schedule not in SCHEDULES:
        raise OptionError(f"schedule: unknown name '{schedule}'; {nearest(schedule, SCHEDULES)}")
    try:
        return SCHEDULES[schedule](**arguments)
    except TypeError as error:
        raise OptionError(f"schedule '{schedule}': {error}") from error
