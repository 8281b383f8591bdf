import dataclasses
import re

import cv2
import numpy as np
import pytest
import torch

from jddb_plugin.checks import DataError, JDDBError, OptionError
from jddb_plugin.data.raw_reader import RawFrame
from jddb_plugin.ops.bayer import demosaic_bilinear
from jddb_plugin.restoration import Restorer, Settings
from jddb_plugin.restoration.bursts import Burst
from jddb_plugin.restoration.frames import load_frames
from tests.restoration.samples import CAMERA, make_burst, make_mosaics, mosaic_of, save_net, scenes


def _burst(frames):
    """A burst of (mosaic, camera) pairs; notes which frames are read."""
    def read(index):
        asked.append(index)
        mosaic, camera = frames[index]
        return RawFrame(mosaic, camera)

    asked = []
    return Burst('b', 'here', tuple(f'f{index}' for index in range(len(frames))), read), asked


def _load(frames, **options):
    return load_frames(_burst(frames)[0], **{'reference': 'middle', 'count': None, 'noise': 'metadata', **options})


def _pairs(count=3, size=(24, 32), **changes):
    camera = dataclasses.replace(CAMERA, **changes)
    return [(mosaic, camera) for mosaic in make_mosaics(count, size, camera=camera)]


def _other(pairs, index, mosaic=None, **changes):
    """The same with another frame ``index``."""
    old, camera = pairs[index]
    camera = dataclasses.replace(camera, **changes)
    return [*pairs[:index], (old if mosaic is None else mosaic, camera), *pairs[index + 1:]]


def _changed(index, change):
    return lambda: _other(_pairs(), index, change(_pairs()[index][0]))


_MATRIX = ((0.9, -0.2, -0.1), (-0.5, 1.5, 0.1), (-0.1, 0.3, 0.6))
_REFUSED = {
    'no frame': (list, {}, DataError, 'here: is a burst of no frame; expected at least 2'),
    'no frame of one': (list, {'least': 1}, DataError, 'here: is a burst of no frame; expected at least 1'),
    'one frame': (lambda: _pairs(1), {}, DataError, 'here: is a burst of one frame; expected at least 2 of the same scene'),
    'sizes': (_changed(2, lambda m: m[:-2]), {}, DataError, r'here: f2: 32 x 22 samples, but f0 has 32 x 24'),
    'patterns': (lambda: _other(_pairs(), 1, cfa='bggr'), {}, DataError, r'here: f1: pattern bggr .* of f0 \(rggb\)'),
    'cameras': (lambda: _other(_pairs(), 1, color_matrix=_MATRIX), {}, DataError, 'f1: .* must be of one camera'),
    'darker': (_changed(0, lambda m: (m - 60) // 3 + 60), {}, DataError, r'f0: has another exposure: .* the reference f1'),
    'brighter': (_changed(2, lambda m: m * 2), {}, DataError, r'f2: has another exposure: .* the reference f1'),
    'black': (_changed(0, lambda m: m * 0), {}, DataError, 'f0: is a black frame'),
    'below black': (_changed(0, lambda m: m * 0 + 60), {}, DataError, 'f0: is a black frame'),
    'white': (_changed(2, lambda m: m * 0 + 4095), {}, DataError, 'f2: is over-exposed'),
    'no noise profile': (lambda: _other(_pairs(), 1, noise_shot=None, noise_read=None), {}, DataError,
                         'f1: states no noise profile; give --noise'),
    'nothing to estimate': (lambda: [(m * 0 + 2000, c) for m, c in _pairs(2)], {'noise': 'estimate'}, DataError,
                            'here: its noise cannot be estimated'),
    'too small to estimate': (lambda: _pairs(2, (12, 40)), {'noise': 'estimate'}, DataError, 'too small to estimate'),
    'reference too large': (_pairs, {'reference': 3}, OptionError, r'here: --reference 3: the burst has frames 0 .. 2'),
    'reference negative': (_pairs, {'reference': -1}, OptionError, '--reference -1'),
    'too many': (_pairs, {'count': 4}, OptionError, r'--frames 4: expected 2 .. 3'),
    'too few': (_pairs, {'count': 1}, OptionError, r'--frames 1: expected 2 .. 3'),
    'a line': (lambda: [(m[:1], c) for m, c in _pairs()], {}, DataError, 'f0: is too small'),
    'no cell left': (lambda: [(m[:2], c) for m, c in _pairs(cfa='bggr')], {}, DataError, 'f0: is too small'),
    'empty': (lambda: [(m[:0], c) for m, c in _pairs()], {}, DataError, 'f0: is too small'),
}


@pytest.mark.parametrize('case', _REFUSED)
def test_frames_that_cannot_be_used_are_refused_in_one_line(case):
    make, options, kind, message = _REFUSED[case]
    for reference in ('middle', 'sharpest'):
        if reference == 'sharpest' and 'the reference f1' in message:
            continue
        with pytest.raises(kind, match=message) as error:
            _load(make(), **{'reference': reference, **options})
        assert '\n' not in str(error.value)


def test_frames_that_are_not_chosen_may_be_of_another_exposure():
    pairs = _pairs(5)
    pairs[0] = ((pairs[0][0] - 60) // 4 + 60, CAMERA)
    assert _load(pairs, count=3).names == ('f1', 'f2', 'f3')
    with pytest.raises(DataError, match='f0: has another exposure'):
        _load(pairs)


@pytest.mark.parametrize(('reference', 'count', 'names', 'place'), [
    (0, 3, '012', 0), (1, 3, '012', 1), (2, 3, '123', 1), (4, 3, '234', 2), (0, None, '01234', 0),
    (3, 2, '23', 1), (4, 2, '34', 1), (0, 2, '01', 0), (2, 4, '0123', 2), (3, 4, '1234', 2),
    ('middle', 3, '123', 1), ('middle', None, '01234', 2)])
def test_the_frames_nearest_to_the_reference_are_read_and_no_others(reference, count, names, place):
    burst, asked = _burst(_pairs(5))
    frames = load_frames(burst, reference=reference, count=count, noise='metadata')
    assert frames.names == tuple(f'f{n}' for n in names) and frames.numbers == tuple(map(int, names)) == tuple(asked)
    assert frames.ref_idx == place
    for name, mosaic in zip(names, frames.mosaics):
        assert np.array_equal(mosaic.read(0, 24), _pairs(5)[int(name)][0])


def _blurred(index, sharp, count=5, size=(64, 80)):
    """Frames of which those not in ``sharp`` are blurred by motion, each with its noise."""
    rgb = scenes(count, size)[index]
    if index not in sharp:
        rgb = cv2.blur(rgb, (11, 1))
    noise = np.random.default_rng(index).normal(0, 30, size).round()
    return np.clip(mosaic_of(rgb) + noise, 0, 4095).astype(np.uint16)


@pytest.mark.parametrize(('sharp', 'expected'), [((0,), 0), ((4,), 4), ((1, 4), 1), ((0, 3), 3), ((0, 1, 2, 3, 4), 2)])
def test_the_sharpest_frame_is_found_and_of_equal_ones_the_middle_one(sharp, expected):
    pairs = [(_blurred(index, sharp), CAMERA) for index in range(5)]
    frames = _load(pairs, reference='sharpest', count=3)
    assert frames.names[frames.ref_idx] == f'f{expected}' and len(frames.names) == len(frames.sharpness) == 3
    assert max(frames.sharpness) <= 1 and frames.sharpness[frames.ref_idx] > 0.95
    assert _load(pairs, reference=2).sharpness == ()


def test_a_brighter_frame_is_not_sharper():
    pairs = [(_blurred(index, (0,), 2), CAMERA) for index in range(2)]
    pairs[1] = (np.clip((pairs[1][0].astype(float) - 63) * 1.4 + 63, 0, 4095).astype(np.uint16), CAMERA)
    frames = _load(pairs, reference='sharpest')
    assert frames.ref_idx == 0


def test_noise_of_each_frame_or_the_same_for_all():
    pairs = _other(_pairs(3), 2, noise_shot=(4e-3, 3e-3, 2e-3, 1e-3), noise_read=(0.0,) * 4)
    shot, read = _load(pairs).noise
    assert shot[0].tolist() == pytest.approx([1e-3, 2e-3, 3e-3, 4e-3])
    assert shot[2].tolist() == pytest.approx([4e-3, 3e-3, 2e-3, 1e-3])
    assert read[2].tolist() == [0] * 4
    shot, read = _load(pairs, noise=(0.25, 0.5)).noise
    assert shot.shape == read.shape == (3, 4) and shot.unique().tolist() == [0.25] and read.unique().tolist() == [0.5]


@pytest.mark.parametrize('pattern', ['rggb', 'gbrg'])
def test_noise_is_estimated_in_the_order_of_the_planes(pattern):
    camera = dataclasses.replace(CAMERA, cfa=pattern, noise_shot=None, noise_read=None, bits=16, black_level=(1000.,) * 4,
                                 white_level=(61000.,) * 4)
    wanted = {'r': 0.01, 'g': 0.02, 'b': 0.04}
    rng = np.random.default_rng(0)
    std = np.empty((256, 256))
    for place, letter in enumerate(pattern):
        std[place // 2::2, place % 2::2] = 60000 * wanted[letter]
    mosaics = [(mosaic_of(rgb, camera) + rng.normal(0, 1, std.shape) * std).clip(0, 65535).astype(np.uint16)
               for rgb in scenes(2, (256, 256))]
    frames = _load([(mosaic, camera) for mosaic in mosaics], noise='estimate')
    found = frames.noise.planes().std(torch.full((2, 4, 1, 1), 0.3))[0, :, 0, 0]
    assert found.tolist() == pytest.approx([0.01, 0.02, 0.02, 0.04], rel=0.25)


def test_mosaics_go_to_files_when_memory_does_not_suffice(tmp_path):
    burst = make_burst(3, (33, 41))
    small = load_frames(burst, reference=1, count=None, noise='metadata', in_memory=1000, spool=tmp_path)
    large = load_frames(burst, reference=1, count=None, noise='metadata')
    assert [m.bytes_in_memory for m in small.mosaics] == [0] * 3 and not list(tmp_path.iterdir())
    assert all(torch.equal(small.raw(index, 3, 9), large.raw(index, 3, 9)) for index in range(3))
    small.close()


@pytest.fixture(scope='module')
def passthrough(tmp_path_factory):
    """A network that shows the reference as it is."""
    return save_net(tmp_path_factory.mktemp('net') / 'net.pth', num_feat=16, init='passthrough', refined='none', coarse='none')


@pytest.mark.parametrize(('size', 'pattern'), [((41, 53), 'rggb'), ((41, 53), 'grbg'), ((41, 53), 'gbrg'), ((41, 53), 'bggr'),
                                               ((40, 52), 'bggr'), ((40, 53), 'grbg'), ((41, 52), 'gbrg')])
def test_pixels_stay_in_place_and_colors_are_not_swapped(passthrough, size, pattern):
    camera = dataclasses.replace(CAMERA, cfa=pattern, white_balance=(1.0,) * 3, noise_shot=(1e-6,) * 4, noise_read=(1e-3,) * 4)
    rgb = np.empty((*size, 3), np.float32)  # a ramp of each color in a direction of its own
    y, x = np.indices(size)
    rgb[..., 0], rgb[..., 1], rgb[..., 2] = 0.1 + 0.5 * x / size[1], 0.2 + 0.4 * y / size[0], 0.6 - 0.5 * x / size[1]
    burst = Burst.from_arrays([mosaic_of(rgb, camera)] * 2, camera)
    shown = []

    class Watch:
        def start(self, frames, gain):
            self.frames = frames
            packed = frames.raw(frames.ref_idx, 0, frames.packed_size[0])
            self.expected = demosaic_bilinear(packed[None])[0]

        def watch(self, first, linear):
            shown.append(linear.clone())

    watch = Watch()
    settings = Settings(tile=16, overlap=8, coarse='none', format='linear32', reference=0, device='cpu')
    result = Restorer(passthrough, settings).restore(burst, watch=watch, progress=False)
    linear = torch.cat(shown, dim=1)
    # The network as it was made is nearest neighbors and a little noise: ramps come out alike.
    for channel in range(3):
        a, b = linear[channel].flatten(), watch.expected[channel].flatten()
        assert float(torch.corrcoef(torch.stack((a, b)))[0, 1]) > 0.9, channel
    assert result.picture.shape == (*size, 3)
    # Where each pixel of the picture comes from: the edge of a cropped line is repeated, all others lie in place.
    top, left = divmod(pattern.index('r'), 2)
    bottom, right = top + linear.shape[1], left + linear.shape[2]
    picture = result.picture
    inside = camera.camera().develop_linear(linear).permute(1, 2, 0).numpy()
    assert np.abs(picture[top:bottom, left:right] - inside).max() < 1e-6
    padded = np.pad(inside, ((top, size[0] - bottom), (left, size[1] - right), (0, 0)), mode='edge')
    assert np.abs(picture - padded).max() < 1e-6 and size[0] - bottom in (0, 1) and size[1] - right in (0, 1)


def test_the_reader_may_fail_in_the_middle_and_nothing_is_kept(tmp_path):
    burst, asked = _burst(_pairs(3))
    opened = []

    def read(index):
        if index == 2:
            raise DataError('damaged')
        opened.append(index)
        return RawFrame(*_pairs(3)[index])

    with pytest.raises(JDDBError, match='damaged'):
        load_frames(dataclasses.replace(burst, read=read), reference='sharpest', count=2, noise='metadata', in_memory=0,
                    spool=tmp_path)
    assert opened == [0, 1] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(('mosaics', 'changes', 'message'), [
    ([np.zeros((4, 4), np.uint8)], {}, 'frame 0: expected a mosaic .* got uint8'),
    ([np.zeros((4, 4, 3), np.uint16)], {}, re.escape('got uint16 [4, 4, 3]')),
    ([np.full((4, 4), 4096, np.uint16)], {}, 'up to 4096'),
    ([], {'cfa': 'rgbg'}, 'burst: metadata field cfa'),
    ([], {'white_balance': (1e-300, 1.0, 1.0)}, 'white_balance'),
    ([], {'color_matrix': ((1, -0.9505, 0), (0, 1, 0), (0, 0, 1))}, 'color_matrix: .* white positive')])
def test_arrays_that_are_no_mosaics_are_refused(mosaics, changes, message):
    with pytest.raises(DataError, match=message):
        Burst.from_arrays(mosaics, dataclasses.replace(CAMERA, **changes))


def test_noise_beyond_all_training_is_told(caplog):
    _load(_pairs(), noise=(0.03, 0.09)).close()
    assert not caplog.text
    _load(_pairs(), noise=(0.01, 0.5)).close()
    assert 'here: noise of shot 0.01 and read 0.5 is far stronger than what networks are trained with' in caplog.text
