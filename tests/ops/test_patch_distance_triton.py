"""The fused kernels against nested loops: on a GPU where there is one, and through Triton's interpreter on any CPU."""
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import warnings

import pytest
import torch

from jddb_plugin.ops import patch_distance
from jddb_plugin.ops.block_matching import SearchWindow, match_tiles
from jddb_plugin.ops.patch_distance import patch_distances

from ..conftest import ROOT

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
needs_triton = pytest.mark.skipif(importlib.util.find_spec('triton') is None, reason='Triton is not installed for this system')


def _triton_version():
    try:
        return tuple(int(part) for part in importlib.metadata.version('triton').split('.')[:2])
    except importlib.metadata.PackageNotFoundError:
        return (0, 0)


#: Size of the tiles, channels, axis. Lines of 6 to 96 elements, of one block and of several, with one candidate and with 49.
CASES = {
    'stride 2': ((3, 2), 3, (-4, 2, 2)),
    'stride 1': ((4, 5), 7, (-1, 1, 1)),
    'stride that ends early': ((2, 3), 1, (-3, 5, 3)),
    'one candidate': ((3, 4), 4, (0, 0, 1)),
    'more candidates than a program has': ((2, 3), 16, (-3, 3, 1)),
    'several blocks': ((2, 12), 8, (-2, 2, 2)),
}


@pytest.fixture
def kernels(device, monkeypatch):
    """The module of the kernels; skips where they cannot run."""
    if not INTERPRETED and device.type == 'cpu':
        pytest.skip('runs on a GPU, or in a process whose Triton interprets')
    if INTERPRETED:
        monkeypatch.setattr(patch_distance, 'available', lambda device: True)
    elif not patch_distance.available(device):
        pytest.skip('Triton cannot compile for this GPU')
    from jddb_plugin.ops import patch_distance_triton
    # Small blocks, so that small tiles have several, and the last of them not full.
    monkeypatch.setattr(patch_distance_triton, 'SUMS', patch_distance_triton.Launch(8, 64, 4))
    monkeypatch.setattr(patch_distance_triton, 'REFERENCE_GRADIENT', patch_distance_triton.Launch(4, 32, 4))
    monkeypatch.setattr(patch_distance_triton, 'REGION_GRADIENT', patch_distance_triton.Launch(2, 64, 4))
    return patch_distance_triton


def _searches(size, channels, dtype):
    """Four searches in two images of 9 x 11, three of them reaching out; parts of one tile equal its image."""
    images = torch.rand(2, 9, 11, channels, dtype=dtype)
    index = torch.tensor([0, 1, 1, 0])
    corner = torch.tensor([[4, 4], [0, 6], [6, 8], [-20, 30]])
    reference = torch.rand(4, *size, channels, dtype=dtype)
    reference[0, 0] = images[0, 4, 4:4 + size[1]] if size[1] <= 7 else images[0, 4, 4]
    return images, index, corner, reference


def _loops(images, index, corner, reference, axis):
    """In float64, pixel by pixel."""
    images, reference = images.double(), reference.double()
    steps = range(axis[0], axis[1] + 1, axis[2])
    sums = []
    for s in range(len(index)):
        rows, cols = (corner[s, k] + torch.arange(reference.shape[1 + k]) for k in range(2))
        for dy in steps:
            for dx in steps:
                y, x = (rows + dy).clamp(0, images.shape[1] - 1), (cols + dx).clamp(0, images.shape[2] - 1)
                sums.append((images[index[s]][y][:, x] - reference[s]).abs().mean())
    return torch.stack(sums).view(len(index), -1)


def _value_and_gradients(function, images, index, corner, reference, axis):
    leaves = images.clone().requires_grad_(), reference.clone().requires_grad_()
    value = function(leaves[0], index, corner, leaves[1], axis)
    weight = torch.linspace(-1, 2, value.numel(), dtype=value.dtype).view_as(value)
    return (value.detach(), *torch.autograd.grad((value * weight).sum(), leaves))


@needs_triton
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('case', CASES)
def test_values_and_gradients_are_those_of_nested_loops(kernels, monkeypatch, case, dtype):
    size, channels, axis = CASES[case]
    if dtype == torch.float64:
        monkeypatch.setattr(patch_distance, 'CHUNK_BYTES', {'cpu': 1, 'cuda': 1})  # search by search
    searches = _searches(size, channels, dtype)
    ours = _value_and_gradients(patch_distances, *searches, axis)
    theirs = _value_and_gradients(_loops, *searches, axis)
    for our, their in zip(ours, theirs):
        assert our.dtype == dtype
        torch.testing.assert_close(our.double(), their.double(), rtol=2e-6, atol=1e-6 * their.abs().max().item())


@needs_triton
def test_equal_candidates_have_equal_sums_and_matches_are_those_of_the_chunks(kernels, monkeypatch):
    flat = torch.full((1, 20, 20, 3), 0.1)
    distance = patch_distances(flat, torch.tensor([0]), torch.tensor([[8, 8]]), torch.rand(1, 5, 5, 3), (-2, 2, 1))
    assert (distance == distance[0, 0]).all()
    features, positions = torch.rand(1, 2, 3, 16, 18), torch.tensor([[[2, 4], [8, 9]]])
    found = match_tiles(features, positions, (6, 5), ref_idx=0, window=SearchWindow(2, 2))
    monkeypatch.setattr(patch_distance, 'available', lambda device: False)
    expected = match_tiles(features, positions, (6, 5), ref_idx=0, window=SearchWindow(2, 2))
    assert torch.equal(found.offset, expected.offset)
    torch.testing.assert_close(found.coarse.distance, expected.coarse.distance)


@needs_triton
@pytest.mark.cpu_only
@pytest.mark.skipif(INTERPRETED, reason='is that process')
@pytest.mark.skipif(_triton_version() < (3, 3), reason='Triton 3.0 cannot interpret loops over numbers of its own')
def test_interpreted_on_a_cpu():
    """In a process of its own, as Triton reads when it is imported whether it shall interpret; without a GPU there."""
    environment = {**os.environ, 'TRITON_INTERPRET': '1', 'CUDA_VISIBLE_DEVICES': '', 'PYTHONPATH': str(ROOT)}
    result = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:xdist', '-p', 'no:cacheprovider', __file__,
                             '-k', 'dtype0 or several or equal_candidates'],
                            capture_output=True, text=True, cwd=ROOT, env=environment)
    # All cases in float32, one in float64, and the matching.
    assert result.returncode == 0 and '8 passed' in result.stdout, result.stdout + result.stderr


@pytest.mark.skipif(INTERPRETED, reason='tested without an interpreter')
def test_triton_is_imported_where_it_is_used_only():
    code = ('import sys, torch, jddb_plugin.ops; from jddb_plugin.ops import patch_distances as f;'
            'before = "triton" in sys.modules;'
            'x = torch.rand(1, 6, 6, 2); f(x, torch.tensor([0]), torch.tensor([[1, 1]]), x[:, 1:4, 1:4], (-1, 1, 1));'
            'print(before, "triton" in sys.modules, "jddb_plugin.ops.patch_distance_triton" in sys.modules)')
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout == 'False False False\n', result.stdout + result.stderr


@pytest.mark.cpu_only
@pytest.mark.skipif(INTERPRETED, reason='tested without an interpreter')
def test_a_gpu_without_a_working_triton_takes_the_chunks(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert not patch_distance.available.__wrapped__(torch.device('cuda'))
    # Installed, but what it needs is not there: here the GPU, elsewhere a compiler.
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: name)
    with pytest.warns(UserWarning, match='Triton does not run on cuda:99'):
        assert not patch_distance.available.__wrapped__(torch.device('cuda:99'))
