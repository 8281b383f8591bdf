import pytest
import torch
import torch.nn.functional as F

from jddb_plugin.checks import OptionError, ShapeError
from jddb_plugin.ops import patch_distance
from jddb_plugin.ops.block_matching import SearchWindow, distances_along, match_tiles
from jddb_plugin.ops.tile_extraction import blend_tiles, extract_tiles

from . import block_matching_oracle as oracle

CASES = {
    'middle reference': dict(frames=5, ref_idx=2, size=(4, 4), window=SearchWindow(4, 2)),
    'first frame, rectangular tile': dict(frames=3, ref_idx=0, size=(3, 5), window=SearchWindow(3, 2)),
    'last frame, stride 3': dict(frames=4, ref_idx=3, size=(4, 3), window=SearchWindow(6, 3)),
    'released window': dict(frames=3, ref_idx=1, size=(4, 4), window=SearchWindow(4, 2, 'released')),
    'window larger than the frame': dict(frames=3, ref_idx=1, size=(6, 8), window=SearchWindow(20, 2)),
    'tile as large as the frame': dict(frames=3, ref_idx=1, size=(11, 13), window=SearchWindow(2, 2)),
    'stride 1': dict(frames=3, ref_idx=1, size=(4, 4), window=SearchWindow(2, 1)),
}


def _setup(frames, size, batch=2, tiles=3, dtype=torch.float64):
    features = torch.rand(batch, frames, 2, 11, 13, dtype=dtype)
    corner = [torch.randint(0, side - s + 1, (batch, tiles)) for side, s in zip((11, 13), size)]
    return features, torch.stack(corner, dim=-1)


@pytest.mark.parametrize('temperature', [None, 0.05])
@pytest.mark.parametrize('case', CASES.values(), ids=CASES.keys())
def test_agrees_with_nested_loops(case, temperature):
    features, positions = _setup(case['frames'], case['size'])
    options = dict(ref_idx=case['ref_idx'], window=case['window'])
    match = match_tiles(features, positions, case['size'], temperature=temperature, **options)
    expected = oracle.match(features, positions, case['size'], case['ref_idx'], case['window'], temperature)
    others = [t for t in range(case['frames']) if t != case['ref_idx']]
    assert (match.offset[:, :, case['ref_idx']] == 0).all()
    for (b, t, frame), (offset, *searches) in expected.items():
        f = others.index(frame)
        assert tuple(match.offset[b, t, frame].tolist()) == offset
        for search, (center, distance, weight) in zip((match.coarse, match.fine), searches):
            assert tuple(search.center[b, t, f].tolist()) == center
            assert search.valid[b, t, f].tolist() == [d is not None for d in distance]
            flat = torch.stack([torch.zeros((), dtype=torch.float64) if d is None else d for d in distance])
            torch.testing.assert_close(search.distance[b, t, f], flat, rtol=1e-10, atol=1e-12)
            if temperature is None:
                assert search.weight is None
            else:
                flat = torch.stack([torch.zeros((), dtype=torch.float64) if w is None else w for w in weight])
                torch.testing.assert_close(search.weight[b, t, f], flat, rtol=1e-8, atol=1e-12)


def test_chunks_do_not_change_the_result(monkeypatch):
    features, positions = _setup(5, (4, 4), tiles=7)
    options = dict(ref_idx=2, window=SearchWindow(4, 2), temperature=0.01)
    whole = match_tiles(features, positions, (4, 4), **options)
    monkeypatch.setitem(patch_distance.CHUNK_BYTES, 'cpu', 1)
    parts = match_tiles(features, positions, (4, 4), **options)
    assert torch.equal(whole.offset, parts.offset)
    torch.testing.assert_close(whole.fine.weight, parts.fine.weight)


@pytest.mark.parametrize('shift', [(4, -6), (-6, 6), (0, 2)])
def test_a_planted_shift_is_recovered(shift):
    """A dense texture has no smooth valley to follow: the strided search must hit the even shift itself."""
    scene = torch.rand(3, 80, 80)
    frames = torch.stack([scene[:, 28 - t * shift[0]:52 - t * shift[0], 28 - t * shift[1]:52 - t * shift[1]]
                          for t in (-1, 0, 1)])
    match = match_tiles(frames[None], torch.tensor([[[8, 8]]]), (8, 8), ref_idx=1, window=SearchWindow(6, 2))
    assert match.offset[0, 0].tolist() == [[-shift[0], -shift[1]], [0, 0], list(shift)]


def test_smooth_motion_is_recovered_exactly_over_many_frames():
    scene = F.avg_pool2d(F.interpolate(torch.rand(1, 2, 30, 30), scale_factor=6, mode='bicubic'), 3, 1)[0]
    motion = (5, -4)
    frames = []
    for t in range(-2, 3):
        y, x = 70 - motion[0] * t, 70 - motion[1] * t
        frames.append(scene[:, y:y + 48, x:x + 48])
    positions = torch.tensor([[[16, 16], [18, 14]]])
    match = match_tiles(torch.stack(frames)[None], positions, (16, 16), ref_idx=2, window=SearchWindow(6, 2))
    for k, t in enumerate(range(-2, 3)):
        assert (match.offset[0, :, k] == torch.tensor([motion[0] * t, motion[1] * t])).all()


def test_soft_matching_becomes_one_hot_as_the_temperature_falls():
    features, positions = _setup(5, (4, 4))
    options = dict(ref_idx=2, window=SearchWindow(4, 2))
    hard = match_tiles(features, positions, (4, 4), **options)
    soft = match_tiles(features, positions, (4, 4), temperature=1e-7, **options)
    assert torch.equal(hard.offset, soft.offset)
    assert (soft.fine.weight.amax(dim=-1) > 1 - 1e-6).all()
    frames = torch.rand(2, 5, 3, 44, 52, dtype=torch.float64)
    blended = blend_tiles(frames, positions * 4, soft, (16, 16), ref_idx=2, window=SearchWindow(4, 2), scale=4)
    torch.testing.assert_close(blended, extract_tiles(frames, positions * 4, hard.offset * 4, (16, 16)))


def test_blending_is_the_weighted_sum_of_candidates():
    features, positions = _setup(3, (4, 4))
    window = SearchWindow(2, 2)
    match = match_tiles(features, positions, (4, 4), ref_idx=1, window=window, temperature=0.1)
    frames = torch.rand(2, 3, 3, 44, 52, dtype=torch.float64)
    blended = blend_tiles(frames, positions * 4, match, (16, 16), ref_idx=1, window=window, scale=4)
    for b in range(2):
        for t in range(3):
            for f, frame in enumerate((0, 2)):
                total = torch.zeros(3, 16, 16, dtype=torch.float64)
                for index, (dy, dx) in enumerate(oracle.steps(*window.fine)):
                    if match.fine.valid[b, t, f, index]:
                        y, x = (match.fine.center[b, t, f] + torch.tensor([dy, dx])).mul(4).tolist()
                        total += match.fine.weight[b, t, f, index] * frames[b, frame, :, y:y + 16, x:x + 16]
                torch.testing.assert_close(blended[b, t, frame], total)
            y, x = (positions[b, t] * 4).tolist()
            assert torch.equal(blended[b, t, 1], frames[b, 1, :, y:y + 16, x:x + 16])


def test_gradients_by_finite_differences():
    features, positions = _setup(3, (3, 3), batch=1, tiles=2)
    frames = torch.rand(1, 3, 2, 44, 52, dtype=torch.float64)
    window = SearchWindow(2, 2)

    def run(features, frames):
        match = match_tiles(features, positions, (3, 3), ref_idx=1, window=window, temperature=0.2)
        tiles = blend_tiles(frames, positions * 4, match, (12, 12), ref_idx=1, window=window, scale=4)
        return match.coarse.distance, match.fine.weight, tiles.mean(dim=(-1, -2))

    assert torch.autograd.gradcheck(run, (features.requires_grad_(), frames.requires_grad_()), fast_mode=True)


def test_gradients_agree_with_the_nested_loops():
    features, positions = _setup(3, (3, 3), batch=1, tiles=1)
    weights = torch.rand(25, dtype=torch.float64)
    window = SearchWindow(4, 2)
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    match = match_tiles(ours, positions, (3, 3), ref_idx=1, window=window, temperature=0.1)
    (match.fine.weight * weights).sum().backward()
    expected = oracle.match(theirs, positions, (3, 3), 1, window, 0.1)
    sum(w * k for _, _, (_, _, fine) in expected.values() for w, k in zip(fine, weights) if w is not None).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12)


def test_equal_distances_choose_the_candidate_nearest_to_the_center():
    features = torch.ones(1, 3, 2, 20, 20)
    match = match_tiles(features, torch.tensor([[[8, 8]]]), (4, 4), ref_idx=1, window=SearchWindow(4, 2), temperature=1e-3)
    assert (match.offset == 0).all()
    assert torch.isfinite(match.fine.weight).all()


def test_of_equally_good_periods_the_nearest_wins():
    """A texture of period 4 matches at many displacements; moved by 1, the nearest of them is -1, not 3 or -5."""
    line = torch.rand(2, 1, 4).repeat(1, 40, 10)
    features = torch.stack([line.roll(1, dims=-1), line, line.roll(-1, dims=-1)])[None]
    match = match_tiles(features, torch.tensor([[[16, 16]]]), (8, 8), ref_idx=1, window=SearchWindow(6, 1))
    assert match.offset[0, 0].tolist() == [[0, 1], [0, 0], [0, -1]]


def test_without_a_valid_candidate_the_tile_stays():
    """The released rule leaves a tile as large as the frame no candidate at all."""
    features, positions = _setup(3, (11, 13))
    match = match_tiles(features, positions, (11, 13), ref_idx=1, window=SearchWindow(2, 2, 'released'), temperature=1e-2)
    assert (match.offset == 0).all()
    assert (match.fine.valid.sum(dim=-1) == 1).all()
    assert (match.fine.weight.amax(dim=-1) == 1).all()


@pytest.mark.parametrize('autocast', [False, True], ids=['float32', 'bfloat16 autocast'])
def test_low_temperatures_are_stable(autocast):
    """Weights and gradients at T = 1e-3 agree with those in float64."""
    features, positions = _setup(3, (4, 4), dtype=torch.float32)
    window = SearchWindow(4, 2)
    values = []
    for dtype in (torch.float32, torch.float64):
        leaf = features.to(dtype).requires_grad_()
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
            match = match_tiles(leaf, positions, (4, 4), ref_idx=1, window=window, temperature=1e-3)
        assert match.fine.weight.dtype == dtype
        gradient, = torch.autograd.grad(match.fine.weight.square().sum(), leaf)
        values.append((match.fine.weight.double(), gradient.double()))
    torch.testing.assert_close(values[0][0], values[1][0], rtol=0, atol=1e-3)
    torch.testing.assert_close(values[0][1], values[1][1], rtol=1e-2, atol=1e-2)


def test_constant_images_give_finite_gradients():
    features = torch.ones(1, 3, 2, 20, 20, requires_grad=True)
    match = match_tiles(features, torch.tensor([[[8, 8]]]), (4, 4), ref_idx=1, window=SearchWindow(4, 2), temperature=1e-3)
    (match.fine.weight.square().sum() + match.coarse.distance.sum()).backward()
    assert torch.isfinite(features.grad).all()


def test_half_precision_input_is_matched_in_float32():
    features, positions = _setup(3, (4, 4), dtype=torch.float32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        match = match_tiles(features.bfloat16(), positions, (4, 4), ref_idx=1, window=SearchWindow(2, 2), temperature=1e-3)
    assert match.fine.weight.dtype == torch.float32
    expected = match_tiles(features.bfloat16().float(), positions, (4, 4), ref_idx=1, window=SearchWindow(2, 2))
    assert torch.equal(match.offset, expected.offset)


def test_distances_along_repeats_the_search():
    features, positions = _setup(5, (4, 4))
    options = dict(ref_idx=2, window=SearchWindow(4, 2))
    match = match_tiles(features, positions, (4, 4), **options)
    coarse, fine = distances_along(features, positions, (4, 4), match, **options)
    torch.testing.assert_close(coarse, match.coarse.distance)
    torch.testing.assert_close(fine, match.fine.distance)


def test_a_burst_of_one_frame_has_nothing_to_search():
    features, positions = _setup(1, (4, 4))
    match = match_tiles(features, positions, (4, 4), ref_idx=0, window=SearchWindow(4, 2))
    assert match.offset.shape == (2, 3, 1, 2)


def test_windows_are_those_of_the_paper_and_of_the_release():
    assert SearchWindow(6, 2).coarse == (-6, 6, 2)
    assert SearchWindow(7, 2).coarse == (-6, 6, 2)
    assert SearchWindow(6, 2).fine == (-2, 2, 1)
    assert SearchWindow(6, 2, 'released').coarse == (-6, 4, 2)
    assert SearchWindow(6, 2, 'released').fine == (-2, 1, 1)


def test_wrong_input_is_named():
    features, positions = _setup(3, (4, 4))
    window = SearchWindow(2, 2)
    with pytest.raises(ShapeError, match=r'\[B, N, C, H, W\].*\[3, 2, 11, 13\]'):
        match_tiles(features[0], positions, (4, 4), ref_idx=1, window=window)
    with pytest.raises(ShapeError, match='12 x 4 feature px does not fit into a frame of 11 x 13'):
        match_tiles(features, positions, (12, 4), ref_idx=1, window=window)
    with pytest.raises(OptionError, match=r'ref_idx: expected 0 .. 2'):
        match_tiles(features, positions, (4, 4), ref_idx=3, window=window)
    with pytest.raises(OptionError, match="'symetric' is not a valid choice; did you mean 'symmetric'"):
        SearchWindow(2, 2, 'symetric')
