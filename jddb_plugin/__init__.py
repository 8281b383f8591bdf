"""Raw-burst restoration for the BasicSR toolbox: joint denoising and demosaicking of bursts (JDD-B).

Importing the package mends the toolbox for today's PyTorch (see :mod:`jddb_plugin.compat`) and registers in it

* architectures ``TwoStageJDDB`` and ``DPBM``,
* models ``JDDBModel``, ``HookedVideoBaseModel`` and ``HookedSRModel``,
* data sets ``UnprocessedBurstDataset`` and ``UnprocessedBurstTestDataset``,
* losses ``ReconstructionLoss``, ``InterpolationLoss``, ``OneHotLoss`` and ``BlockMatchingLoss``,
* and, in a registry of its own, hooks ``TemperatureHook`` and ``LossWeightHook``.
"""
from jddb_plugin import compat

compat.apply()

from jddb_plugin.archs.dpbm_arch import DPBM  # noqa: E402
from jddb_plugin.archs.jddb_arch import TwoStageJDDB  # noqa: E402
from jddb_plugin.data.unprocessed_burst_dataset import (  # noqa: E402
    UnprocessedBurstDataset, UnprocessedBurstTestDataset)
from jddb_plugin.hooks import LossWeightHook, TemperatureHook  # noqa: E402
from jddb_plugin.losses.jddb_loss import (  # noqa: E402
    BlockMatchingLoss, InterpolationLoss, OneHotLoss, ReconstructionLoss)
from jddb_plugin.models.hooked_model import HookedSRModel, HookedVideoBaseModel, HookMixin  # noqa: E402
from jddb_plugin.models.jddb_model import JDDBModel  # noqa: E402

__version__ = '0.1.0'
__all__ = [
    'DPBM', 'BlockMatchingLoss', 'HookMixin', 'HookedSRModel', 'HookedVideoBaseModel', 'InterpolationLoss', 'JDDBModel',
    'LossWeightHook', 'OneHotLoss', 'ReconstructionLoss', 'TemperatureHook', 'TwoStageJDDB', 'UnprocessedBurstDataset',
    'UnprocessedBurstTestDataset'
]
