"""KPN+DMN, EDVR+DMN and RViDeNet+DMN of the paper's tables: a burst is denoised, and then its reference is demosaicked."""
from __future__ import annotations

from typing import Any, Mapping, Optional

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.archs.checkpoint import detect
from jddb_plugin.archs.demosaic_net_arch import DemosaicNet
from jddb_plugin.archs.edvr_burst_arch import EDVRBurst
from jddb_plugin.archs.kpn_arch import KPN
from jddb_plugin.archs.rvidenet_arch import RViDeNet
from jddb_plugin.checks import CheckpointError, OptionError
from jddb_plugin.options import check_call, registered

_PARTS = ('denoiser', 'demosaicker')
#: What a part must be able to do, and what can.
_METHODS = {'denoiser': 'denoise', 'demosaicker': 'demosaic'}
_FITTING = {'denoiser': 'KPN, or EDVRBurst or RViDeNet with output: raw', 'demosaicker': 'DemosaicNet'}
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
        self.denoiser, self.demosaicker = _part(denoiser, 'denoiser'), _part(demosaicker, 'demosaicker')
        self.num_frame = self.denoiser.num_frame
        self.multiple = self.denoiser.multiple
        contexts = (self.denoiser.context, self.demosaicker.context)
        self.context = None if None in contexts else sum(contexts)

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of such a pair."""
        return all(any(key.startswith(f'{part}.') for key in state) for part in _PARTS)

    @classmethod
    def name_of(cls, state: Mapping[str, Tensor]) -> str:
        """See :meth:`BurstNetwork.name_of`; names both parts."""
        found = [_network_of(_part_of(state, part)) for part in _PARTS]
        return ' + '.join('unknown network' if network is None else network.__name__ for network in found)

    @classmethod
    def options_of(cls, state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
        """Options that a state dict shows; ``where`` names the file in errors.

        Raises:
            CheckpointError: a part is no network that is known.
        """
        options = {}
        for part in _PARTS:
            own = _part_of(state, part)
            network = next((network for network in _NETWORKS if network.detect(own)), None)
            if network is None:
                raise CheckpointError(f'{where}: its {part} is of an unknown network; expected one of '
                                      f'{", ".join(n.__name__ for n in _NETWORKS)}.')
            options[part] = {'type': network.__name__, **network.options_of(own, where)}
        return options

    def restore(self, tiles: Tensor, ref_idx: int) -> Tensor:
        """Linear camera RGB [T, 3, 2h, 2w] of the reference of tiles [T, N, 8, h, w]."""
        return self.demosaicker.demosaic(self.denoiser.denoise(tiles, ref_idx))


def _part_of(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {key[len(part) + 1:]: value for key, value in state.items() if key.startswith(f'{part}.')}


def _network_of(state: Mapping[str, Tensor]) -> Optional[type[BurstNetwork]]:
    """The registered network of a state dict; None for one that is unknown."""
    try:
        return detect(state, '')
    except CheckpointError:
        return None


def _part(options: Any, name: str) -> Any:
    where = f'network_g.{name}'
    kind, arguments = registered(ARCH_REGISTRY, options, where)
    if not hasattr(kind, _METHODS[name]):
        raise OptionError(f"{where}.type: {options['type']} is not a {name}; use {_FITTING[name]}.")
    check_call(kind, arguments, where)
    network = kind(**arguments)
    if getattr(network, 'output', 'raw') != 'raw':
        raise OptionError(f"{where}: {options['type']} has output: {network.output} here; a {name} needs output: raw.")
    return network


def join_checkpoints(denoiser: Mapping[str, Tensor], demosaicker: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One state dict of :class:`DenoiseThenDemosaic` of those of its two parts.

    Networks of one's own, which state dicts need not tell, are taken as they are.

    Raises:
        CheckpointError: one of them is a whole system already, or known to be no such part.
    """
    for name, state in (('denoiser', denoiser), ('demosaicker', demosaicker)):
        if any(key.startswith(('denoiser.', 'demosaicker.')) for key in state):
            raise CheckpointError(f'the checkpoint of the {name} is one of DenoiseThenDemosaic, which holds both parts already; '
                                  'give that of the part alone.')
        _check_part(state, name)
    return {**{f'denoiser.{key}': value for key, value in denoiser.items()},
            **{f'demosaicker.{key}': value for key, value in demosaicker.items()}}


def _check_part(state: Mapping[str, Tensor], name: str) -> None:
    network = _network_of(state)
    where = f'the checkpoint of the {name}'
    if network is None:
        return
    if not hasattr(network, _METHODS[name]):
        raise CheckpointError(f'{where} is of {network.__name__}, which is not a {name}; give one of {_FITTING[name]}.')
    output = network.options_of(state, where).get('output', 'raw')
    if output != 'raw':
        raise CheckpointError(f'{where} is of {network.__name__} with output: {output}; a {name} needs output: raw.')
