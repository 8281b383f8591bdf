"""Raw-burst restoration for the BasicSR toolbox: joint denoising and demosaicking of bursts (JDD-B).

Importing the package mends the toolbox for today's PyTorch (see :mod:`jddb_plugin.compat`) and registers in it

* architectures ``TwoStageJDDB``, ``DPBM`` and ``CoarseAligned``, and the systems that the paper compares: ``GCPNet``,
  ``EDVRBurst``, ``RViDeNet``, ``KPN``, ``DemosaicNet`` and ``DenoiseThenDemosaic``,
* models ``JDDBModel``, ``HookedVideoBaseModel`` and ``HookedSRModel``,
* data sets ``UnprocessedBurstDataset``, ``UnprocessedBurstTestDataset``, ``RawBurstDataset`` and ``RawBurstTestDataset``,
* losses ``ReconstructionLoss``, ``InterpolationLoss``, ``OneHotLoss``, ``BlockMatchingLoss``, ``RawLoss`` and ``KPNLoss``,
* and, in a registry of its own, hooks ``TemperatureHook`` and ``LossWeightHook``.
"""
import sys

try:
    from jddb_plugin import compat

    compat.apply()

    from jddb_plugin.archs.coarse_aligned_arch import CoarseAligned
    from jddb_plugin.archs.demosaic_net_arch import DemosaicNet
    from jddb_plugin.archs.denoise_then_demosaic_arch import DenoiseThenDemosaic
    from jddb_plugin.archs.dpbm_arch import DPBM
    from jddb_plugin.archs.edvr_burst_arch import EDVRBurst
    from jddb_plugin.archs.gcp_net_arch import GCPNet
    from jddb_plugin.archs.jddb_arch import TwoStageJDDB
    from jddb_plugin.archs.kpn_arch import KPN
    from jddb_plugin.archs.rvidenet_arch import RViDeNet
    from jddb_plugin.data.raw_burst_dataset import RawBurstDataset, RawBurstTestDataset
    from jddb_plugin.data.unprocessed_burst_dataset import UnprocessedBurstDataset, UnprocessedBurstTestDataset
    from jddb_plugin.hooks import LossWeightHook, TemperatureHook
    from jddb_plugin.losses.jddb_loss import BlockMatchingLoss, InterpolationLoss, OneHotLoss, ReconstructionLoss
    from jddb_plugin.losses.raw_loss import KPNLoss, RawLoss
    from jddb_plugin.models.hooked_model import HookedSRModel, HookedVideoBaseModel, HookMixin
    from jddb_plugin.models.jddb_model import JDDBModel
except Exception as error:  # a torch and a torchvision that do not fit raise RuntimeError, missing libraries OSError
    # The environment check is there to say what is wrong, so it alone may run without. (Python 3.9 knows no orig_argv,
    # but has '-m' in place of the name of a module that it is still looking for.)
    if 'jddb_plugin.doctor' not in getattr(sys, 'orig_argv', ['jddb_plugin.doctor'] if sys.argv[:1] == ['-m'] else []):
        raise ImportError(f'jddb_plugin cannot use its environment ({error}); run: python -m jddb_plugin.doctor') from error

__version__ = '0.1.0'
__all__ = [
    'DPBM', 'KPN', 'BlockMatchingLoss', 'CoarseAligned', 'DemosaicNet', 'DenoiseThenDemosaic', 'EDVRBurst', 'GCPNet', 'HookMixin',
    'HookedSRModel', 'HookedVideoBaseModel', 'InterpolationLoss', 'JDDBModel', 'KPNLoss', 'LossWeightHook', 'OneHotLoss',
    'RViDeNet', 'RawBurstDataset', 'RawBurstTestDataset', 'RawLoss', 'ReconstructionLoss', 'TemperatureHook', 'TwoStageJDDB',
    'UnprocessedBurstDataset', 'UnprocessedBurstTestDataset',
]
