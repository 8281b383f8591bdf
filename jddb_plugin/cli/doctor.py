"""Check the environment: versions, devices, DCNv2 backends, LMDB, and a short forward and backward pass."""
from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import tempfile
import time
import traceback
from typing import Callable, Optional

#: What everything needs; and what some things need, which are then said to be missing.
_PACKAGES = ('torch', 'torchvision', 'basicsr', 'mmengine', 'lmdb', 'opencv-python', 'numpy', 'addict', 'yapf')
_OPTIONAL = {'mmcv-lite': 'videos', 'rawpy': 'raw files', 'h5py': 'MATLAB files', 'onnx': 'export to ONNX',
             'onnxscript': 'export to ONNX', 'onnxruntime': 'export to ONNX', 'shtab': 'tab completion'}

#: Other distributions that hold the same modules.
_SAME = {'mmcv-lite': ('mmcv',),
         'opencv-python': ('opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')}


def _versions() -> str:
    versions = {}
    for name in (*_PACKAGES, *_OPTIONAL):
        found = (_version(same) for same in (name, *_SAME.get(name, ())))
        versions[name] = next((version for version in found if version is not None), None)
    text = f'Python {platform.python_version()}, ' + ', '.join(
        f'{name} {version}' for name, version in versions.items() if version is not None)
    missing = [name for name in _PACKAGES if versions[name] is None]
    if missing:
        others = [name for name in missing if name != 'basicsr']
        commands = ['python -m jddb_plugin.install_toolbox'] if 'basicsr' in missing else []
        commands += [f'pip install {" ".join(others)}'] if others else []
        raise RuntimeError(f'{text}; missing: {", ".join(missing)}; run: {" and ".join(commands)}')
    without = [f'{name} ({use})' for name, use in _OPTIONAL.items() if versions[name] is None]
    return text + (f'; optional, not installed: {", ".join(without)}' if without else '')


def _version(name: str) -> Optional[str]:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _host() -> str:
    import basicsr

    import jddb_plugin
    return ', '.join(f"{module.__name__} from {os.path.dirname(module.__file__ or '')}" for module in (basicsr, jddb_plugin))


def _devices() -> str:
    import torch
    if not torch.cuda.is_available():
        built = f'built for CUDA {torch.version.cuda}' if torch.version.cuda else 'built without CUDA'
        return f'no CUDA device (torch is {built}); {torch.get_num_threads()} CPU threads'
    names = ', '.join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    torch.ones(1, device='cuda').add_(1).item()
    return f'CUDA {torch.version.cuda}: {names}'


def _deform_conv() -> str:
    import torch

    from jddb_plugin.ops.deform_conv import available_backends, deform_conv2d
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 4, 9, 9), (1, 36, 9, 9), (1, 18, 9, 9), (4, 4, 3, 3))
    inputs = [torch.randn(shape, generator=generator) for shape in shapes]
    expected = deform_conv2d(*inputs, padding=1, deformable_groups=2, backend='torchvision')
    works = []
    for backend, devices in available_backends().items():
        device = 'cpu' if 'cpu' in devices else 'cuda'
        if device == 'cuda' and not torch.cuda.is_available():
            works.append(f'{backend} (installed, needs CUDA)')
            continue
        result = deform_conv2d(*(t.to(device) for t in inputs), padding=1, deformable_groups=2, backend=backend).cpu()
        error = (result - expected).abs().max().item()
        if error > 1e-4:
            raise RuntimeError(f"DCNv2 backend '{backend}' differs from torchvision by {error:.1e}; do not use it.")
        works.append(backend)
    return 'DCNv2 backends: ' + ', '.join(works)


def _lmdb() -> str:
    import numpy as np

    from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
    from jddb_plugin.data.frame_source import FrameSource
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'check.lmdb')
        frame = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
        with BurstLmdbWriter(path) as writer:
            writer.put_image('clip', 0, frame)
        source = FrameSource(path, {'type': 'lmdb'}, 'doctor')
        if not np.array_equal(source.read(source.clips['clip'], 0), frame):
            raise RuntimeError('a frame did not come back from an LMDB as it was written.')
    return 'LMDB: written and read back'


def _step() -> str:
    import torch

    from jddb_plugin.archs.jddb_arch import TwoStageJDDB
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    net = TwoStageJDDB(num_feat=16, deformable_groups=4).to(device)
    burst = torch.rand(1, 5, 8, 48, 48, device=device)
    start = time.perf_counter()
    output = net(burst, torch.zeros(1, 2, dtype=torch.long, device=device), tile=32)
    (output.restored.mean() + output.interpolated.mean()).backward()
    if not all(torch.isfinite(p.grad).all() for p in net.refine.parameters() if p.grad is not None):
        raise RuntimeError(f'the backward pass on {device} gave gradients that are not finite.')
    net.eval()
    with torch.no_grad():
        net(burst, tile=32)
    return f'forward and backward on {device}: {time.perf_counter() - start:.1f} s'


_CHECKS: tuple[tuple[str, Callable[[], str]], ...] = (
    ('versions', _versions), ('host', _host), ('devices', _devices), ('dcn', _deform_conv), ('lmdb', _lmdb), ('step', _step),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(args: argparse.Namespace) -> int:
    """Run all checks; returns 0 if all are well, 1 otherwise."""
    failed = 0
    for name, check in _CHECKS:
        try:
            line = f'ok    {name:9} {check()}'
        except Exception as error:  # whatever is wrong is what the user wants to know
            failed += 1
            line = f'FAIL  {name:9} {type(error).__name__}: {error}'
            if os.environ.get('JDDB_DEBUG'):
                traceback.print_exc()
        sys.stdout.write(line + '\n')
        sys.stdout.flush()
    verdict = f'{failed} of {len(_CHECKS)} checks failed; JDDB_DEBUG=1 shows where.' if failed else 'All is well.'
    sys.stdout.write(verdict + '\n')
    return int(failed > 0)

