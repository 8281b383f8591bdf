"""Everything that works around the host toolbox and its stack: one function each, with version and reason.

The host is basicsr 1.4.2 (its newest release). Its files are never edited and its pipelines never copied; names in
its modules are replaced when the plugin is imported. Line numbers are of basicsr 1.4.2.
"""
from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
import warnings
from typing import Any

from jddb_plugin.compat import checkpoints, data, datasets, deferred, networks, training
from jddb_plugin.runtime import processes
from jddb_plugin.runtime.data_position import make_sampler_class


def provide_functional_tensor() -> None:
    """torchvision >= 0.17 has no ``transforms.functional_tensor``; data/degradations.py:8 imports from it."""
    name = 'torchvision.transforms.functional_tensor'
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return
    module: Any = types.ModuleType(name)
    module.rgb_to_grayscale = importlib.import_module('torchvision.transforms.functional').rgb_to_grayscale
    sys.modules[name] = module


def prepare_import() -> None:
    """What must happen before basicsr is imported."""
    deferred.defer_imports()
    provide_functional_tensor()  # looks into torchvision


@functools.cache
def apply() -> None:
    """Import basicsr and patch it; once per process."""
    prepare_import()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', (DeprecationWarning, SyntaxWarning))
            train: Any = importlib.import_module('basicsr.train')
            base = importlib.import_module('basicsr.models.base_model').BaseModel
            sr = importlib.import_module('basicsr.models.sr_model').SRModel
            video = importlib.import_module('basicsr.models.video_base_model').VideoBaseModel
            recurrent = importlib.import_module('basicsr.models.video_recurrent_model').VideoRecurrentModel
            dcn = importlib.import_module('basicsr.archs.arch_util').DCNv2Pack
            dist_util: Any = importlib.import_module('basicsr.utils.dist_util')
            misc: Any = importlib.import_module('basicsr.utils.misc')
    finally:
        deferred.import_at_once()
    dcn.forward = networks.patch_dcn(dcn.forward)
    base.save_network = checkpoints.save_network
    base.save_training_state = checkpoints.save_training_state
    base.load_network = checkpoints.load_network
    base.get_optimizer = training.get_optimizer
    base.model_to_device = training.model_to_device
    base.resume_training = checkpoints.resume_training
    sr.nondist_validation = networks.patch_validation(sr.nondist_validation, video)
    video.dist_validation = networks.patch_validation(video.dist_validation, video)
    recurrent.dist_validation = networks.patch_validation(recurrent.dist_validation, video)
    # Called by init_dist, which other modules have imported by name.
    dist_util._init_dist_pytorch = processes.start_pytorch
    dist_util._init_dist_slurm = processes.start_slurm
    misc.mkdir_and_rename = checkpoints.mkdir_and_rename
    data.patch_lmdb(importlib.import_module('basicsr.utils.file_client').LmdbBackend)
    _replace_everywhere('imfrombytes', data.patch_imfrombytes(importlib.import_module('basicsr.utils').imfrombytes))
    _replace_everywhere('build_dataset', datasets.patch_build_dataset(importlib.import_module('basicsr.data').build_dataset))
    train.mkdir_and_rename = checkpoints.mkdir_and_rename
    train.load_resume_state = checkpoints.load_resume_state
    train.EnlargedSampler = make_sampler_class(train.EnlargedSampler)
    train.build_dataloader = training.patch_build_dataloader(train.build_dataloader)
    train.init_tb_loggers = training.patch_init_tb_loggers(train.init_tb_loggers)
    train.build_model = training.patch_build_model(train.build_model)
    train.CPUPrefetcher = training.make_prefetcher_class(train.CPUPrefetcher)
    training.patch_prefetch_generator(importlib.import_module('basicsr.data.prefetch_dataloader').PrefetchGenerator)
    train.CUDAPrefetcher = training.make_prefetcher_class(train.CUDAPrefetcher)


def _replace_everywhere(name: str, value: Any) -> None:
    """Replace a function in all of the toolbox's modules, which import it by name."""
    for module in [module for key, module in sys.modules.items() if key.startswith('basicsr')]:
        if hasattr(module, name):
            setattr(module, name, value)
