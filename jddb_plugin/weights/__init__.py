"""Weights by name: NAME.pth in this folder, with its SHA-256 in ``index.json``.

    from jddb_plugin.weights import load_weights
    net = load_weights('small')          # one of those shipped with the package
    net = load_weights('net_g_5000.pth') # or any checkpoint

A file of packed weights holds ``params`` (a state dict), ``name``, ``version``, ``arch`` (the network's registered name) and
``options`` (its arguments). It is read without running code from it.
"""
from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Union

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.archs.checkpoint import Checkpoint, build, detect, unwrap
from jddb_plugin.checks import CheckpointError, OptionError, nearest
from jddb_plugin.files import atomic_write
from jddb_plugin.runtime.checkpoints import load_checkpoint, save_atomically

FOLDER = Path(__file__).resolve().parent
_INDEX = 'index.json'


def available() -> list[str]:
    """Names of the weights that come with the package."""
    return sorted(_index(FOLDER))


def read_weights(name_or_path: Union[str, Path]) -> Checkpoint:
    """The content of a file of weights.

    Args:
        name_or_path: a name of :func:`available`, or the path of a checkpoint.

    Raises:
        CheckpointError: there is no such name or file, the file is damaged, or is not the one that was shipped.
    """
    text = os.fspath(name_or_path)
    if os.path.isfile(text) or os.path.basename(text) != text or text.endswith(('.pth', '.pt')):
        return unwrap(load_checkpoint(text), text)
    known = _index(FOLDER)
    if text not in known:
        if not known:
            raise CheckpointError(f"'{text}': no weights come with this version of the package, and there is no such file; give "
                                  'the path of a checkpoint.')
        raise CheckpointError(f"'{text}': neither a file nor the name of weights; {nearest(text, known)}")
    path = FOLDER / f'{text}.pth'
    if not path.is_file():
        raise CheckpointError(f'{path}: is missing; reinstall the package, or give the path of a checkpoint.')
    if _digest(path) != known[text]['sha256']:
        raise CheckpointError(f'{path}: damaged, its SHA-256 is not that of {_INDEX}; reinstall the package.')
    return unwrap(load_checkpoint(str(path)), str(path))


def load_weights(name_or_path: Union[str, Path], **options: Any) -> BurstNetwork:
    """The network of a file of weights, on the CPU, in evaluation mode and without gradients.

    Args:
        name_or_path: a name of :func:`available`, or the path of a checkpoint of a training, of a converted release, or of packed
            weights.
        options: arguments of the network that no checkpoint shows; None leaves one to the checkpoint. For TwoStageJDDB
            ``coarse`` ('block_matching' or 'none' leave learned features unused, and must be given if there are none), ``dpbm``
            and ``dcn_backend``.

    Raises:
        CheckpointError: missing, damaged, not finite, not a network, or another network.
        OptionError: an option is missing, or not one of the network's.
    """
    return build(read_weights(name_or_path), os.fspath(name_or_path), **options)


def pack_weights(checkpoint: str, name: str, version: str, folder: Path = FOLDER, *, half: bool = False,
                 **options: Any) -> Path:
    """Write ``NAME.pth`` and its line of the index, from a checkpoint of a training.

    Args:
        checkpoint: its path; averaged weights are taken if it has them.
        name: what the weights are to be called.
        version: of the weights.
        folder: where they go; made if it is not there.
        half: store float16, which halves the file; networks are loaded in float32 all the same.
        options: arguments of the network that its tensors do not show.

    Returns:
        the file.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        OptionError: the name cannot be one.
    """
    if not name.isidentifier():
        raise OptionError(f"name: expected letters, digits and underscores, got '{name}'.")
    content = unwrap(load_checkpoint(checkpoint), checkpoint)
    if content.arch is None:
        network = detect(content.state, checkpoint)
        arch, known = network.__name__, network.options_of(content.state, checkpoint)
    else:
        arch, known = content.arch, dict(content.options or {})
    options = {**known, **{key: value for key, value in options.items() if value is not None}}
    net = build(Checkpoint(content.state, arch, options), checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{name}.pth'
    state = {key: value.detach().half() if half else value.detach().clone() for key, value in net.state_dict().items()}
    save_atomically({'params': state, 'name': name, 'version': version, 'arch': arch, 'options': options}, str(path))
    index = {**_index(folder), name: {'sha256': _digest(path), 'version': version, 'arch': arch}}
    with atomic_write(folder / _INDEX) as file:
        file.write_text(json.dumps(index, indent=2, sort_keys=True) + '\n', encoding='utf-8')
    return path


def _index(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / _INDEX
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
