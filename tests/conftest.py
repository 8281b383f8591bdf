"""Fixtures: reference data if it is there, small clips to train on, and the devices that are there."""
import os

# Networks of 8 features on tiles of 16: a second thread waits more than it computes. Child processes inherit it.
os.environ.setdefault('OMP_NUM_THREADS', '1')

# ruff: noqa: E402 - before torch
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import jddb_plugin  # noqa: F401  (patches and registers before any test imports the toolbox)
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get('JDDB_SHARED', ROOT.parent / 'shared'))
#: Files that take longest, the longest first: no process is left with one of them at the end.
LONGEST = (
    'test_killed_runs.py', 'test_real_slurm.py', 'test_export.py', 'test_memory.py', 'test_distributed.py', 'test_elastic.py',
    'test_structure.py', 'test_types.py', 'test_import.py', 'test_restore_command.py', 'test_wheel.py', 'test_other_systems.py',
    'test_step.py', 'test_final.py', 'test_pipelines.py', 'test_engine.py',
)


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu'])
def device(request):
    """Devices that operations and networks are tested on: the CPU, and a GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture
def on_device(device, request):
    """Make tensors on ``device`` by default; tests that are marked ``cpu_only`` are left out on others."""
    if device.type == 'cpu':
        yield device
        return
    if request.node.get_closest_marker('cpu_only'):
        pytest.skip('compares draws of a generator on the CPU, or with a library that works there')
    torch.set_default_tensor_type(torch.cuda.FloatTensor)  # the toolbox writes torch.Tensor(...), which no context reaches
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # equal to 1e-5 is meant
    try:
        with device:
            yield device
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        torch.set_default_tensor_type(torch.FloatTensor)


@pytest.fixture(scope='session')
def shared():
    """Path of a file below the reference data; skips, and says so, where it is not there."""

    def find(name):
        path = SHARED / name
        if not path.exists():
            pytest.skip(f'reference data {name} is not here (set JDDB_SHARED to its folder)')
        return path

    return find


@pytest.fixture(scope='session')
def textures():
    """Two clips of seven 96 x 112 frames: smooth random textures that move by (2, 4) px a frame."""
    rng = np.random.default_rng(0)
    clips = {}
    for name in ('a', 'b'):
        scene = cv2.GaussianBlur(rng.random((180, 220, 3)).astype(np.float32), (0, 0), 2)
        scene = (255 * (scene - scene.min()) / (scene.max() - scene.min())).astype(np.uint8)
        clips[name] = [scene[10 + 2 * t:106 + 2 * t, 10 + 4 * t:122 + 4 * t] for t in range(7)]
    return clips


@pytest.fixture(scope='session')
def texture_lmdb(textures, tmp_path_factory):
    """The same clips as a burst LMDB."""
    path = tmp_path_factory.mktemp('data') / 'textures.lmdb'
    with BurstLmdbWriter(str(path)) as writer:
        for name, frames in textures.items():
            for index, frame in enumerate(frames):
                writer.put_image(name, index, frame)
    return path


@pytest.fixture
def random_vgg(monkeypatch):
    """VGG19's feature layers with random weights, in place of a download."""
    from types import SimpleNamespace

    from basicsr.archs import vgg_arch

    def layers(**_):
        return SimpleNamespace(features=vgg_arch.vgg.make_layers(vgg_arch.vgg.cfgs['E']))

    monkeypatch.setattr(vgg_arch.vgg, 'vgg19', layers)


@pytest.fixture
def texture_folder(textures, tmp_path):
    """The same clips as a folder of folders."""
    for name, frames in textures.items():
        (tmp_path / 'clips' / name).mkdir(parents=True)
        for index, frame in enumerate(frames):
            cv2.imwrite(str(tmp_path / 'clips' / name / f'{index:08d}.png'), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return tmp_path / 'clips'
