"""Samples of every data set do not change from version to version: a resumed training sees the data that it would have seen.

A checksum holds all bits where the libraries are those that it was recorded with; some values with a tolerance hold it elsewhere,
since a change of the order of random draws changes all of them.
"""
import platform
import zlib

import cv2
import numpy as np
import pytest
import torch

from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.data.metadata import CameraMetadata
from jddb_plugin.data.moving_photograph_dataset import MovingPhotographDataset
from jddb_plugin.data.raw_burst_dataset import RawBurstDataset, RawBurstTestDataset
from jddb_plugin.data.unprocessed_burst_dataset import UnprocessedBurstDataset, UnprocessedBurstTestDataset
from jddb_plugin.runtime.data_position import EpochIndex

_RECORDED_WITH = '2.14.1+cu130-2.4.6-5.0.0-x86_64-AVX512'
#: Data set, options, epoch and index -> checksum, and mean of every tensor.
_EXPECTED: dict[str, tuple[int, dict[str, float]]] = {
    'moving aligned 0/0': (0x3234f452, {'blue_gain': 1.8878628, 'cam2rgb': 0.33333334, 'gt': 0.10759328,
        'lq': 0.071710736, 'red_gain': 2.3300397, 'rgb_gain': 1.3173063}),
    'moving aligned 0/1': (0x0254a57d, {'blue_gain': 1.5932003, 'cam2rgb': 0.33333334, 'gt': 0.14929951,
        'lq': 0.086927896, 'red_gain': 2.1719978, 'rgb_gain': 1.0796114}),
    'moving aligned 0/7': (0x39d916d6, {'blue_gain': 1.8876956, 'cam2rgb': 0.33333334, 'gt': 0.12209892,
        'lq': 0.083502857, 'red_gain': 2.0608687, 'rgb_gain': 1.2054348}),
    'moving aligned 5/4': (0xdfe0d6e1, {'blue_gain': 1.8515699, 'cam2rgb': 0.33333333, 'gt': 0.14513511,
        'lq': 0.089005628, 'red_gain': 2.0367513, 'rgb_gain': 1.2380838}),
    'moving unaligned 0/2': (0xce1e5168, {'blue_gain': 1.7632461, 'cam2rgb': 0.33333332, 'clean': 0.093586537,
        'gt': 0.10341971, 'lq': 0.062967238, 'red_gain': 2.2881408, 'rgb_gain': 1.3911184}),
    'moving unaligned 0/5': (0xb1f76174, {'blue_gain': 1.6520536, 'cam2rgb': 0.33333333, 'clean': 0.095578544,
        'gt': 0.08619371, 'lq': 0.063404162, 'red_gain': 2.1710613, 'rgb_gain': 1.6755968}),
    'unprocessed 0/0': (0x5a3b148a, {'blue_gain': 1.7243599, 'cam2rgb': 0.33333334, 'clean': 0.17499698,
        'gt': 0.15923119, 'lq': 0.10410205, 'red_gain': 2.307312, 'rgb_gain': 1.0323833}),
    'unprocessed 0/3': (0x9c7f57b9, {'blue_gain': 1.8252527, 'cam2rgb': 0.33333334, 'clean': 0.16263071,
        'gt': 0.13672848, 'lq': 0.087346309, 'red_gain': 2.1952088, 'rgb_gain': 1.1404818}),
    'unprocessed 2/1': (0x3f0431f3, {'blue_gain': 1.822094, 'cam2rgb': 0.33333333, 'clean': 0.14063702,
        'gt': 0.12216846, 'lq': 0.080229601, 'red_gain': 2.3554873, 'rgb_gain': 1.2446989}),
    'unprocessed tile 0/1': (0x6f51ef14, {'blue_gain': 1.7881625, 'cam2rgb': 0.33333333, 'clean': 0.14584909,
        'gt': 0.12898406, 'lq': 0.083384771, 'positions': 12.0, 'red_gain': 1.9534945, 'rgb_gain': 1.2350498}),
    'unprocessed device 0/1': (0x272a9f49, {'blue_gain': 1.5427957, 'cam2rgb': 0.33333333, 'read': 0.0044246758,
        'red_gain': 2.0690274, 'rgb_gain': 1.3699996, 'seed': 7.588686e+17, 'shot': 0.0027593845, 'srgb': 128.81704}),
    'unprocessed test 0/0': (0xf4be0359, {'blue_gain': 1.7, 'cam2rgb': 0.33333333, 'gt': 0.16618654,
        'lq': 0.11000557, 'red_gain': 2.0, 'rgb_gain': 1.0}),
    'unprocessed test 0/8': (0x3662bf2f, {'blue_gain': 1.7, 'cam2rgb': 0.33333333, 'gt': 0.16501028,
        'lq': 0.11289053, 'red_gain': 2.0, 'rgb_gain': 1.0}),
    'raw metadata 0/0': (0x6d1ca571, {'blue_gain': 1.5, 'cam2rgb': 0.33333333, 'gt': 0.48863401, 'lq': 0.25355725,
        'red_gain': 2.0, 'rgb_gain': 1.0}),
    'raw metadata 0/1': (0xa9403ca6, {'blue_gain': 1.5, 'cam2rgb': 0.33333333, 'gt': 0.49781655, 'lq': 0.26148367,
        'red_gain': 2.0, 'rgb_gain': 1.0}),
    'raw estimate 0/0': (0x37d6eb3d, {'blue_gain': 1.5, 'cam2rgb': 0.33333333, 'gt': 0.48863401, 'lq': 0.2470625,
        'red_gain': 2.0, 'rgb_gain': 1.0}),
    'raw estimate 0/1': (0xcd02feec, {'blue_gain': 1.5, 'cam2rgb': 0.33333333, 'gt': 0.49781655, 'lq': 0.25353614,
        'red_gain': 2.0, 'rgb_gain': 1.0}),
    'raw [0.002, 0.01] 0/0': (0xcd0e7b8d, {'blue_gain': 1.5, 'cam2rgb': 0.33333333, 'gt': 0.48863401,
        'lq': 0.24866606, 'red_gain': 2.0, 'rgb_gain': 1.0}),
    'raw [0.002, 0.01] 0/1': (0x281dff19, {'blue_gain': 1.5, 'cam2rgb': 0.33333333, 'gt': 0.49781655,
        'lq': 0.25660791, 'red_gain': 2.0, 'rgb_gain': 1.0}),
    'raw test 0/0': (0x6671653f, {'blue_gain': 1.5, 'cam2rgb': 0.33333333, 'gt': 0.51516447, 'lq': 0.2612614,
        'red_gain': 2.0, 'rgb_gain': 1.0}),
    'raw test 0/3': (0xb4173588, {'blue_gain': 1.5, 'cam2rgb': 0.33333333, 'gt': 0.50393211, 'lq': 0.26276291,
        'red_gain': 2.0, 'rgb_gain': 1.0}),
    'raw test without truth 0/0': (0x06ebedac, {'blue_gain': 1.5, 'cam2rgb': 0.33333333, 'lq': 0.25708783,
        'red_gain': 2.0, 'rgb_gain': 1.0}),
}


def _environment():
    return '-'.join((torch.__version__, np.__version__, cv2.__version__, platform.machine(),
                     torch.backends.cpu.get_cpu_capability()))


def _pictures(seed, count, size):
    """Smooth random pictures [H, W, 3], uint8, that depend on numpy's generator alone."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        coarse = rng.integers(0, 256, (size[0] // 8 + 2, size[1] // 8 + 2, 3))
        image = np.kron(coarse, np.ones((8, 8, 1), int))[:size[0] + 8, :size[1] + 8]
        image = (image[:-8, :-8] + image[8:, :-8] + image[:-8, 8:] + image[8:, 8:]) // 4
        yield (image + rng.integers(-9, 10, image.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """photographs/, srgb.lmdb, raw.lmdb and gt.lmdb."""
    root = tmp_path_factory.mktemp('samples')
    (root / 'photographs').mkdir()
    for index, image in enumerate(_pictures(1, 3, (240, 264))):
        cv2.imwrite(str(root / 'photographs' / f'{index}.png'), image)
    with BurstLmdbWriter(str(root / 'srgb.lmdb')) as writer:
        for clip in ('a', 'b'):
            for index, image in enumerate(_pictures(len(clip) + ord(clip), 6, (96, 112))):
                writer.put_image(clip, index, image)
    metadata = CameraMetadata(
        cfa='grbg', bits=12, black_level=(64.0, 60.0, 66.0, 70.0), white_level=(4000.0, 4010.0, 4020.0, 4030.0),
        white_balance=(2.2, 1.1, 1.65), noise_shot=(1e-3, 2e-3, 3e-3, 4e-3), noise_read=(0.01, 0.02, 0.03, 0.04),
        color_matrix=((1.0234, -0.2969, -0.2266), (-0.5625, 1.6328, -0.0469), (-0.0703, 0.2188, 0.6406)), source='test')
    with BurstLmdbWriter(str(root / 'raw.lmdb')) as raw, BurstLmdbWriter(str(root / 'gt.lmdb')) as truth:
        for index, image in enumerate(_pictures(7, 6, (75, 94))):
            raw.put_image('clip', index, (image[..., 1].astype(np.uint16) << 4) + 15)
            truth.put_image('clip', index, image.astype(np.uint16) << 8)
        raw.put_metadata('clip', metadata)
    return root


def _samples(root):
    photographs, srgb = str(root / 'photographs'), str(root / 'srgb.lmdb')
    raw = {'dataroot_lq': str(root / 'raw.lmdb')}
    truth = {**raw, 'dataroot_gt': str(root / 'gt.lmdb')}
    moving = {'dataroot_gt': photographs, 'gt_size': 48, 'seed': 3}
    train = {'dataroot_gt': srgb, 'gt_size': 64, 'seed': 3, 'interval_list': [1], 'random_reverse': True}
    yield 'moving aligned', MovingPhotographDataset(moving), (0, 1, 7, EpochIndex.of(4, 5, 0))
    yield 'moving unaligned', MovingPhotographDataset({**moving, 'aligned': False, 'speed': 9.0, 'noise': 'high'}), (2, 5)
    yield 'unprocessed', UnprocessedBurstDataset(train), (0, 3, EpochIndex.of(1, 2, 0))
    yield 'unprocessed tile', UnprocessedBurstDataset({**train, 'tile': 8, 'reach': 8, 'noise': 'low'}), (1,)
    yield 'unprocessed device', UnprocessedBurstDataset({**train, 'synthesis': 'device'}), (1,)
    yield 'unprocessed test', UnprocessedBurstTestDataset({'name': 'x', 'dataroot_gt': srgb, 'noise': 'high'}), (0, 8)
    for noise in ('metadata', 'estimate', [0.002, 0.01]):
        yield f'raw {noise}', RawBurstDataset({**truth, 'gt_size': 48, 'noise': noise, 'seed': 3}), (0, 1)
    yield 'raw test', RawBurstTestDataset({'name': 'x', **truth}), (0, 3)
    yield 'raw test without truth', RawBurstTestDataset({'name': 'x', **raw, 'num_frame': 3, 'references': 'middle'}), (0,)


def _tensors(sample):
    """Tensors of a sample by name, those of the camera and the noise by their own."""
    for key, value in sample.items():
        if isinstance(value, tuple):
            yield from value._asdict().items()
        elif torch.is_tensor(value):
            yield key, value


def _fingerprint(sample, names):
    checksum, means = 0, {}
    for key, value in sorted(_tensors(sample)):
        if key in names:
            value = value.contiguous()
            checksum = zlib.crc32(f'{key} {value.dtype} {list(value.shape)}'.encode() + value.numpy().tobytes(), checksum)
            means[key] = float(value.double().mean())
    return checksum, means


def test_samples_are_what_they_were(folder):
    found = {f'{name} {getattr(index, "epoch", 0)}/{int(index)}': data[index]
             for name, data, indices in _samples(folder) for index in indices}
    assert found.keys() == _EXPECTED.keys()
    for name, (checksum, means) in _EXPECTED.items():
        now, values = _fingerprint(found[name], means)
        assert values == pytest.approx(means, rel=2e-4), name
        if _environment() == _RECORDED_WITH:
            assert now == checksum, f'{name}: equal but for rounding'
