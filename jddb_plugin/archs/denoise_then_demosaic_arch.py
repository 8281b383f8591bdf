"""KPN+DMN, EDVR+DMN and RViDeNet+DMN of the paper's tables: a burst is denoised, and then its reference is demosaicked."""
from __future__ import annotations

from typing import Any, Mapping

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.archs.demosaic_net_arch import DemosaicNet
from jddb_plugin.archs.edvr_burst_arch import EDVRBurst
from jddb_plugin.archs.kpn_arch import KPN
from jddb_plugin.archs.rvidenet_arch import RViDeNet
from jddb_plugin.checks import CheckpointError, OptionError
from jddb_plugin.options import check_call, registered

_PARTS = ('denoiser', 'demosaicker')
#: Networks that the parts of a checkpoint may belong to.
_NETWORKS = (KPN, EDVRBurst, RViDeNet, DemosaicNet)


@ARCH_REGISTRY.register()
class DenoiseThenDemosaic(BurstNetwork):
    """A burst denoiser that gives the clean mosaic of the reference, and a demosaicker for it.

    The two are trained one after the other: each is a registered network with a training of its own.
    :func:`join_checkpoints` makes one checkpoint of theirs.

    Args:
        denoiser: ``type`` and arguments of a network with ``output: raw``: KPN, EDVRBurst or RViDeNet.
        demosaicker: the same of a demosaicker: DemosaicNet.
    """

    aligned_input = False

    def __init__(self, denoiser: dict, demosaicker: dict) -> None:
        super().__init__()
        self.denoiser = _part(denoiser, 'denoiser', 'denoise', 'KPN, or EDVRBurst or RViDeNet with output: raw')
        self.demosaicker = _part(demosaicker, 'demosaicker', 'demosaic', 'DemosaicNet')
        self.num_frame = self.denoiser.num_frame
        self.multiple = self.denoiser.multiple
        contexts = (self.denoiser.context, self.demosaicker.context)
        self.context = None if None in contexts else sum(contexts)

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of such a pair."""
        return all(any(key.startswith(f'{part}.') for key in state) for part in _PARTS)

    @classmethod
    def options_of(cls, state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
        """Options that a state dict shows; ``where`` names the file in errors.

        Raises:
            CheckpointError: a part is no network that is known.
        """
        options = {}
        for part in _PARTS:
            own = {key[len(part) + 1:]: value for key, value in state.items() if key.startswith(f'{part}.')}
            network = next((network for network in _NETWORKS if network.detect(own)), None)
            if network is None:
                raise CheckpointError(f'{where}: its {part} is of an unknown network; expected one of '
                                      f'{", ".join(n.__name__ for n in _NETWORKS)}.')
            options[part] = {'type': network.__name__, **network.options_of(own, where)}
        return options

    def restore(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """Linear camera RGB [T, 3, 2h, 2w] of the reference of tiles [T, N, 8, h, w]."""
        return self.demosaicker.demosaic(self.denoiser.denoise(tiles, ref_idx))


def _part(options: Any, name: str, method: str, fitting: str) -> Any:
    where = f'network_g.{name}'
    kind, arguments = registered(ARCH_REGISTRY, options, where)
    if not hasattr(kind, method):
        raise OptionError(f"{where}.type: {options['type']} is not a {name}; use {fitting}.")
    check_call(kind, arguments, where)
    network = kind(**arguments)
    if getattr(network, 'output', 'raw') != 'raw':
        raise OptionError(f"{where}: {options['type']} has output: {network.output} here; a {name} needs output: raw.")
    return network


def join_checkpoints(denoiser: Mapping[str, Tensor], demosaicker: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One state dict of :class:`DenoiseThenDemosaic` of those of its two parts.

    Raises:
        CheckpointError: one of them is a whole system already.
    """
    for name, state in (('denoiser', denoiser), ('demosaicker', demosaicker)):
        if any(key.startswith(('denoiser.', 'demosaicker.')) for key in state):
            raise CheckpointError(f'the checkpoint of the {name} is one of DenoiseThenDemosaic, which holds both parts already; '
                                  'give that of the part alone.')
    return {**{f'denoiser.{key}': value for key, value in denoiser.items()},
            **{f'demosaicker.{key}': value for key, value in demosaicker.items()}}
