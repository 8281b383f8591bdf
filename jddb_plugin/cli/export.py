"""Export the refined stage of a network, coarsely aligned tiles to RGB, and check the file against the network.

    jddb export --weights experiments/pretrained/jddb_released.pth --output refined.onnx

The noise map, the matching, the cutting of tiles and the merging of their results stay in Python; docs/export.md has an example.
Needs onnx, onnxscript and onnxruntime: pip install "jddb_plugin[export]". A name that ends in .pt2 gives a program of
torch.export instead, which needs none of them.
"""
from __future__ import annotations

import argparse
import os
import sys
from typing import cast

from jddb_plugin.checks import ExportError, OptionError

#: Those of :data:`jddb_plugin.restoration.export.FORMS`.
FORMS = ('grid_sample', 'deform_conv')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Weights, file, and shape of the tiles."""
    parser.add_argument('--weights', required=True, metavar='FILE', help='checkpoint of a training, or a converted release')
    parser.add_argument('--output', required=True, metavar='FILE', help='file to write, .onnx or .pt2')
    parser.add_argument('--frames', type=int, default=5, help='frames of a burst (default: 5)')
    parser.add_argument('--ref', type=int, help='reference frame, from 0 (default: the middle one)')
    parser.add_argument('--tile', type=int, default=64, help='side of a tile in packed px (default: 64)')
    parser.add_argument('--overlap', type=int, default=4, help='context on each of its sides (default: 4)')
    parser.add_argument('--open-size', '--open_size', action='store_true',
                        help='take tiles of any size; else of tile + 2 overlap only')
    parser.add_argument('--form', choices=FORMS, default='grid_sample',
                        help='of the deformable convolutions (default: grid_sample; deform_conv needs onnxruntime 1.25 on a CPU)')


def run(args: argparse.Namespace) -> int:
    """Export; returns the exit status: 1 if the export fails or differs, 2 for errors of the user's."""
    from jddb_plugin.archs.checkpoint import build, detect
    from jddb_plugin.archs.jddb_arch import TwoStageJDDB
    from jddb_plugin.restoration.export import export_refined
    from jddb_plugin.weights import read_weights
    checkpoint = read_weights(args.weights)
    network = checkpoint.arch or detect(checkpoint.state, args.weights).__name__
    if network != TwoStageJDDB.__name__:
        raise OptionError(f'{args.weights}: holds {network}; only the refined stage of TwoStageJDDB can be exported.')
    net = cast(TwoStageJDDB, build(checkpoint, args.weights, coarse='none'))  # the coarse stage is not exported
    side = args.tile + 2 * args.overlap
    try:
        result = export_refined(net, args.output, frames=args.frames, size=(side, side), ref_idx=args.ref, form=args.form,
                                open_size=args.open_size)
    except ExportError as error:
        sys.stderr.write(f'error: {error}\n')
        return 1
    sys.stdout.write(f'{args.output}: tiles [B, {args.frames}, 8, {"H, W" if args.open_size else f"{side}, {side}"}] to rgb, '
                     f'{os.path.getsize(args.output) / 1e6:.1f} MB\n'
                     f'largest difference to the network {result.difference:.1e}, on random tiles '
                     f'{", ".join(str(list(shape)) for shape in result.shapes)}\n')
    if net.refine.align is not None:
        sys.stdout.write(f'offsets of the deformable convolutions were {result.offset_size:.2g} px on average'
                         f'{"" if result.offset_size else ", so this does not test them"}\n')
    sys.stdout.write('stays in Python: noise map, matching, cutting of tiles, merging\n')
    return 0
