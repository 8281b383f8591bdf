"""Turn the paper's two released files into one checkpoint that ``pretrain_network_g`` loads strictly.

    python scripts/convert_released_checkpoint.py --main MAIN.pth --downsampler DOWNSAMPLER.pth \\
        --output experiments/pretrained/jddb_released.pth
"""
from __future__ import annotations

import argparse
import os
import re
import sys
from typing import Mapping

import torch

from jddb_plugin.archs.jddb_arch import TwoStageJDDB
from jddb_plugin.archs.released import convert_released, released_name
from jddb_plugin.checks import CheckpointError, one_line_errors
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


@one_line_errors
def main() -> int:
    """Convert; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--main', required=True, help="the release's main network")
    parser.add_argument('--downsampler', required=True, help="the release's downsampler")
    parser.add_argument('--output', required=True, help='checkpoint to write')
    args = parser.parse_args()
    sys.stdout.write(convert(args.main, args.downsampler, args.output) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
