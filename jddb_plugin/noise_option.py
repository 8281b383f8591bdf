"""The option ``noise`` of data sets, settings and the command line: one set of names, and one check. Needs no torch."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Union

from jddb_plugin.checks import OptionError

#: Named levels (shot, read): those of the paper's tables 1 and 2.
TEST_LEVELS = {'low': (2.5e-3, 1e-2), 'high': (6.4e-3, 2e-2)}

#: (shot, read), or the name of the place where they come from: 'random', 'metadata', 'estimate'.
Noise = Union[str, tuple[float, float]]


def parse_noise(value: Union[str, Sequence[float]], *sources: str) -> Noise:
    """Read a noise option.

    Args:
        value: one of ``sources``; 'low' or 'high' (:data:`TEST_LEVELS`); 'SHOT,READ'; or a pair of numbers.
        sources: names that are accepted beside levels, e.g. 'random', 'metadata' or 'estimate'.

    Returns:
        the source's name, or (shot, read), both in 0 .. 1.

    Raises:
        OptionError: ``value`` is none of these.

    Examples:
        >>> parse_noise('high'), parse_noise('0.0025,0.01'), parse_noise([0, 0.5]), parse_noise('random', 'random')
        ((0.0064, 0.02), (0.0025, 0.01), (0.0, 0.5), 'random')
    """
    if isinstance(value, str) and value in sources:
        return value
    return parse_level(value, *sources)


def parse_level(value: Union[str, Sequence[float]], *sources: str) -> tuple[float, float]:
    """(shot, read) of a level, see :func:`parse_noise`; ``sources`` are mentioned in the message only.

    Raises:
        OptionError: ``value`` is no level.

    Examples:
        >>> parse_level('low')
        (0.0025, 0.01)
    """
    if isinstance(value, str) and value in TEST_LEVELS:
        return TEST_LEVELS[value]
    try:
        parts = value.split(',') if isinstance(value, str) else value
        shot, read = (float(part) for part in parts)
    except (TypeError, ValueError):
        names = ', '.join(repr(name) for name in (*sources, *TEST_LEVELS))
        raise OptionError(f'expected {names}, or SHOT,READ such as 0.0025,0.01; got {value!r}.', field='noise') from None
    if not (0 <= shot <= 1 and 0 <= read <= 1):
        raise OptionError(f'shot and read must be in 0 .. 1, got {shot:g} and {read:g}.', field='noise')
    return shot, read
