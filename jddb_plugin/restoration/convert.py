"""The paper's released weights as one checkpoint of :class:`jddb_plugin.archs.jddb_arch.TwoStageJDDB`."""
from __future__ import annotations

import os
import re
from typing import Mapping

import torch

from jddb_plugin.archs.jddb_arch import TwoStageJDDB
from jddb_plugin.archs.released import convert_released, released_name
from jddb_plugin.checks import CheckpointError
from jddb_plugin.runtime.checkpoints import load_checkpoint, save_atomically


def _network_for(state: Mapping[str, torch.Tensor], path: str) -> TwoStageJDDB:
    """A network of the checkpoint's size, to check it against."""
    try:
        num_feat = state['refine.extract.0.0.weight'].shape[0]
        groups = state['refine.align.level1.dcn.conv_offset.weight'].shape[0] // 27
    except KeyError as error:
        raise CheckpointError(f'{path}: incomplete, {released_name(error.args[0])} is missing; download it again.') from error
    return TwoStageJDDB(num_feat=num_feat, deformable_groups=groups)


def convert(main: str, downsampler: str, output: str) -> str:
    """Convert and check; returns a line about the network.

    Raises:
        CheckpointError: a file is missing, truncated, incomplete, or not the release's.
    """
    contents = []
    for path in (main, downsampler):
        content = load_checkpoint(path)
        if not all(torch.is_tensor(value) for value in content.values()):
            raise CheckpointError(f"{path}: expected the release's bare state dict of tensors, found "
                                  f'{sorted(map(str, content))[:4]}.')
        contents.append(content)
    try:
        state = convert_released(*contents)
    except CheckpointError as error:
        raise CheckpointError(f'{main}, {downsampler}: {error} Are --main and --downsampler the right way round?') from error
    net = _network_for(state, main)
    expected = net.state_dict()
    for key, value in expected.items():
        path = downsampler if key.startswith('coarse.') else main
        if key not in state:
            raise CheckpointError(f'{path}: incomplete, {released_name(key)} is missing; download it again.')
        if state[key].shape != value.shape:
            raise CheckpointError(f'{path}: {released_name(key)} is {list(state[key].shape)}, expected {list(value.shape)}.')
    os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
    save_atomically({'params': {key: state[key].clone() for key in expected}}, output)
    count = sum(value.numel() for value in state.values())
    width = re.sub(r'(?<=\d)(?=(\d{3})+$)', ',', str(count))
    return f'{output}: {width} parameters, num_feat {expected["refine.extract.0.0.weight"].shape[0]}'
