import pytest
import torch

from jddb_plugin.ops import patch_distance
from jddb_plugin.ops.block_matching import SearchWindow, match_tiles
from jddb_plugin.ops.patch_distance import extract_patches, patch_distances
from jddb_plugin.ops.tile_extraction import blend_tiles

AXIS = (-4, 2, 2)


def _search(dtype=torch.float64):
    """Three searches, two of them reaching out of a 9 x 11 image."""
    images = torch.rand(2, 9, 11, 3, dtype=dtype)
    index = torch.tensor([0, 1, 1])
    corner = torch.tensor([[4, 4], [0, 6], [6, 8]])
    return images, index, corner, torch.rand(3, 3, 2, 3, dtype=dtype)


def _loops(images, index, corner, reference):
    result = torch.zeros(len(index), 16, dtype=images.dtype)
    for s in range(len(index)):
        for k in range(16):
            for i in range(reference.shape[1]):
                for j in range(reference.shape[2]):
                    y = min(max(int(corner[s, 0]) - 4 + k // 4 * 2 + i, 0), images.shape[1] - 1)
                    x = min(max(int(corner[s, 1]) - 4 + k % 4 * 2 + j, 0), images.shape[2] - 1)
                    result[s, k] += (images[index[s], y, x] - reference[s, i, j]).abs().sum() / reference[s].numel()
    return result


@pytest.mark.parametrize('budget', [1, 2000, 1 << 20], ids=['candidate by candidate', 'some lines', 'everything at once'])
def test_values_and_gradients_are_those_of_nested_loops(monkeypatch, budget):
    monkeypatch.setitem(patch_distance.CHUNK_BYTES, 'cpu', budget)
    images, index, corner, reference = _search()
    weight = torch.rand(3, 16, dtype=torch.float64)
    gradients = []
    for run in (lambda *x: patch_distances(*x, AXIS), _loops):
        leaves = images.clone().requires_grad_(), reference.clone().requires_grad_()
        value = run(leaves[0], index, corner, leaves[1])
        gradients.append((value, *torch.autograd.grad((value * weight).sum(), leaves)))
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs)


def test_gradients_by_finite_differences():
    images, index, corner, reference = _search()
    images.requires_grad_(), reference.requires_grad_()
    assert torch.autograd.gradcheck(lambda i, r: patch_distances(i, index, corner, r, AXIS), (images, reference))


def test_nothing_but_the_input_is_kept_for_the_backward_pass():
    images, index, corner, reference = _search()
    images.requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        patch_distances(images, index, corner, reference, AXIS)
    largest = max(t.numel() for t in kept)
    assert largest == images.numel() < 3 * 16 * reference[0].numel()


def test_rectangles_repeat_the_border():
    images = torch.arange(12.).view(1, 3, 4, 1)
    part = extract_patches(images, torch.tensor([0]), torch.tensor([[-1, 2]]), (3, 3))
    assert part[0, :, :, 0].tolist() == [[2, 3, 3], [2, 3, 3], [6, 7, 7]]


@pytest.mark.cpu_only
@pytest.mark.parametrize('temperature', [None, 1e-2])
def test_compiles_without_graph_breaks(temperature):
    features = torch.rand(1, 3, 4, 16, 18, dtype=torch.float64)
    frames = torch.rand(1, 3, 2, 64, 72, dtype=torch.float64)
    positions = torch.tensor([[[2, 4], [8, 9]]])
    window = SearchWindow(2, 2)

    def run(features, frames):
        match = match_tiles(features, positions, (6, 5), ref_idx=1, window=window, temperature=temperature)
        if temperature is None:
            return match.offset, match.fine.distance
        return match.offset, blend_tiles(frames, positions * 4, match, (24, 20), ref_idx=1, window=window, scale=4)

    compiled = torch.compile(run, fullgraph=True, backend='aot_eager')
    gradients = []
    for function in (run, compiled):
        leaves = features.clone().requires_grad_(), frames.clone().requires_grad_()
        offset, value = function(*leaves)
        grads = torch.autograd.grad(value.square().sum(), leaves, allow_unused=True)
        gradients.append((offset, value, *(g for g in grads if g is not None)))
    assert len(gradients[0]) == len(gradients[1])
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs)
