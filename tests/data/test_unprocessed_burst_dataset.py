import pickle

import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from torch.utils.data import DataLoader

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.images import to_float
from jddb_plugin.data.sampling import Flips
from jddb_plugin.data.unprocessed_burst_dataset import UnprocessedBurstDataset, UnprocessedBurstTestDataset
from jddb_plugin.ops.bayer import mosaic_rgb
from jddb_plugin.ops.camera import reference_camera
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.ops.synthesis import synthesize
from jddb_plugin.runtime.data_position import EpochIndex


def _train(path, **options):
    return UnprocessedBurstDataset({'name': 'x', 'type': 'y', 'phase': 'train', 'dataroot_gt': str(path), 'gt_size': 32,
                                    **options})


def _test(path, **options):
    return UnprocessedBurstTestDataset({'name': 'x', 'type': 'y', 'dataroot_gt': str(path), 'noise': 'high', **options})


def test_a_training_sample_has_what_the_contract_says(texture_lmdb):
    sample = _train(texture_lmdb)[0]
    shapes = {key: tuple(value.shape) for key, value in sample.items() if torch.is_tensor(value)}
    assert shapes == {'lq': (5, 8, 16, 16), 'gt': (3, 32, 32), 'clean': (5, 4, 16, 16)}
    assert [tuple(value.shape) for value in (*sample['camera'], *sample['noise'])] == [(), (), (), (3, 3), (), ()]
    tensors = [*sample['camera'], *sample['noise'], *(value for value in sample.values() if torch.is_tensor(value))]
    assert all(value.dtype == torch.float32 for value in tensors)
    assert sample['key'] == 'a/00000002'


def test_the_clean_mosaic_of_the_reference_is_the_truth_in_phase(texture_lmdb):
    """Whatever the flips and rotations, sampling the truth by rggb gives the clean raw."""
    dataset = _train(texture_lmdb)
    for epoch in range(12):
        sample = dataset[EpochIndex.of(epoch % len(dataset), epoch, 0)]
        assert torch.equal(mosaic_rgb(sample['gt']), sample['clean'][2])


def test_noise_map_and_noise_fit_each_other(texture_lmdb):
    sample = _train(texture_lmdb, noise=[1e-3, 1e-2], gt_size=90)[0]
    noisy, noise_map = sample['lq'][:, :4], sample['lq'][:, 4:]
    torch.testing.assert_close(noise_map, NoiseModel.of(1e-3, 1e-2).std(noisy))
    inner = (sample['clean'] > 0.05) & (sample['clean'] < 0.95)
    error = ((noisy - sample['clean']) / NoiseModel.of(1e-3, 1e-2).std(sample['clean']))[inner]
    assert error.var().item() == pytest.approx(1, rel=4 * (2 / error.numel()) ** 0.5)


def test_all_frames_get_the_same_crop_and_camera(texture_lmdb, textures):
    dataset = _train(texture_lmdb, use_hflip=False, use_rot=False)
    sample = dataset[1]
    camera = sample['camera']
    clip, center = dataset.samples[1]
    # Find the crop by the truth; it may start on an odd row or column, so each frame is cropped before it is sampled.
    linear = camera.unprocess(to_float(textures[clip.name][center]))
    side = 32
    places = [(y, x) for y in range(linear.shape[1] - side + 1) for x in range(linear.shape[2] - side + 1)
              if torch.allclose(linear[:, y:y + side, x:x + side], sample['gt'], atol=1e-5)]
    assert len(places) == 1
    y, x = places[0]
    for t, frame in zip((-2, -1, 0, 1, 2), range(5)):
        linear = camera.unprocess(to_float(textures[clip.name][center + t][y:y + side, x:x + side]))
        torch.testing.assert_close(mosaic_rgb(linear), sample['clean'][frame], atol=1e-5, rtol=0)


def test_synthesis_on_the_device_gives_what_a_worker_makes(texture_lmdb):
    worker, device = (_train(texture_lmdb, synthesis=where, tile=8, reach=4) for where in ('worker', 'device'))
    samples = [device[k] for k in range(3)]
    assert samples[0]['srgb'].dtype == torch.uint8 and 'lq' not in samples[0]
    batch = torch.utils.data.default_collate(samples)
    burst = synthesize(batch['srgb'], batch['camera'], batch['noise'], batch['seed'], ref_idx=int(batch['ref_idx'][0]))
    for k in range(3):
        expected = worker[k]
        assert torch.equal(expected['positions'], samples[k]['positions'])
        for name, value in burst._asdict().items():
            torch.testing.assert_close(value[k], expected[name], rtol=1e-5, atol=1e-6)


def test_only_the_region_around_a_tile_is_cut(texture_lmdb, textures):
    """The region holds the tile and its surroundings as far as the crop allows, through all flips."""
    dataset = _train(texture_lmdb, gt_size=80, tile=8, reach=4, synthesis='device')
    assert dataset.frame_sizes()['a'] == (32, 32)
    corners = set()
    for epoch in range(40):
        sample = dataset[EpochIndex.of(epoch % len(dataset), epoch, 0)]
        assert sample['srgb'].shape == (5, 3, 32, 32)
        y, x = sample['positions'].tolist()
        assert y % 4 == x % 4 == 0 and min(y, x) >= 0 and max(y, x) + 8 <= 16
        corners.add((y, x))
    assert (4, 4) in corners and len(corners) > 3  # in the middle, and at the crop's border
    whole = _train(texture_lmdb, gt_size=80, tile=8, reach=100)
    assert whole.frame_sizes()['a'] == (80, 80)


@pytest.mark.parametrize('flips', [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)])
def test_a_tile_moves_with_its_region(flips):
    image = torch.arange(2 * 16 * 16.).view(2, 1, 16, 16)
    y, x = Flips(*flips).move_corner((4, 8), 4, 16)
    content = Flips(*flips).apply(image)[..., y:y + 4, x:x + 4]
    assert torch.equal(content.sort(dim=-1)[0].sort(dim=-2)[0].flatten().sort()[0],
                       image[..., 4:8, 8:12].flatten().sort()[0])


def test_a_sample_is_a_function_of_seed_epoch_and_index(texture_lmdb):
    dataset = _train(texture_lmdb)
    first = dataset[EpochIndex.of(1, 3, 0)]
    np.random.seed(5), torch.manual_seed(5)
    assert torch.equal(first['lq'], dataset[EpochIndex.of(1, 3, 0)]['lq'])
    for other in (EpochIndex.of(1, 4, 0), EpochIndex.of(1, 3, 1)):
        assert not torch.equal(first['lq'], dataset[other]['lq'])
    assert not torch.equal(first['lq'], _train(texture_lmdb, seed=1)[EpochIndex.of(1, 3, 0)]['lq'])


@pytest.mark.parametrize('workers', [0, 2])
def test_samples_do_not_depend_on_workers(texture_lmdb, workers):
    dataset = _train(texture_lmdb)
    order = [EpochIndex.of(i % len(dataset), 2, i // len(dataset)) for i in range(8)]
    loader = DataLoader(dataset, batch_size=2, sampler=order, num_workers=workers)
    batches = torch.cat([batch['lq'] for batch in loader])
    for index, lq in zip(order, batches):
        assert torch.equal(dataset[index]['lq'], lq)


def test_the_index_survives_pickling():
    index = pickle.loads(pickle.dumps(EpochIndex.of(3, 7, 2)))
    assert (index, index.epoch, index.draw) == (3, 7, 2)


def test_intervals_and_reversal(texture_lmdb):
    dataset = _train(texture_lmdb, num_frame=3, interval_list=[2], use_hflip=False, use_rot=False, noise=[0, 0])
    assert [center for _, center in dataset.samples] == [2, 3, 4] * 2
    dataset = _train(texture_lmdb, num_frame=3, random_reverse=True, use_hflip=False, use_rot=False, noise=[0, 0])
    assert len(dataset) == 10
    seen = set()
    for epoch in range(12):
        clean = dataset[EpochIndex.of(0, epoch, 0)]['clean']
        # The texture moves by (-1, -2) packed px a frame; backwards in time by (1, 2).
        error = {}
        for direction in (1, -1):
            moved = clean[1].roll((direction, 2 * direction), (1, 2))
            error[direction] = (clean[0] - moved)[:, 4:-4, 4:-4].abs().mean()
        seen.add(min(error, key=error.get))
        assert min(error.values()) < 1e-3 < max(error.values())
    assert seen == {1, -1}


def test_the_test_set_follows_the_protocol(texture_lmdb, textures):
    dataset = build_dataset({'name': 'x', 'type': 'UnprocessedBurstTestDataset', 'dataroot_gt': str(texture_lmdb),
                             'noise': 'low', 'clips': ['b']})
    assert len(dataset) == 7
    assert dataset.data_info['border'] == [1, 1, 0, 0, 0, 1, 1]
    camera = reference_camera()
    linear = [camera.unprocess(to_float(frame)) for frame in textures['b']]
    noise = NoiseModel.of(2.5e-3, 1e-2)
    noisy = [noise.sample_test_frame(mosaic_rgb(image), frame_number=k) for k, image in enumerate(linear, 1)]
    for index, neighbors in ((0, [4, 3, 0, 1, 2]), (3, [1, 2, 3, 4, 5]), (6, [4, 5, 6, 3, 2])):
        sample = dataset[index]
        assert sample['idx'] == f'{index}/7' and sample['folder'] == 'b'
        assert torch.equal(sample['gt'], linear[index])
        for frame, neighbor in zip(sample['lq'], neighbors):
            assert torch.equal(frame[:4], noisy[neighbor])
            assert torch.equal(frame[4:], noise.std(noisy[neighbor]))


def test_a_crop_has_its_own_noise(texture_lmdb):
    crop = _test(texture_lmdb, crop=[10, 20, 32, 40])[3]
    assert crop['lq'].shape == (5, 8, 16, 20)
    whole = _test(texture_lmdb)[3]
    assert torch.equal(crop['gt'], whole['gt'][:, 10:42, 20:60])
    assert not torch.equal(crop['lq'], whole['lq'][..., 5:21, 10:30])


def test_changing_a_sample_does_not_change_the_next_one(texture_lmdb):
    dataset = _test(texture_lmdb)
    first = dataset[2]
    kept = first['lq'].clone(), first['gt'].clone()
    first['lq'].zero_(), first['gt'].zero_()
    again = dataset[2]
    assert torch.equal(again['lq'], kept[0]) and torch.equal(again['gt'], kept[1])


@pytest.mark.parametrize(('options', 'error', 'message'), [
    (dict(num_frame=4), OptionError, 'num_frame: must be odd'),
    (dict(num_frame=9), DataError, 'clip a has 7 frames, a burst of 9 needs 9'),
    (dict(gt_size=33), OptionError, 'gt_size: must be even'),
    (dict(gt_size=100), DataError, 'clip a is 112 x 96, too small: gt_size 100 needs 100 x 100'),
    (dict(interval_list=[]), OptionError, 'interval_list: needs positive distances'),
    (dict(val_partition='REDS5'), OptionError, "did you mean 'REDS4'"),
    (dict(exclude_clips=['c']), DataError, "exclude_clips: 'c' is not in"),
    (dict(clips=['c']), DataError, "clips: 'c' is not in .*; it holds a, b"),
    (dict(exclude_clips=['a', 'b']), DataError, 'no clip of .* is left'),
    (dict(noise='randm'), OptionError, "datasets.train.noise: expected 'random', 'low', 'high', or SHOT,READ .* got 'randm'"),
    (dict(noise=[1]), OptionError, r"noise: expected 'random', .* got \[1\]"),
])
def test_wrong_training_options_are_named(texture_lmdb, options, error, message):
    with pytest.raises(error, match=message):
        _train(texture_lmdb, **options)


@pytest.mark.parametrize(('options', 'error', 'message'), [
    (dict(num_frame=9), DataError, 'clip a has 7 frames, a burst needs 9'),
    (dict(padding='mirror'), OptionError, "padding: 'mirror' is not a valid choice"),
    (dict(crop=[0, 0, 200, 40]), OptionError, 'does not fit into clip a of 112 x 96'),
    (dict(crop=[0, 0, 33, 40]), OptionError, 'even height and width'),
    (dict(noise=[-1, 0]), OptionError, 'noise: shot and read must be in 0 .. 1, got -1 and 0'),
])
def test_wrong_test_options_are_named(texture_lmdb, options, error, message):
    with pytest.raises(error, match=message):
        _test(texture_lmdb, **options)
