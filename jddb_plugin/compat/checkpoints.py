"""Saving, loading and resuming of basicsr 1.4.2."""
from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Mapping, Optional

import torch

from jddb_plugin.checks import CheckpointError
from jddb_plugin.runtime import processes
from jddb_plugin.runtime.checkpoints import (
    check_state,
    load_checkpoint,
    network_file,
    newest_readable,
    remove_partial,
    save_atomically,
    set_aside_later,
)
from jddb_plugin.runtime.data_position import RUN_STATE

_logger = logging.getLogger('jddb_plugin')


def save_network(self: Any, net: Any, net_label: str, current_iter: int, param_key: Any = 'params') -> None:
    """models/base_model.py:212 writes in place, retries, and ignores a write that failed."""
    if self.opt.get('rank', 0) != 0:
        return
    nets = net if isinstance(net, list) else [net]
    keys = param_key if isinstance(param_key, list) else [param_key]
    content = {}
    for one, key in zip(nets, keys):
        state = self.get_bare_model(one).state_dict()
        content[key] = {name.replace('module.', '', 1) if name.startswith('module.') else name: value.cpu()
                        for name, value in state.items()}
    label = 'latest' if current_iter == -1 else current_iter
    save_atomically(content, os.path.join(self.opt['path']['models'], f'{net_label}_{label}.pth'))


def save_training_state(self: Any, epoch: int, current_iter: int) -> None:
    """models/base_model.py:306: the same."""
    if self.opt.get('rank', 0) != 0 or current_iter == -1:
        return
    state = {
        'epoch': epoch,
        'iter': current_iter,
        'optimizers': [optimizer.state_dict() for optimizer in self.optimizers],
        'schedulers': [scheduler.state_dict() for scheduler in self.schedulers],
    }
    save_atomically(state, os.path.join(self.opt['path']['training_states'], f'{current_iter}.state'))


def load_network(self: Any, net: torch.nn.Module, load_path: str, strict: bool = True,
                  param_key: Optional[str] = 'params') -> None:
    """models/base_model.py:274 loads unsafely before torch 2.6 and fails with pages of key names."""
    from basicsr.utils import get_root_logger
    logger = get_root_logger()
    content = load_checkpoint(load_path)
    if param_key is not None:
        if param_key == 'params_ema' and param_key not in content and 'params' in content:
            logger.info(f"{load_path}: has no '{param_key}'; loading 'params'.")
            param_key = 'params'
        if param_key not in content:
            raise CheckpointError(f"{load_path}: no '{param_key}' in it, but {sorted(map(str, content))[:5]}; set "
                                  'param_key_g, or ~ for a bare state dict.')
        content = content[param_key]
    content = {key[7:] if key.startswith('module.') else key: value for key, value in content.items()}
    net = self.get_bare_model(net)
    adapt = getattr(net, 'adapt_state_dict', None)
    if adapt is not None:
        adapted = adapt(content)
        if adapted is not content:
            logger.info(f'{load_path}: holds the network inside {type(net).__name__}, and is loaded into it.')
        content = adapted
    own = net.state_dict()
    wrong = [key for key in own if key in content and content[key].shape != own[key].shape]
    if strict:
        problems = [f"'{key}' is missing" for key in own if key not in content]
        problems += [f"'{key}' is not in the network" for key in content if key not in own]
        problems += [f"'{key}' is {list(content[key].shape)}, the network has {list(own[key].shape)}" for key in wrong]
        if problems:
            other = _other_network(content, net, own) or f'belongs to another configuration of {type(net).__name__}: '
            raise CheckpointError(f'{load_path}: {other}{problems[0]} '
                                  f'({len(problems)} differences in all); check network_g, or set strict_load_g: false.')
    else:
        for key in wrong:
            logger.warning(f"{load_path}: '{key}' has another size and is not loaded.")
            del content[key]
        absent = [key for key in own if key not in content]
        if len(absent) == len(own):
            other = _other_network(content, net, own)
            raise CheckpointError(f'{load_path}: {other}holds nothing of {type(net).__name__}; is it the right file?')
        for key in absent:
            logger.warning(f"{load_path}: '{key}' is not in it and keeps its initial value.")
    net.load_state_dict(content, strict=strict)


def _other_network(state: Mapping[str, Any], net: torch.nn.Module, own: Mapping[str, Any]) -> str:
    """The beginning of a sentence that names the network of a state dict, if that is known to be another than ``net``.

    Args:
        state: of the checkpoint.
        net: what it was to be loaded into.
        own: the state dict of ``net``.
    """
    from basicsr.utils.registry import ARCH_REGISTRY
    found = [network for _, network in ARCH_REGISTRY if 'detect' in vars(network) and network.detect(state)] if state else []
    name_of = getattr(type(net), 'name_of', None)  # networks of the toolbox have none
    wanted = type(net).__name__ if name_of is None else name_of(own)
    name = found[0].name_of(state) if len(found) == 1 else wanted
    return f'this is a {name} checkpoint, and network_g is {wanted}: ' if name != wanted else ''


def load_resume_state(opt: dict[str, Any]) -> Optional[dict[str, Any]]:
    """train.py:70 asks CUDA for a device, looks below the current directory only, and takes torn files.

    auto_resume takes the newest state that can be read together with its networks; rank 0 decides. A state of another
    experiment brings the networks that lie beside it.
    """
    from basicsr.utils import check_resume
    RUN_STATE.reset()
    path, ignored = opt['path'].get('resume_state'), opt['path'].get('ignore_resume_networks') or ()
    labels = [key[len('network_'):] for key in opt if key.startswith('network_') and key not in ignored]
    if opt['auto_resume']:
        newest, error = None, None
        skipped: list[str] = []
        if opt['rank'] == 0:
            try:
                newest, skipped = newest_readable(opt['path']['training_states'], opt['path']['models'], labels)
            except CheckpointError as caught:
                error = caught
        for line in skipped:
            _logger.warning(line)
        processes.fail_together(error, '--auto_resume')
        path = processes.from_rank_0(newest) or path  # a state of another experiment serves the first start
        if path is None and opt['rank'] == 0 and any(Path(opt['path']['models']).glob('*.pth')):
            _logger.warning('%s: holds networks, but no training state to resume from; the training starts at iteration 0, '
                            "and the folder is kept as '..._archived_...'. To go on from these networks, set "
                            'path.pretrain_network_g. States are saved every logger.save_checkpoint_freq iterations.',
                            opt['path']['models'])
    if path is None:
        return None
    opt['path']['resume_state'] = path
    state = load_checkpoint(path)
    check_state(state, path)
    check_resume(opt, state['iter'])
    models = os.path.join(os.path.dirname(os.path.dirname(path)), 'models')
    for label in labels:
        file = network_file(models, label, state['iter'])
        opt['path'][f'param_key_{label}'] = 'params'  # whatever the file that the run once started from was like
        if os.path.isfile(file):
            opt['path'][f'pretrain_network_{label}'] = file
    for key in ('experiments_root', 'models', 'training_states', 'visualization'):
        os.makedirs(opt['path'][key], exist_ok=True)
    if opt['rank'] == 0:
        remove_partial(opt['path']['models'], opt['path']['training_states'], opt['path']['experiments_root'])
        later = set_aside_later(opt['path']['training_states'], state['iter']) if _is_own(path, opt) else []
        if later:
            _logger.warning('The run goes on from iteration %d; its later states are set aside as *.state.superseded: %s',
                            state['iter'], ', '.join(map(str, later)))
    RUN_STATE.resumed = state
    return state


def _is_own(state: str, opt: Mapping[str, Any]) -> bool:
    return os.path.realpath(os.path.dirname(state)) == os.path.realpath(opt['path']['training_states'])


def resume_training(self: Any, resume_state: Mapping[str, Any]) -> None:
    """models/base_model.py:340 lets the old settings replace those of the options.

    A run with more periods ended in a TypeError, and another learning rate, say after a divergence, was ignored.
    """
    for kind in ('optimizers', 'schedulers'):
        if len(resume_state[kind]) != len(getattr(self, kind)):
            raise CheckpointError(f"{self.opt['path']['resume_state']}: holds {len(resume_state[kind])} {kind}, the model has "
                                  f'{len(getattr(self, kind))}; it belongs to another configuration.')
    for optimizer, state in zip(self.optimizers, resume_state['optimizers']):
        asked = [{key: value for key, value in group.items() if key != 'params'} for group in optimizer.param_groups]
        try:
            optimizer.load_state_dict(state)
        except ValueError as error:
            raise CheckpointError(f"{self.opt['path']['resume_state']}: its optimizer belongs to another configuration "
                                  f'({error}).') from error
        for group, options in zip(optimizer.param_groups, asked):
            # The options' learning rate, at the place of its schedule where the run was.
            rate = group['lr'] * (options['initial_lr'] / group['initial_lr']) if group['initial_lr'] else options['lr']
            group.update({**options, 'lr': rate})
    for scheduler, state in zip(self.schedulers, resume_state['schedulers']):
        progress = ('last_epoch', '_step_count', '_last_lr', '_get_lr_called_within_step')
        scheduler.load_state_dict({key: value for key, value in state.items() if key in progress})


def mkdir_and_rename(path: str) -> None:
    """utils/misc.py:25 fails when two runs of one name start within a second: both archive to the same name."""
    from basicsr.utils import get_time_str
    if os.path.exists(path):
        kept = f'{path}_archived_{get_time_str()}'
        while os.path.exists(kept):
            kept += '_'
        _logger.warning('%s exists already and is kept as %s.', path, kept)
        os.rename(path, kept)
    os.makedirs(path, exist_ok=True)
