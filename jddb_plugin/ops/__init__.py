"""Arithmetic on tensors: pure functions that know no option, no registry and no file, and need torch and torchvision alone.

Examples:
    >>> import torch
    >>> from jddb_plugin.ops import demosaic_bilinear, estimate_noise
    >>> demosaic_bilinear(torch.rand(4, 16, 24)).shape
    torch.Size([3, 32, 48])
"""
from jddb_plugin.ops.bayer import demosaic_bilinear, half_size_rgb, mosaic_rgb, pack, unpack
from jddb_plugin.ops.block_matching import Match, Search, SearchWindow, distances_along, match_entropy, match_tiles
from jddb_plugin.ops.cfa import (
    CFA_PATTERNS,
    cell_to_rggb,
    flip_mosaic,
    normalise,
    orient,
    red_position,
    restore_frame,
    to_rggb,
    undo_orient,
)
from jddb_plugin.ops.deform_conv import available_backends, deform_conv2d
from jddb_plugin.ops.edges import high_frequency_mask
from jddb_plugin.ops.gathering import gather_mosaic
from jddb_plugin.ops.isp import (
    Camera,
    camera_matrix,
    inverse_tone_map,
    process,
    reference_camera,
    sample_camera,
    to_linear_srgb,
    tone_map,
    unprocess,
)
from jddb_plugin.ops.motion_field import MotionField, refine_offsets, replace_outliers
from jddb_plugin.ops.noise import (
    TEST_LEVELS,
    add_noise,
    add_test_noise,
    noise_std,
    parse_noise,
    sample_noise_level,
)
from jddb_plugin.ops.noise_estimate import estimate_noise
from jddb_plugin.ops.optical_flow import align_burst, estimate_motion
from jddb_plugin.ops.patch_distance import patch_distances
from jddb_plugin.ops.stabilization import Stabilizer, noise_levels
from jddb_plugin.ops.synthesis import RawBurst, synthesise, synthesise_batch
from jddb_plugin.ops.tile_extraction import blend_tiles, extract_tiles
from jddb_plugin.ops.tiling import TileGrid, make_grid

#: The public names. A test holds this list, so that none is renamed or lost by accident.
__all__ = [
    'CFA_PATTERNS', 'TEST_LEVELS', 'Camera', 'Match', 'MotionField', 'RawBurst', 'Search', 'SearchWindow',
    'Stabilizer', 'TileGrid', 'add_noise', 'add_test_noise', 'align_burst', 'available_backends', 'blend_tiles',
    'camera_matrix', 'cell_to_rggb', 'deform_conv2d', 'demosaic_bilinear', 'distances_along', 'estimate_motion',
    'estimate_noise', 'extract_tiles', 'flip_mosaic', 'gather_mosaic', 'half_size_rgb', 'high_frequency_mask', 'inverse_tone_map',
    'make_grid', 'match_entropy', 'match_tiles', 'mosaic_rgb', 'noise_levels', 'noise_std', 'normalise', 'orient',
    'pack', 'parse_noise', 'patch_distances', 'process', 'red_position', 'reference_camera', 'refine_offsets',
    'replace_outliers', 'restore_frame', 'sample_camera', 'sample_noise_level', 'synthesise', 'synthesise_batch',
    'to_linear_srgb', 'to_rggb', 'tone_map', 'undo_orient', 'unpack', 'unprocess',
]
