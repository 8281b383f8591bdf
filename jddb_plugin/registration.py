"""Registration in the toolbox: what is registered, and when.

``import jddb_plugin`` is cheap and imports neither torch nor basicsr. From then on the first ``import basicsr``, by whoever
it is, patches the toolbox for today's stack (:mod:`jddb_plugin.compat`) and then registers every class of :data:`CLASSES`.
Where basicsr is imported already, that happens at once.
"""
from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Optional

#: Public classes, and the modules that define and register them.
CLASSES = {
    'BasicVSRBurst': 'jddb_plugin.archs.basicvsr_burst_arch',
    'CoarseAligned': 'jddb_plugin.archs.coarse_aligned_arch',
    'DPBM': 'jddb_plugin.archs.dpbm_arch',
    'DemosaicNet': 'jddb_plugin.archs.demosaic_net_arch',
    'DenoiseThenDemosaic': 'jddb_plugin.archs.denoise_then_demosaic_arch',
    'EDVRBurst': 'jddb_plugin.archs.edvr_burst_arch',
    'GCPNet': 'jddb_plugin.archs.gcp_net_arch',
    'GatedUNet': 'jddb_plugin.archs.gated_unet_arch',
    'KPN': 'jddb_plugin.archs.kpn_arch',
    'RViDeNet': 'jddb_plugin.archs.rvidenet_arch',
    'TwoStageJDDB': 'jddb_plugin.archs.jddb_arch',
    'MovingPhotographDataset': 'jddb_plugin.data.moving_photograph_dataset',
    'RawBurstDataset': 'jddb_plugin.data.raw_burst_dataset',
    'RawBurstTestDataset': 'jddb_plugin.data.raw_burst_dataset',
    'UnprocessedBurstDataset': 'jddb_plugin.data.unprocessed_burst_dataset',
    'UnprocessedBurstTestDataset': 'jddb_plugin.data.unprocessed_burst_dataset',
    'LossWeightHook': 'jddb_plugin.hooks.schedule_hook',
    'TemperatureHook': 'jddb_plugin.hooks.schedule_hook',
    'DevelopedLoss': 'jddb_plugin.losses.developed_loss',
    'BlockMatchingLoss': 'jddb_plugin.losses.jddb_loss',
    'InterpolationLoss': 'jddb_plugin.losses.jddb_loss',
    'OneHotLoss': 'jddb_plugin.losses.jddb_loss',
    'ReconstructionLoss': 'jddb_plugin.losses.jddb_loss',
    'KPNLoss': 'jddb_plugin.losses.raw_loss',
    'RawLoss': 'jddb_plugin.losses.raw_loss',
    'BurstModel': 'jddb_plugin.models.burst_model',
    'HookMixin': 'jddb_plugin.models.hooked_model',
    'HookedSRModel': 'jddb_plugin.models.hooked_model',
    'HookedVideoBaseModel': 'jddb_plugin.models.hooked_model',
    'JDDBModel': 'jddb_plugin.models.jddb_model',
}

_HOST = 'basicsr'


def register() -> None:
    """Patch the imported toolbox and register all of :data:`CLASSES`; repeated calls do nothing."""
    importlib.import_module('jddb_plugin.compat').apply()
    for module in dict.fromkeys(CLASSES.values()):
        importlib.import_module(module)


def load_toolbox() -> None:
    """Import basicsr, and with that register everything, if it is installed.

    Packages whose modules import from basicsr call this first: registration imports them, so they must not be half defined.
    """
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(_HOST)


class BrokenEnvironmentError(ImportError):
    """Something that the toolbox or this package needs is missing or broken."""


def environment_error(error: BaseException) -> BrokenEnvironmentError:
    """The error that points to the environment check."""
    return BrokenEnvironmentError(f'jddb_plugin cannot use its environment ({error}); run: jddb doctor')


def broken_environment(error: ImportError) -> BrokenEnvironmentError:
    """What an entry point says of an import that failed; that of a module of this package is raised again."""
    if isinstance(error, BrokenEnvironmentError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name is not None and not error.name.startswith('jddb_plugin'):
        return environment_error(error)
    raise error


class _RegisterAfterImport(importlib.abc.MetaPathFinder):
    """Wraps the import of basicsr: patch what it needs before, patch and register after."""

    def __init__(self) -> None:
        self._searching = False

    def find_spec(self, fullname: str, path: Optional[Sequence[str]],
                  target: Optional[ModuleType] = None) -> Optional[importlib.machinery.ModuleSpec]:
        """Spec of basicsr with a wrapped loader; nothing for all other modules."""
        if fullname != _HOST or self._searching:
            return None
        self._searching = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching = False
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            try:
                importlib.import_module('jddb_plugin.compat').prepare_import()
                execute(module)
                register()
            except Exception as error:  # RuntimeError where torch and torchvision do not match, OSError for missing libraries
                raise environment_error(error) from error

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # of this one loader
        return spec


def install() -> None:
    """Register now if basicsr is imported, else as soon as it is."""
    if sys.modules.get(_HOST) is not None:
        register()
    elif not any(type(finder).__name__ == _RegisterAfterImport.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegisterAfterImport())
