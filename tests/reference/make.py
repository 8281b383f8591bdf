"""Write numbers.npz: python -m tests.reference.make SHARED/golden, after tests/test_golden.py has passed on that folder.

From the released code's own results: samples of the ISP and its noise on the upper rows of a frame, and the offsets
that its matching finds for one tile, with the cut of the features that they depend on. Its network has too many weights to be
kept here. So the third part are results of the code that reproduces it to 1e-5 (see test_golden.py), on weights by formula.
"""
import sys
from pathlib import Path

import numpy as np
import torch

from jddb_plugin import TwoStageJDDB

#: Rows of the RGB frame that are kept, and samples of each result.
ROWS, SAMPLES = 16, 64
#: Frames, and rows and columns of the features that the upper left tile is searched in.
FRAMES, SIDE = (0, 1, 2), 28
FILE = Path(__file__).with_name('numbers.npz')
NETWORK = {'num_feat': 8, 'deformable_groups': 2, 'dpbm': {'radius': 2, 'window': 'released'}}
TILES = {'tile': 16, 'overlap': 4, 'layout': 'released'}


def samples(values):
    """Evenly spread over a tensor."""
    flat = values.flatten()
    return flat[torch.linspace(0, len(flat) - 1, SAMPLES).long()].numpy()


def wave(shape, phase):
    """Numbers in -1 .. 1 by formula: the same on every machine, and without a period that a network could notice."""
    count = int(np.prod(shape))
    values = np.sin(np.arange(count, dtype=np.float64) ** 1.5 * 0.7 + phase)
    return torch.from_numpy(values.reshape(shape)).float()


def network():
    """The two-stage network with weights by formula, offsets of the deformable convolutions included."""
    net = TwoStageJDDB(**NETWORK).eval()
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters()):
            fan_in = parameter[0].numel()
            parameter.copy_(wave(parameter.shape, number) * (1.3 / fan_in ** 0.5 if parameter.ndim > 1 else 0.1))
    return net


def burst():
    """A smooth texture that moves by (4, 8) packed px a frame, and its noise map, [1, 5, 8, 40, 48]."""
    y, x = np.mgrid[:40, :48].astype(np.float64)
    frames = []
    for t in range(5):
        row, col = y + 4 * t, x + 8 * t
        frames.append([0.5 + 0.2 * np.sin(0.31 * row + 0.17 * col + plane) + 0.2 * np.sin(0.23 * col * (1 + plane / 9))
                       for plane in range(4)])
    raw = torch.from_numpy(np.array(frames)).float()[None]
    return torch.cat((raw, (0.01 * raw + 0.001).sqrt()), dim=2)


@torch.no_grad()
def network_results():
    """What the network makes of the burst: whole frames, a training tile, offsets of the matching."""
    net, lq = network(), burst()
    tile = torch.tensor([[8, 12]])
    refined = net.refine(lq[..., 8:24, 12:28], 2, interpolate=True)
    match = net.coarse.match(lq, tile[:, None], (16, 16), 2)
    return {'network_frame': samples(net(lq, **TILES)), 'network_restored': samples(refined.restored),
            'network_interpolated': samples(refined.interpolated), 'network_offset_size': refined.offset_size.numpy(),
            'network_offsets': match.offset.flatten().numpy()}


def main(folder):
    """Write the file."""
    isp = torch.load(folder / 'isp_020.pt', weights_only=True)
    matching = torch.load(folder / 'block_matching_020.pt', weights_only=True)
    srgb = (isp['srgb'][0, :, :ROWS] * 255).round()
    assert torch.equal(srgb / 255, isp['srgb'][0, :, :ROWS])
    numbers = {'srgb': srgb.byte().numpy(), 'cam2rgb': isp['cam2rgb'].numpy(), 'rgb2cam': isp['rgb2cam'].numpy()}
    for key, rows in (('linear', ROWS), ('bayer_rggb', ROWS // 2), ('noisy', ROWS // 2), ('noise_map', ROWS // 2),
                      ('srgb_test', ROWS), ('srgb_train', ROWS)):
        numbers[key] = samples(isp[key][0, :, :rows])
    for key in ('linear', 'srgb_test'):
        numbers[f'alt_{key}'] = samples(isp['alt'][key][:, :ROWS])
    numbers['features'] = matching['lr_features'][list(FRAMES), :, :SIDE, :SIDE].numpy()
    numbers['offsets'] = matching['offsets_lr'][0, 0, list(FRAMES)].numpy()
    np.savez_compressed(FILE, **numbers, **network_results())


if __name__ == '__main__':
    main(Path(sys.argv[1]))
