"""Which network a checkpoint belongs to, told by names of its parameters."""
from __future__ import annotations

from typing import Iterable, Optional

#: Networks by a parameter that they have and the others do not; a prefix where it ends with a dot.
_SIGNS = (
    ('DenoiseThenDemosaic', 'denoiser.'),
    ('CoarseAligned', 'network.'),
    ('GCPNet', 'green.up.weight'),
    ('RViDeNet', 'pre_denoise.output.weight'),
    ('KPN', 'to_kernels.weight'),
    ('DemosaicNet', 'fullres_processor.post_conv.weight'),
    ('GatedUNet', 'gates.0.slope'),
    ('TwoStageJDDB', 'refine.reconstruct.up_input.weight'),
    ('EDVRBurst', 'align.cas_dcnpack.weight'),
    ('EDVR', 'pcd_align.cas_dcnpack.weight'),
    ('BasicVSR', 'spynet.basic_module.0.basic_module.0.weight'),
)


def network_of(keys: Iterable[str]) -> Optional[str]:
    """Name of the network that has parameters of these names; None if it is none that is known."""
    names = {key[len('module.'):] if key.startswith('module.') else key for key in keys}
    for network, sign in _SIGNS:
        if sign in names or sign.endswith('.') and any(name.startswith(sign) for name in names):
            return network
    return None


def other_network(keys: Iterable[str], own: str) -> str:
    """The beginning of a sentence that names the network of a checkpoint if it is another than ``own``; else empty."""
    found = network_of(keys)
    return '' if found in (None, own) else f'this is a {found} checkpoint, and network_g is {own}: '
