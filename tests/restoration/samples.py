"""Small networks and bursts to restore."""
import dataclasses
import os
import sys

import cv2
import numpy as np
import torch

from jddb_plugin import TwoStageJDDB
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.restoration.bursts import Burst
from tests.conftest import ROOT

CAMERA = CameraMetadata(
    cfa='rggb', bits=12, black_level=(64., 66., 60., 62.), white_level=(4000., 4010., 3990., 4005.), white_balance=(2., 1., 1.5),
    color_matrix=((1.0234, -0.2969, -0.2266), (-0.5625, 1.6328, -0.0469), (-0.0703, 0.2188, 0.6406)),
    noise_shot=(1e-3, 2e-3, 3e-3, 4e-3), noise_read=(1e-2, 2e-2, 3e-2, 4e-2))
#: Small tiles for the command line and for Settings.
TILES = {'tile': 16, 'overlap': 4, 'radius': 2}
#: A small search for networks.
MATCHING = {'radius': 2, 'stride': 1}
ARGUMENTS = ['--tile', '16', '--overlap', '4', '--radius', '2', '--device', 'cpu']


def make_net(**options):
    """A network whose deformable convolutions do look elsewhere: they start with offsets of 0."""
    torch.manual_seed(0)
    net = TwoStageJDDB(**{'num_feat': 8, 'deformable_groups': 2, 'coarse': 'dpbm', 'dpbm': MATCHING, **options})
    for name, value in net.named_parameters():
        if 'conv_offset' in name:
            torch.nn.init.normal_(value, std=0.1)
    return net.eval().requires_grad_(False)


def save_net(path, **options):
    """Its checkpoint."""
    torch.save({'params': make_net(**options).state_dict()}, path)
    return path


def scenes(count, size, *, shift=(2, 4), seed=0):
    """Linear RGB [H, W, 3] in [0, 1] of a smooth texture that moves by ``shift`` pixels a frame."""
    rng = np.random.default_rng(seed)
    height, width = (side + abs(step) * count for side, step in zip(size, shift))
    scene = cv2.GaussianBlur(rng.random((height + 16, width + 16, 3)).astype(np.float32), (0, 0), 2.5)[8:-8, 8:-8]
    scene = 0.05 + 0.7 * (scene - scene.min()) / (scene.max() - scene.min())
    return [scene[t * shift[0]:t * shift[0] + size[0], t * shift[1]:t * shift[1] + size[1]] for t in range(count)]


def mosaic_of(rgb, camera=CAMERA):
    """Sample values of an RGB picture under a camera's pattern and levels, without noise."""
    result = np.empty(rgb.shape[:2])
    for place, letter in enumerate(camera.cfa):
        y, x = divmod(place, 2)
        black, white = camera.black_level[place], camera.white_level[place]
        result[y::2, x::2] = black + (white - black) * rgb[y::2, x::2, 'rgb'.index(letter)]
    return np.rint(result).astype(np.uint16)


def make_mosaics(count=3, size=(64, 80), *, camera=CAMERA, seed=0, shift=(2, 4)):
    """Noisy frames of a moving scene."""
    rng = np.random.default_rng(seed)
    return [np.clip(mosaic_of(rgb, camera) + rng.normal(0, 20, size).round(), 0, 2 ** camera.bits - 1).astype(np.uint16)
            for rgb in scenes(count, size, seed=seed, shift=shift)]


def make_burst(count=3, size=(64, 80), *, camera=CAMERA, shift=(2, 4), **changes):
    """The same in memory."""
    camera = dataclasses.replace(camera, **changes)
    return Burst.from_arrays(make_mosaics(count, size, camera=camera, shift=shift), camera)


def write_tiffs(folder, count=3, size=(64, 80), *, camera=CAMERA, shift=(2, 4)):
    """The same as TIFF files with their metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, mosaic in enumerate(make_mosaics(count, size, camera=camera, shift=shift)):
        cv2.imwrite(str(folder / f'{index}.tif'), mosaic)
    (folder / 'metadata.json').write_text(camera.to_json())
    return folder


def listing(folder):
    """All files below a folder with their content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def command(*arguments):
    """The command line in a process of its own, and its environment."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    return [sys.executable, '-m', 'jddb_plugin.restore', *map(str, arguments)], environment
