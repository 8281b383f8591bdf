"""From a checkpoint to a network: which one it is of, and its options, are read off the tensors.

Every burst network says itself which state dicts are its own and what their shapes show (:meth:`BurstNetwork.detect` and
:meth:`BurstNetwork.options_of`); a file of packed weights (:mod:`jddb_plugin.weights`) states both.
"""
from __future__ import annotations

import inspect
import re
from typing import Any, Mapping, NamedTuple, Optional

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.archs.released import is_released
from jddb_plugin.checks import CheckpointError, OptionError, nearest

State = Mapping[str, Tensor]


class Checkpoint(NamedTuple):
    """What a file holds.

    Attributes:
        state: of a network.
        arch: its registered name, if the file says so.
        options: its arguments, if the file says so.
        about: what else the file says: name, version.
    """

    state: State
    arch: Optional[str] = None
    options: Optional[Mapping[str, Any]] = None
    about: Mapping[str, Any] = {}


def unwrap(content: Any, where: str) -> Checkpoint:
    """The state dict of a network in what ``torch.load`` gave.

    Of ``params_ema``, ``params`` and a bare state dict the first that is there is taken.

    Raises:
        CheckpointError: it is something else, or holds values that are not finite.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{where}: expected a state dict, found {type(content).__name__}.')
    if 'optimizers' in content and 'iter' in content:
        raise CheckpointError(f"{where}: a training state; give the network beside it, models/net_g_{content['iter']}.pth.")
    state = content.get('params_ema', content.get('params', content))
    if not isinstance(state, Mapping) or not state or not all(torch.is_tensor(value) for value in state.values()):
        raise CheckpointError(f'{where}: expected a state dict, or one below params_ema or params; found '
                              f'{some(state if isinstance(state, Mapping) else content)}.')
    state = {re.sub(r'^module\.', '', str(key)): value for key, value in state.items()}
    if is_released(state):
        raise CheckpointError(f"{where}: the authors' file as it was released; convert it with jddb "
                              'convert.')
    for key, value in state.items():
        if value.layout != torch.strided or value.device.type != 'cpu' or not torch.isfinite(value).all():
            raise _not_finite(key, where)
    arch, options = content.get('arch'), content.get('options')
    if not isinstance(arch, str) or not isinstance(options, Mapping):
        return Checkpoint(state)
    return Checkpoint(state, arch, options, {key: content[key] for key in ('name', 'version') if key in content})


def networks() -> dict[str, type[BurstNetwork]]:
    """All registered burst networks by their names."""
    return {name: network for name, network in ARCH_REGISTRY if isinstance(network, type) and issubclass(network, BurstNetwork)}


def detect(state: State, where: str) -> type[BurstNetwork]:
    """The registered network that a state dict is of.

    Raises:
        CheckpointError: none, or several; names what they would expect.
    """
    known = networks()
    # Networks that compare some keys come first: the others have to be built.
    by_building = inspect.getattr_static(BurstNetwork, 'detect')
    by_keys = {network for network in known.values() if inspect.getattr_static(network, 'detect') is not by_building}
    for group in (by_keys, set(known.values()) - by_keys):
        found = [network for network in group if network.detect(state)]
        if found:
            break
    if len(found) == 1:
        return found[0]
    if found:
        names = ', '.join(network.__name__ for network in found)
        raise CheckpointError(f'{where}: fits several networks ({names}); pack it with the name of its own, '
                              'scripts/pack_weights.py.')
    raise CheckpointError(f"{where}: a checkpoint of another network, which holds {some(state)}; expected one of "
                          f"{', '.join(sorted(known))}.")


def build(checkpoint: Checkpoint, where: str, **options: Any) -> BurstNetwork:
    """The network of a checkpoint, on the CPU, in evaluation mode and without gradients.

    Args:
        checkpoint: of :func:`unwrap`.
        where: its name in messages.
        options: arguments of the network that no shape shows; those that are None are left to the checkpoint.

    Raises:
        CheckpointError: incomplete, or of another network.
        OptionError: an option is not one of the network's.
    """
    if checkpoint.arch is None:
        network = detect(checkpoint.state, where)
        known = network.options_of(checkpoint.state, where)
    else:
        if checkpoint.arch not in networks():
            raise CheckpointError(f"{where}: of a network '{checkpoint.arch}' that this version does not have; it has "
                                  f"{', '.join(sorted(networks()))}.")
        network, known = networks()[checkpoint.arch], dict(checkpoint.options or {})
    given = {key: value for key, value in options.items() if value is not None}
    names = inspect.signature(network).parameters
    for key in given:
        if key not in names:
            raise OptionError(f"{where}: {network.__name__} has no option '{key}'; {nearest(key, names)}")
    net, state = network.from_state(checkpoint.state, {**known, **given}, where)
    compare(net.state_dict(), state, type(net).__name__, where)
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def compare(expected: State, state: State, network: str, where: str) -> None:
    """Raise CheckpointError unless both hold the same keys and shapes."""
    missing = [key for key in expected if key not in state]
    if missing:
        raise CheckpointError(f'{where}: incomplete, {some(missing)} missing.')
    strange = [key for key in state if key not in expected]
    if strange:
        raise CheckpointError(f'{where}: a checkpoint of another network; {network} has no {some(strange)}.')
    for key, value in expected.items():
        if value.is_floating_point() and not state[key].is_floating_point():
            raise _not_finite(key, where)
        if state[key].shape != value.shape:
            raise CheckpointError(f"{where}: '{key}' is {list(state[key].shape)}, expected {list(value.shape)}.")


def _not_finite(key: str, where: str) -> CheckpointError:
    return CheckpointError(f"{where}: '{key}' holds values that are not finite numbers; take an earlier checkpoint.")


def some(keys: Any) -> str:
    """Some keys for a message."""
    keys = [f"'{key}'" for key in keys]
    return ', '.join(keys[:3]) + (f' and {len(keys) - 3} more' if len(keys) > 3 else '') if keys else 'nothing'
