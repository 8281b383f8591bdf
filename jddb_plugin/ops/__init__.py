"""Arithmetic on tensors: pure functions that know no option, no registry and no file, and need torch and torchvision alone.

Examples:
    >>> import torch
    >>> from jddb_plugin.ops import demosaic_bilinear, estimate_noise
    >>> demosaic_bilinear(torch.rand(4, 16, 24)).shape
    torch.Size([3, 32, 48])
"""
from jddb_plugin.noise_option import TEST_LEVELS
from jddb_plugin.ops.bayer import demosaic_bilinear, demosaic_malvar, half_size_rgb, mosaic_rgb, pack, unpack
from jddb_plugin.ops.block_matching import Match, Search, SearchWindow, distances_along, match_entropy, match_tiles
from jddb_plugin.ops.camera import Camera, camera_matrix, reference_camera, sample_camera
from jddb_plugin.ops.cfa import (
    CFA_PATTERNS,
    cell_to_rggb,
    flip_mosaic,
    normalize,
    orient,
    red_position,
    restore_frame,
    to_rggb,
)
from jddb_plugin.ops.curves import inverse_tone_map, linearize, tone_map
from jddb_plugin.ops.deform_conv import available_backends, deform_conv2d
from jddb_plugin.ops.edges import high_frequency_mask
from jddb_plugin.ops.isp import to_linear_srgb, to_srgb
from jddb_plugin.ops.motion_field import MotionField, refine_offsets, replace_outliers
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.ops.noise_estimate import estimate_noise
from jddb_plugin.ops.optical_flow import align_burst, estimate_motion
from jddb_plugin.ops.patch_distance import patch_distances
from jddb_plugin.ops.stabilization import Stabilizer, noise_levels
from jddb_plugin.ops.synthesis import RawBurst, synthesize
from jddb_plugin.ops.tile_extraction import blend_tiles, extract_tiles
from jddb_plugin.ops.tiling import TileGrid, make_grid
from jddb_plugin.ops.warping import warp_mosaic

#: The public names. A test holds this list, so that none is renamed or lost by accident.
__all__ = [
    'CFA_PATTERNS', 'TEST_LEVELS', 'Camera', 'Match', 'MotionField', 'NoiseModel', 'RawBurst', 'Search', 'SearchWindow',
    'Stabilizer', 'TileGrid', 'align_burst', 'available_backends', 'blend_tiles',
    'camera_matrix', 'cell_to_rggb', 'deform_conv2d', 'demosaic_bilinear', 'demosaic_malvar', 'distances_along',
    'estimate_motion', 'estimate_noise', 'extract_tiles', 'flip_mosaic', 'half_size_rgb', 'high_frequency_mask',
    'inverse_tone_map', 'linearize', 'make_grid', 'match_entropy', 'match_tiles', 'mosaic_rgb', 'noise_levels',
    'normalize', 'orient', 'pack', 'patch_distances', 'red_position', 'reference_camera', 'refine_offsets',
    'replace_outliers', 'restore_frame', 'sample_camera', 'synthesize', 'to_linear_srgb',
    'to_rggb', 'to_srgb', 'tone_map', 'unpack', 'warp_mosaic',
]
