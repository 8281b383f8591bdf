"""Raw-burst restoration for the BasicSR toolbox: joint denoising and demosaicking of bursts (JDD-B).

Import the package before basicsr. The import itself is cheap; with basicsr it patches the toolbox for today's PyTorch (see
:mod:`jddb_plugin.compat`) and registers in it

* architectures ``TwoStageJDDB``, ``GatedUNet``, ``DPBM`` and ``CoarseAligned``, and the systems that the
  paper compares: ``GCPNet``, ``EDVRBurst``, ``RViDeNet``, ``KPN``, ``DemosaicNet`` and ``DenoiseThenDemosaic``;
  ``BasicVSRBurst``,
* models ``JDDBModel``, ``BurstModel``, ``HookedVideoBaseModel`` and ``HookedSRModel``,
* data sets ``UnprocessedBurstDataset``, ``UnprocessedBurstTestDataset``, ``RawBurstDataset``, ``RawBurstTestDataset`` and
  ``MovingPhotographDataset``,
* losses ``ReconstructionLoss``, ``DevelopedLoss``, ``InterpolationLoss``, ``OneHotLoss``, ``BlockMatchingLoss``,
  ``RawLoss`` and ``KPNLoss``,
* and, in a registry of its own, hooks ``TemperatureHook`` and ``LossWeightHook``.

:mod:`jddb_plugin.ops` needs torch and torchvision alone.
"""
from __future__ import annotations

import importlib
from typing import Any

from jddb_plugin import registration

__version__ = '0.2.0'

registration.install()


def __getattr__(name: str) -> Any:
    """The public classes, imported with the toolbox when they are asked for."""
    if name not in registration.CLASSES:
        raise AttributeError(f"module 'jddb_plugin' has no attribute '{name}'")
    registration.load_toolbox()
    return getattr(importlib.import_module(registration.CLASSES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *registration.CLASSES})
