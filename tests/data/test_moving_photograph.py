import cv2
import numpy as np
import pytest
import torch

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.camera_motion import draw_motion, motion_between
from jddb_plugin.data.moving_photograph_dataset import MovingPhotographDataset, _failed_frames
from jddb_plugin.data.sampling import SampleRandom
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.camera import sample_camera
from jddb_plugin.ops.curves import linearize
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.runtime.data_position import EpochIndex


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photographs')
    rng = np.random.default_rng(0)
    (folder / 'more').mkdir()
    for name in ('a.png', 'b.jpg', 'more/c.png'):
        image = cv2.GaussianBlur(rng.random((260, 300, 3)), (0, 0), 2)
        image = (image - image.min()) / (image.max() - image.min()) * 255
        cv2.imwrite(str(folder / name), image.astype(np.uint8))
    (folder / 'notes.txt').write_text('not a photograph')
    return folder


def _dataset(folder, **options):
    return MovingPhotographDataset({'dataroot_gt': str(folder), 'gt_size': 48, **options})


def test_samples_hold_what_the_contract_says(photographs):
    data = _dataset(photographs, num_frame=3, bursts_per_photograph=5)
    assert len(data) == 15
    sample = data[4]
    assert sample['lq'].shape == (3, 8, 24, 24) and sample['gt'].shape == (3, 48, 48)
    assert sample['lq'].dtype == torch.float32 and sample['camera'].cam2rgb.shape == (3, 3)
    assert sample['lq'].min() >= 0 and sample['lq'][:, :4].max() <= 1 and 0 <= sample['gt'].min() <= sample['gt'].max() <= 1
    assert 'clean' not in sample
    unaligned = _dataset(photographs, aligned=False, speed=8)[4]
    assert unaligned['clean'].shape == (5, 4, 24, 24)


def test_a_sample_is_a_function_of_seed_epoch_and_index(photographs):
    data, again = _dataset(photographs), _dataset(photographs, cache_mb=0)
    for index in (0, 7):
        first, second = data[index], again[index]
        assert all(torch.equal(value, second[key]) for key, value in first.items() if torch.is_tensor(value))
        assert all(torch.equal(a, b) for key in ('camera', 'noise') for a, b in zip(first[key], second[key]))
    assert not torch.equal(data[0]['lq'], _dataset(photographs, seed=1)[0]['lq'])
    assert not torch.equal(data[0]['lq'], data[EpochIndex.of(0, 1, 0)]['lq'])


def test_the_noise_map_is_that_of_the_noisy_values(photographs):
    sample = _dataset(photographs, noise=[0.004, 0.02])[1]
    torch.testing.assert_close(sample['lq'][:, 4:], NoiseModel.of(0.004, 0.02).std(sample['lq'][:, :4]))


def test_the_reference_is_the_truth_and_noise(photographs):
    data = _dataset(photographs, noise=[0.001, 0.005], num_frame=2, ref_idx=1)
    errors = torch.stack([data[i]['lq'][1, :4] - mosaic_rgb(data[i]['gt']) for i in range(20)])
    assert errors.std() < 0.04
    assert errors.mean().abs() < 0.005


def test_frames_lie_on_the_reference_where_the_estimate_is_right(photographs, monkeypatch):
    module = 'jddb_plugin.data.moving_photograph_dataset'
    monkeypatch.setattr(f'{module}.draw_estimation_error', lambda rng, size: np.zeros((size, size, 2), np.float32))
    monkeypatch.setattr(f'{module}._failed_frames', lambda *_: [])
    monkeypatch.setattr(f'{module}._add_moving_piece', lambda *_: None)
    data = _dataset(photographs, noise=[0, 0])
    errors = [(data[i]['lq'][k, :4] - data[i]['lq'][2, :4]).abs().mean() for i in range(12) for k in (0, 1, 3, 4)]
    assert np.mean(errors) < 0.01


def test_flow_finds_the_motion_of_noisy_frames(photographs, monkeypatch):
    """Frames that flow has aligned lie on the reference, also where known motion would have been given errors of ten pixels."""
    monkeypatch.setattr('jddb_plugin.data.moving_photograph_dataset._failed_frames', lambda *_: [])
    monkeypatch.setattr('jddb_plugin.data.moving_photograph_dataset.draw_estimation_error',
                        lambda rng, size: np.full((size, size, 2), 10, np.float32))

    def difference(**options):
        errors = []
        for index in range(12):
            lq = _dataset(photographs, gt_size=64, noise=[1e-3, 5e-3], **options)[index]['lq'][:, :4, 4:-4, 4:-4]
            errors.append((lq - lq[2]).abs().mean().item())
        return np.median(errors)

    assert difference(flow_share=1.0) < 0.5 * difference()
    first, second = (_dataset(photographs, flow_share=share)[5]['gt'] for share in (0.0, 1.0))
    assert torch.equal(first, second)


def test_the_share_of_bursts_of_one_frame_is_that_of_the_option():
    rng = np.random.default_rng(0)
    for share, more in ((0.08, 0.18), (0.4, 0.18), (1.0, 0.0)):
        failed = [len(_failed_frames(rng, 5, 2, share)) for _ in range(20000)]
        assert np.mean(np.equal(failed, 4)) == pytest.approx(share, abs=0.02)
        assert np.mean([0 < count < 4 for count in failed]) == pytest.approx(more, abs=0.02)


def test_motion_between_frames_is_that_of_the_matrices():
    rng = np.random.default_rng(3)
    motions = draw_motion(rng, 5, 2, 64, speed=10.0)
    field = motion_between(motions[2], motions[4], 3, 10)
    x, y = 2 * 5 + 0.5, 2 * 9 + 0.5  # cell (row 9, column 5)
    place = motions[2].matrix @ (x, y, 1)
    moved = (x + field[6, 2, 1], y + field[6, 2, 0], 1)
    np.testing.assert_allclose(motions[4].matrix @ moved, place, atol=1e-4)


def test_shares_of_what_happens_are_those_of_the_docstring():
    rng = np.random.default_rng(0)
    bursts = [draw_motion(rng, 5, 2, 64, speed=60.0) for _ in range(2000)]
    still = np.mean([all(np.array_equal(m.matrix, np.eye(2, 3)) for m in motions) for motions in bursts])
    assert 0.18 < still < 0.22
    blurred = np.mean([m.blur is not None for motions in bursts for k, m in enumerate(motions) if k != 2])
    assert 0.15 < blurred < 0.2
    assert all(m.blur is None or m.blur.sum() == pytest.approx(1) for motions in bursts for m in motions)


def test_the_table_of_linear_values_is_unprocessing():
    image = torch.randint(256, (3, 8, 8), dtype=torch.uint8)
    camera = sample_camera(SampleRandom(0, 1).generator)
    table = linearize(torch.arange(256) / 255)
    torch.testing.assert_close(camera.to_sensor(table[image.long()]), camera.unprocess(image / 255))


def test_smaller_copies_of_large_photographs_hold_a_frame(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (1000, 920, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    for size, shorter in ((48, [690, 460]), (600, [690]), (840, [920])):
        dataset = _dataset(tmp_path, gt_size=size, num_frame=2)
        assert [min(copy.shape[:2]) for copy in dataset._photograph(0)] == shorter
    assert dataset[0]['gt'].shape == (3, 840, 840)


def test_bad_input_is_told(photographs, tmp_path):
    with pytest.raises(DataError, match='no such folder'):
        _dataset(tmp_path / 'nowhere')
    with pytest.raises(DataError, match='holds no photographs'):
        _dataset(tmp_path)
    cv2.imwrite(str(tmp_path / 'small.png'), np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(DataError, match='small.png: 40 x 40 px'):
        _dataset(tmp_path)[0]
    with pytest.raises(OptionError, match='gt_size'):
        _dataset(photographs, gt_size=50)
    with pytest.raises(OptionError, match='ref_idx: expected 0 .. 2'):
        _dataset(photographs, num_frame=3, ref_idx=3)
    with pytest.raises(OptionError, match='flow_share: expected 0 .. 1, got 2'):
        _dataset(photographs, flow_share=2)
    with pytest.raises(OptionError, match='one_frame_share: expected 0 .. 1, got -1'):
        _dataset(photographs, one_frame_share=-1)
    with pytest.raises(OptionError, match='flow_share: flow aligns frames; it needs aligned: true'):
        _dataset(photographs, flow_share=0.5, aligned=False)
    with pytest.raises(OptionError, match="did you mean 'speed'"):
        _dataset(photographs, sped=3)
