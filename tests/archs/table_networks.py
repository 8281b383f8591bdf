"""The systems of the paper's tables, small."""
import torch
from basicsr.archs import build_network
from torch import nn

SMALL = {
    'GCPNet': {'num_feat': 8, 'num_frame': 3, 'deformable_groups': 2},
    'EDVRBurst': {'num_feat': 8, 'num_frame': 3, 'deformable_groups': 2, 'num_extract_block': 1, 'num_reconstruct_block': 1},
    'RViDeNet': {'num_feat': 8, 'num_frame': 3, 'deformable_groups': 2, 'num_extract_block': 1, 'num_reconstruct_block': 1},
    'BasicVSRBurst': {'num_feat': 8, 'num_block': 1},
    'KPN': {'num_feat': 4, 'num_frame': 3, 'kernel_size': 3},
    'DemosaicNet': {'num_feat': 8, 'num_block': 3},
}
RAW = {**SMALL['EDVRBurst'], 'output': 'raw'}
CASES = {
    **{name: {'type': name, **options} for name, options in SMALL.items()},
    'EDVR raw': {'type': 'EDVRBurst', **RAW},
    'RViDeNet raw': {'type': 'RViDeNet', **SMALL['RViDeNet'], 'output': 'raw'},
    'EDVR+DMN': {'type': 'DenoiseThenDemosaic', 'denoiser': {'type': 'EDVRBurst', **RAW},
                 'demosaicker': {'type': 'DemosaicNet', **SMALL['DemosaicNet']}},
}
FIXED = [name for name in CASES if name not in ('DemosaicNet', 'BasicVSRBurst')]


def build(name):
    """Weights are drawn on the CPU: with so few channels, other draws may leave all of a layer silent."""
    with torch.device('cpu'):
        network = build_network(dict(CASES[name]))
    return network.eval().to(torch.get_default_device())


def count(network):
    return sum(p.numel() for p in network.parameters())


def wake(network):
    """Give what begins at zero small random values, so that everything behind it has an effect."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, 0, 0.05)
    return network
