"""Change a trained GatedUNet: give it more residual blocks, or the coarsest gate of another.

python scripts/change_weights.py small -o deeper.pth --blocks 4 4 2
python scripts/change_weights.py experiments/jddb_finish/models/net_g_latest.pth -o small.pth --gate-of medium

New blocks begin as the identity: their second convolution is zero, so that the network computes what it did. A training goes on
from the file (``path: {pretrain_network_g: deeper.pth}``) from where the smaller network stood, as `medium` did from `small`
(after Net2Net, Chen et al., ICLR 2016). The coarsest gate decides which frames count at all; it has two parameters.
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


def _load(weights: str) -> GatedUNet:
    net = load_weights(weights)
    if not isinstance(net, GatedUNet):
        raise OptionError(f'{weights}: holds a {type(net).__name__}; expected a GatedUNet.')
    return net


@one_line_errors
def main(arguments: Optional[list[str]] = None) -> int:
    """Write the changed network; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('weights', help='name of shipped weights, or a checkpoint')
    parser.add_argument('-o', '--output', required=True, metavar='FILE')
    parser.add_argument('--blocks', type=int, nargs=3, metavar='N', help='of the three scales')
    parser.add_argument('--gate-of', metavar='WEIGHTS', help='whose coarsest gate to take: a name, or a checkpoint')
    parser.add_argument('--seed', type=int, default=0, help='of the new first convolutions (default: 0)')
    args = parser.parse_args(arguments)
    if args.blocks is None and args.gate_of is None:
        raise OptionError('give --blocks, --gate-of, or both.')
    net = _load(args.weights)
    if args.gate_of is not None:
        net.gates[-1].load_state_dict(_load(args.gate_of).gates[-1].state_dict())
    if args.blocks is not None:
        torch.manual_seed(args.seed)
        net = deepen(net, args.blocks)
    save_atomically({'params': net.state_dict()}, args.output)
    return 0


if __name__ == '__main__':
    sys.exit(main())
