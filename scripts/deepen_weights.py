"""Give a trained GatedUNet more residual blocks, without changing what it computes.

python scripts/deepen_weights.py small -o deeper.pth --blocks 4 4 2

New blocks begin as the identity: their second convolution is zero. A training goes on from the file
(``path: {pretrain_network_g: deeper.pth}``) from where the smaller network stood, as `medium` did from `small`
(after Net2Net, Chen et al., ICLR 2016).
"""
from __future__ import annotations

import argparse
import sys
from typing import Optional

import torch
from torch import Tensor

from jddb_plugin import GatedUNet
from jddb_plugin.checks import OptionError, one_line_errors
from jddb_plugin.runtime.checkpoints import save_atomically
from jddb_plugin.weights import load_weights


def deepen(net: GatedUNet, blocks: list[int]) -> GatedUNet:
    """A network with more blocks that gives the same results.

    Raises:
        OptionError: a scale would have fewer blocks than before.
    """
    options = GatedUNet.options_of(net.state_dict(), 'weights')
    if any(new < old for new, old in zip(blocks, options['blocks'])):
        raise OptionError(f'--blocks: expected at least {options["blocks"]}, what the weights have, got {blocks}.')
    deeper = GatedUNet(options['channels'], blocks)
    state: dict[str, Tensor] = deeper.state_dict()
    known = net.state_dict()
    for key, value in state.items():
        if key not in known and '.second.' in key:
            value.zero_()
    deeper.load_state_dict({**state, **known})
    return deeper.eval()


@one_line_errors
def main(arguments: Optional[list[str]] = None) -> int:
    """Write the deeper network; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('weights', help='name of shipped weights, or a checkpoint')
    parser.add_argument('-o', '--output', required=True, metavar='FILE')
    parser.add_argument('--blocks', type=int, nargs=3, required=True, metavar='N', help='of the three scales')
    parser.add_argument('--seed', type=int, default=0, help='of the new first convolutions (default: 0)')
    args = parser.parse_args(arguments)
    net = load_weights(args.weights)
    if not isinstance(net, GatedUNet):
        raise OptionError(f'{args.weights}: holds a {type(net).__name__}; only a GatedUNet has such blocks.')
    torch.manual_seed(args.seed)
    save_atomically({'params': deepen(net, args.blocks).state_dict()}, args.output)
    return 0


if __name__ == '__main__':
    sys.exit(main())
