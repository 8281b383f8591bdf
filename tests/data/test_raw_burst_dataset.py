"""Real mosaics as bursts: levels, patterns, noise and ground truth."""
import shutil

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.build import build
from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.data.frame_source import FrameSource
from jddb_plugin.data.metadata import CFA_PATTERNS, CameraMetadata
from jddb_plugin.data.raw_burst_dataset import RawBurstDataset, RawBurstTestDataset
from jddb_plugin.data.source_clips import find_clips
from jddb_plugin.data.verify import verify
from jddb_plugin.ops.bayer import mosaic_rgb, unpack
from jddb_plugin.ops.camera import reference_camera
from jddb_plugin.ops.cfa import restore_frame
from jddb_plugin.runtime.data_position import EpochIndex

BLACK, WHITE = (64.0, 60.0, 66.0, 70.0), (1000.0, 1010.0, 1020.0, 990.0)
NOISE = dict(noise_shot=(1e-3, 2e-3, 3e-3, 4e-3), noise_read=(0.01, 0.02, 0.03, 0.04))


def _metadata(cfa, **changes):
    values = dict(cfa=cfa, bits=10, black_level=BLACK, white_level=WHITE, white_balance=(2.2, 1.1, 1.65),
                  color_matrix=((1.0234, -0.2969, -0.2266), (-0.5625, 1.6328, -0.0469), (-0.0703, 0.2188, 0.6406)), source='test')
    return CameraMetadata(**{**values, **NOISE, **changes})


def _scene(frames=6, height=50, width=62):
    """Linear camera RGB [N, H, W, 3] in 16 bits, so that mosaics of 10 bits come close to it."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 65536, (frames, height, width, 3), np.uint16)


def _sample(rgb, cfa):
    """Mosaic in sample values of 10 bits; each position of the cell has its own levels."""
    mosaic = np.zeros(rgb.shape[:2])
    for position, color in enumerate(cfa):
        y, x = divmod(position, 2)
        values = rgb[y::2, x::2, 'rgb'.index(color)] / 65535
        mosaic[y::2, x::2] = values * (WHITE[position] - BLACK[position]) + BLACK[position]
    return mosaic.round().astype(np.uint16)


@pytest.fixture(params=CFA_PATTERNS)
def camera(request, tmp_path):
    """(options of a data set, scene, pattern): an LMDB of mosaics, and its truth."""
    scene = _scene()
    with BurstLmdbWriter(str(tmp_path / 'raw.lmdb')) as raw, BurstLmdbWriter(str(tmp_path / 'gt.lmdb')) as truth:
        for index, frame in enumerate(scene):
            raw.put_image('clip', index, _sample(frame, request.param))
            truth.put_image('clip', index, frame)
        raw.put_metadata('clip', _metadata(request.param))
    opt = {'name': 'x', 'dataroot_lq': str(tmp_path / 'raw.lmdb'), 'dataroot_gt': str(tmp_path / 'gt.lmdb')}
    return opt, scene, request.param


def test_samples_are_normalized_in_phase(camera):
    opt, scene, cfa = camera
    dataset = build_dataset({**opt, 'type': 'RawBurstTestDataset', 'phase': 'test'})
    assert len(dataset) == 6 and dataset.data_info['border'] == [1, 1, 0, 0, 1, 1]
    sample = dataset[2]
    assert sample['folder'] == 'clip' and sample['idx'] == '2/6' and sample['lq_path'] == 'clip/00000002'
    expected = mosaic_rgb(sample['gt'])
    assert sample['lq'].shape == (5, 8, *expected.shape[-2:])
    torch.testing.assert_close(sample['lq'][2, :4], expected, rtol=0, atol=0.7 / 900)  # half a step of 10 bits
    y, x = divmod(cfa.index('r'), 2)
    height, width = sample['gt'].shape[-2:]
    assert np.array_equal((sample['gt'] * 65535).round().permute(1, 2, 0).numpy(), scene[2][y:y + height, x:x + width])
    # The noise map of each plane has the profile of its own place in the cell.
    order = [2 * ((i + y) % 2) + (j + x) % 2 for i in (0, 1) for j in (0, 1)]
    for plane, position in enumerate(order):
        std = (NOISE['noise_shot'][position] * sample['lq'][0, plane] + NOISE['noise_read'][position] ** 2).sqrt()
        torch.testing.assert_close(sample['lq'][0, 4 + plane], std)
    assert sample['camera'].red_gain.item() == pytest.approx(2.0) and sample['camera'].blue_gain.item() == pytest.approx(1.5)
    torch.testing.assert_close(sample['camera'].cam2rgb, reference_camera().cam2rgb)


def test_training_samples_stay_in_phase_through_flips(camera):
    opt, _, _ = camera
    dataset = RawBurstDataset({**opt, 'gt_size': 24, 'interval_list': [1], 'num_frame': 3})
    seen = set()
    for epoch in range(30):
        sample = dataset[EpochIndex.of(epoch % len(dataset), epoch, 0)]
        assert sample['lq'].shape == (3, 8, 12, 12) and sample['gt'].shape == (3, 24, 24)
        torch.testing.assert_close(sample['lq'][1, :4], mosaic_rgb(sample['gt']), rtol=0, atol=0.7 / 900)
        seen.add(tuple(sample['gt'].flatten()[:3].tolist()))
    assert len(seen) > 20
    again = dataset[EpochIndex.of(1, 3, 0)]
    assert torch.equal(again['lq'], dataset[EpochIndex.of(1, 3, 0)]['lq'])


def test_temporal_options(tmp_path, camera):
    opt, scene, _ = camera
    dataset = RawBurstDataset({**opt, 'gt_size': 24, 'num_frame': 4, 'ref_idx': 1, 'interval_list': [1], 'use_hflip': False,
                               'use_rot': False})
    assert [reference for _, reference in dataset.samples] == [1, 2, 3]
    reverse = RawBurstDataset({**opt, 'gt_size': 24, 'num_frame': 4, 'ref_idx': 1, 'interval_list': [1], 'random_reverse': True})
    assert [reference for _, reference in reverse.samples] == [1, 2, 3, 4]
    with pytest.raises(OptionError, match='num_frame: must be odd .* unless ref_idx is given, got 4'):
        RawBurstDataset({**opt, 'num_frame': 4})
    with pytest.raises(OptionError, match=r'ref_idx: expected 0 .. 4, got 5'):
        RawBurstDataset({**opt, 'ref_idx': 5})
    with pytest.raises(DataError, match='clip clip has 6 frames, a burst of 5 needs 9'):
        RawBurstDataset({**opt, 'gt_size': 24, 'interval_list': [2]})
    middle = RawBurstTestDataset({**opt, 'references': 'middle'})
    assert len(middle) == 1 and middle.data_info['border'] == [0] and middle[0]['lq_path'] == 'clip/00000002'


def test_noise_is_never_assumed(tmp_path):
    path = tmp_path / 'raw.lmdb'
    rng = np.random.default_rng(1)
    with BurstLmdbWriter(str(path)) as writer:
        for index in range(5):
            light = np.linspace(0.1, 0.9, 96)[None] + np.zeros((96, 1))
            noisy = light + rng.normal(size=light.shape) * np.sqrt(2e-3 * light + 0.01 ** 2)
            writer.put_image('clip', index, (noisy.clip(0, 1) * 900 + 64).round().astype(np.uint16))
        levels = dict(black_level=(64,) * 4, white_level=(964,) * 4)
        writer.put_metadata('clip', _metadata('rggb', **levels, noise_shot=None, noise_read=None))
    opt = {'name': 'x', 'dataroot_lq': str(path)}
    with pytest.raises(DataError, match=r'its metadata holds no noise profile; give noise: \[shot, read\], or noise: est'):
        RawBurstTestDataset(opt)
    given = RawBurstTestDataset({**opt, 'noise': [2e-3, 0.01]})[2]
    estimated = RawBurstTestDataset({**opt, 'noise': 'estimate'})[2]
    assert 'gt' not in given
    ratio = estimated['lq'][:, 4:].mean() / given['lq'][:, 4:].mean()
    assert 0.8 < ratio < 1.2
    for bad, message in (([0.1], "expected 'metadata', 'estimate', 'low', 'high', or SHOT,READ"), ('auto', "got 'auto'"),
                         ([2, 0], 'in 0 .. 1')):
        with pytest.raises(OptionError, match=message):
            RawBurstTestDataset({**opt, 'noise': bad})


def test_truth_must_fit(camera, tmp_path):
    opt, scene, _ = camera
    with BurstLmdbWriter(str(tmp_path / 'short.lmdb')) as writer:
        writer.put_image('clip', 0, scene[0])
    with pytest.raises(DataError, match=r'expected 6 frames of 62 x 50, as in .*raw.lmdb, found 1 of 62 x 50'):
        RawBurstTestDataset({**opt, 'dataroot_gt': str(tmp_path / 'short.lmdb')})
    with pytest.raises(DataError, match='holds Bayer mosaics, but sRGB frames are expected'):
        RawBurstTestDataset({**opt, 'dataroot_gt': opt['dataroot_lq']})
    with pytest.raises(OptionError, match='datasets.train.dataroot_gt: is missing'):
        RawBurstDataset({key: value for key, value in opt.items() if key != 'dataroot_gt'})
    with pytest.raises(DataError, match='gt_size 50 needs 53 x 53'):
        RawBurstDataset({**opt, 'gt_size': 50})


def _build(source, target, workers=0):
    build(find_clips(source), str(target), workers=workers)
    summary, problems = verify(target, workers=workers)
    assert not problems and 'sound' in summary
    return FrameSource(str(target), {'type': 'lmdb'}, 'test', frames='mosaic')


@pytest.mark.parametrize('bits', [10, 12, 14, 16])
@pytest.mark.parametrize('cfa', CFA_PATTERNS)
def test_files_to_data_set_and_back_onto_the_frame(tmp_path, cfa, bits):
    """TIFF mosaics -> builder -> data set: every sample, in its place, for all patterns and depths."""
    folder = tmp_path / 'in' / 'clip'
    folder.mkdir(parents=True)
    rng = np.random.default_rng(bits)
    frames = [rng.integers(0, 2 ** bits, (20, 26), np.uint16) for _ in range(3)]
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f'{index}.tiff'), frame)
    metadata = _metadata(cfa, bits=bits, black_level=(0.0,) * 4, white_level=(2.0 ** bits - 1,) * 4)
    (folder / 'metadata.json').write_text(metadata.to_json())
    source = _build(tmp_path / 'in', tmp_path / 'x.lmdb', workers=int((cfa, bits) == ('gbrg', 12)))
    for index, frame in enumerate(frames):
        assert np.array_equal(source.read(source.clips['clip'], index), frame)
    dataset = RawBurstTestDataset({'name': 'x', 'dataroot_lq': str(tmp_path / 'x.lmdb'), 'num_frame': 3})
    mosaic = unpack(dataset[1]['lq'][1, :4]) * (2 ** bits - 1)
    back = restore_frame(mosaic, divmod(cfa.index('r'), 2), (20, 26))
    inside = (slice(1, 19), slice(1, 25))
    assert np.array_equal(back.round().numpy()[inside].astype(np.uint16), frames[1][inside])


def test_a_real_burst_and_a_real_camera_file_become_pictures(shared, tmp_path):
    for index in range(5):
        target = tmp_path / 'in' / 'burst' / f'{index}.tiff'
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shared(f'raw/hdrplus_burst/{index}.tiff'), target)
    # As shared/raw says: grbg, black and gains applied already, nothing known of its noise.
    (tmp_path / 'in' / 'burst' / 'metadata.json').write_text(_metadata(
        'grbg', bits=16, black_level=(0.0,) * 4, white_level=(65535.0,) * 4, white_balance=(1.0, 1.0, 1.0), noise_shot=None,
        noise_read=None).to_json())
    (tmp_path / 'in' / 'chart').mkdir()
    shutil.copy(shared('raw/dng/colorchart.dng'), tmp_path / 'in' / 'chart')
    source = _build(tmp_path / 'in', tmp_path / 'x.lmdb')
    opt = {'name': 'x', 'dataroot_lq': str(tmp_path / 'x.lmdb'), 'clips': ['burst'], 'references': 'middle'}
    with pytest.raises(DataError, match='holds no noise profile'):
        RawBurstTestDataset(opt)
    sample = RawBurstTestDataset({**opt, 'noise': 'estimate'})[0]
    assert sample['lq'].shape == (5, 8, 500, 499)
    assert 0.005 < sample['lq'][2, 5:7].median() < 0.03  # the source states 0.015 for its greens
    clip = source.clips['chart']
    picture = source.metadata(clip).preview(torch.from_numpy(source.read(clip, 0).astype('float32')))
    assert picture.shape == (3, 1156, 1734)
    # The chart's lower half: gray patches from white to black, in the warm light that falls on them; red, green, blue.
    def patch(y, x):
        return picture[:, y - 15:y + 15, x - 15:x + 15].mean(dim=(1, 2)).tolist()

    grays = [sum(patch(930, x)) for x in (702, 814, 926, 1038, 1150, 1262)]
    assert grays == sorted(grays, reverse=True) and grays[0] > 5 * grays[-1]
    for x, strongest in ((926, 0), (814, 1), (708, 2)):
        color = patch(822, x)
        assert color.index(max(color)) == strongest
