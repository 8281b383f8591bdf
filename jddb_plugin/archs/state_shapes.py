"""Options of a network, read from the shapes of its state dict."""
from __future__ import annotations

from typing import Mapping

from torch import Tensor

from jddb_plugin.checks import CheckpointError

#: Channels for each deformable group: two offsets and a mask for each of nine taps.
_PER_GROUP = 27
#: A file may claim any number of features, and they are allocated before it is compared with the rest of it.
_MOST_FEATURES = 1024


def shape_of(state: Mapping[str, Tensor], key: str, where: str) -> list[int]:
    """Shape of a convolution's weight [out, in, height, width].

    Raises:
        CheckpointError: it is missing, is no such weight, or is larger than any network here.
    """
    if key not in state:
        raise CheckpointError(f"{where}: incomplete, '{key}' is missing.")
    shape = list(state[key].shape)
    if len(shape) != 4 or not 1 <= shape[0] <= 4 * _MOST_FEATURES or min(shape) < 1:
        raise CheckpointError(f"{where}: '{key}' is {shape}, expected the weight of a convolution.")
    return shape


def features_of(state: Mapping[str, Tensor], key: str, where: str) -> int:
    """Features that a convolution gives."""
    features = shape_of(state, key, where)[0]
    if features > _MOST_FEATURES:
        raise CheckpointError(f"{where}: '{key}' has {features} features, expected at most {_MOST_FEATURES}.")
    return features


def quotient(value: int, divisor: int, key: str, where: str) -> int:
    """``value / divisor`` as a whole number of at least 1, for a size of ``key``."""
    if divisor < 1 or value % divisor or value < divisor:
        raise CheckpointError(f"{where}: '{key}' has {value} channels, expected a multiple of {divisor}.")
    return value // divisor


def groups_of(state: Mapping[str, Tensor], layer: str, where: str) -> int:
    """Deformable groups of a deformable convolution."""
    key = f'{layer}.conv_offset.weight'
    return quotient(shape_of(state, key, where)[0], _PER_GROUP, key, where)


def blocks_of(state: Mapping[str, Tensor], name: str) -> int:
    """Members of a sequence of blocks."""
    return len({key[len(name) + 1:].split('.')[0] for key in state if key.startswith(f'{name}.')})
