"""The public names of ops, and the examples in their docstrings."""
import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

from jddb_plugin import ops

#: A copy: a name that is renamed or lost is a change for everybody who uses it, and belongs into the CHANGELOG.
PUBLIC = [
    'CFA_PATTERNS', 'TEST_LEVELS', 'Camera', 'Match', 'MotionField', 'NoiseModel', 'RawBurst', 'Search', 'SearchWindow',
    'Stabilizer', 'TileGrid', 'align_burst', 'available_backends', 'blend_tiles',
    'camera_matrix', 'cell_to_rggb', 'deform_conv2d', 'demosaic_bilinear', 'demosaic_malvar', 'distances_along',
    'estimate_motion', 'estimate_noise', 'extract_tiles', 'flip_mosaic', 'half_size_rgb', 'high_frequency_mask',
    'inverse_tone_map', 'linearize', 'make_grid', 'match_entropy', 'match_tiles', 'mosaic_rgb', 'noise_levels',
    'normalize', 'orient', 'pack', 'patch_distances', 'red_position', 'reference_camera', 'refine_offsets',
    'replace_outliers', 'restore_frame', 'sample_camera', 'synthesize', 'to_linear_srgb',
    'to_rggb', 'to_srgb', 'tone_map', 'unpack', 'warp_mosaic',
]
MODULES = ['jddb_plugin.ops', *(module.name for module in pkgutil.iter_modules(ops.__path__, 'jddb_plugin.ops.'))]


def test_the_list_is_frozen():
    assert sorted(ops.__all__) == sorted(PUBLIC) and all(hasattr(ops, name) for name in PUBLIC)


def test_every_public_function_has_an_example():
    without = []
    for name in MODULES:
        for key, value in vars(importlib.import_module(name)).items():
            if inspect.isfunction(value) and value.__module__ == name and not key.startswith('_') and '>>> ' not in value.__doc__:
                without.append(f'{name}.{key}')
    assert not without


@pytest.mark.cpu_only
@pytest.mark.parametrize('name', MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name), extraglobs={'torch': torch})
    assert result.failed == 0 and (result.attempted or name.endswith('ops'))
