"""A network for evaluation from its checkpoint alone: what can be read off the tensors' shapes need not be told."""
from __future__ import annotations

import re
from typing import Any, Mapping, Optional

import torch
from torch import Tensor

from jddb_plugin.archs.jddb_arch import TwoStageJDDB
from jddb_plugin.archs.released import is_released
from jddb_plugin.checks import CheckpointError, OptionError
from jddb_plugin.runtime.checkpoints import load_checkpoint

_FIRST = 'refine.extract.0.0.weight'
_OFFSETS = 'refine.align.level1.dcn.conv_offset.weight'
#: The paper has 64. A file may claim any number of them, and they are allocated before it is compared with the rest of it.
_MOST_FEATURES = 512
#: Channels per deformable group: two offsets and a mask for each of nine taps.
_PER_GROUP = 27


def infer_network(state: Mapping[str, Tensor], where: str = 'checkpoint') -> dict[str, Any]:
    """Options of :class:`TwoStageJDDB` that a state dict tells.

    Args:
        state: of the network.
        where: its name in messages.

    Returns:
        num_feat, deformable_groups, refined; and ``coarse: dpbm`` if it holds matching features. Without them coarse may be
        'block_matching' or 'none', which have no parameters, and is left out.

    Raises:
        CheckpointError: a tensor is missing or has a shape that no network of ours has.
    """
    options = {}
    shape = _shape(state, _FIRST, where)
    if shape[1:] != [8, 3, 3] or not 2 <= shape[0] <= _MOST_FEATURES or shape[0] % 2:
        raise CheckpointError(f"{where}: '{_FIRST}' is {shape}, expected [num_feat, 8, 3, 3] with an even num_feat up to "
                              f'{_MOST_FEATURES}.')
    options['num_feat'], options['deformable_groups'] = shape[0], 1
    options['refined'] = 'dcn' if any(key.startswith('refine.align.') for key in state) else 'none'
    if options['refined'] == 'dcn':
        rows = _shape(state, _OFFSETS, where)[0]
        if rows == 0 or rows % _PER_GROUP or shape[0] % (rows // _PER_GROUP):
            raise CheckpointError(f"{where}: '{_OFFSETS}' has {rows} rows, expected {_PER_GROUP} for each deformable group, "
                                  f'and a number of groups that divides {shape[0]} features.')
        options['deformable_groups'] = rows // _PER_GROUP
    if any(key.startswith('coarse.downsample.') for key in state):
        options['coarse'] = 'dpbm'
    return options


def _shape(state: Mapping[str, Tensor], key: str, where: str) -> list[int]:
    if key not in state:
        raise CheckpointError(f"{where}: incomplete, '{key}' is missing.")
    if state[key].ndim != 4:
        raise CheckpointError(f"{where}: '{key}' is {list(state[key].shape)}, expected four dimensions.")
    return list(state[key].shape)


def load_network(path: str, *, coarse: Optional[str] = None, dpbm: Optional[Mapping[str, object]] = None,
                 ref_idx: Optional[int] = None, dcn_backend: str = 'auto', tile_batch: int = 4) -> TwoStageJDDB:
    """The network of a checkpoint, on the CPU, in evaluation mode and without gradients.

    Of ``params_ema``, ``params`` and a bare state dict the first that is there is taken.

    Args:
        path: checkpoint of a training, or a converted release.
        coarse: coarse stage. None takes the learned one; 'block_matching' or 'none' leave it unused if it is there, and must
            be said if it is not.
        dpbm, ref_idx, dcn_backend, tile_batch: see :class:`TwoStageJDDB`; no checkpoint tells them.

    Raises:
        CheckpointError: missing, damaged, not finite, not a network, or another network.
        OptionError: the coarse stage cannot be told, or an option is not one of the network's.
    """
    state = _read_state(path)
    options = infer_network(state, path)
    learned = options.pop('coarse', None)
    if coarse is None and learned is None:
        raise OptionError(f'{path}: holds no matching features, so its coarse stage cannot be told; give --coarse '
                          'block_matching or --coarse none, as in its training.')
    coarse = coarse or learned
    if coarse == 'dpbm' and learned is None:
        raise CheckpointError(f"{path}: holds no matching features ('coarse.downsample...'), which coarse: dpbm needs; "
                              'give --coarse block_matching or --coarse none, as in its training.')
    if coarse != 'dpbm':
        state = {key: value for key, value in state.items() if not key.startswith('coarse.downsample.')}
    net = TwoStageJDDB(coarse=coarse, dpbm=dpbm, ref_idx=ref_idx, dcn_backend=dcn_backend, tile_batch=tile_batch, **options)
    _check_fit(net.state_dict(), state, path)
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def _read_state(path: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint; it is one of our network, though maybe not a whole one."""
    content = load_checkpoint(path)
    if 'optimizers' in content and 'iter' in content:
        raise CheckpointError(f"{path}: a training state; give the network beside it, models/net_g_{content['iter']}.pth.")
    state = content.get('params_ema', content.get('params', content))
    if not isinstance(state, Mapping) or not state or not all(torch.is_tensor(value) for value in state.values()):
        raise CheckpointError(f'{path}: expected a state dict, or one below params_ema or params; found '
                              f'{_some(state if isinstance(state, Mapping) else content)}.')
    state = {re.sub(r'^module\.', '', str(key)): value for key, value in state.items()}
    if is_released(state):
        raise CheckpointError(f"{path}: the authors' file as it was released; convert it with "
                              'jddb convert.')
    strange = [key for key in state if not key.startswith(('refine.', 'coarse.'))]
    if strange:
        raise CheckpointError(f'{path}: a checkpoint of another network; TwoStageJDDB has no {_some(strange)}.')
    for key, value in state.items():
        plain = value.layout == torch.strided and value.device.type == 'cpu' and value.is_floating_point()
        if not plain or not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: '{key}' holds values that are not finite numbers; take an earlier checkpoint.")
    return state


def _some(keys: Any) -> str:
    """Some keys for a message."""
    keys = [f"'{key}'" for key in keys]
    return ', '.join(keys[:3]) + (f' and {len(keys) - 3} more' if len(keys) > 3 else '') if keys else 'nothing'


def _check_fit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: str) -> None:
    """Raise CheckpointError unless both hold the same keys and shapes."""
    missing = [key for key in expected if key not in state]
    if missing:
        raise CheckpointError(f'{path}: incomplete, {_some(missing)} missing.')
    strange = [key for key in state if key not in expected]
    if strange:
        raise CheckpointError(f'{path}: a checkpoint of another network; TwoStageJDDB has no {_some(strange)}.')
    for key, value in expected.items():
        if state[key].shape != value.shape:
            raise CheckpointError(f"{path}: '{key}' is {list(state[key].shape)}, expected {list(value.shape)}.")
