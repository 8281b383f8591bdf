import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest

from jddb_plugin.checks import DataError
from jddb_plugin.data.metadata import CFA_PATTERNS, CameraMetadata
from jddb_plugin.data.raw_reader import list_raw_files, read_raw

CAMERA = CameraMetadata(
    cfa='grbg', bits=12, black_level=(64., 64., 65., 63.), white_level=(4095.,) * 4, white_balance=(2., 1., 1.5),
    color_matrix=((1.0234, -0.2969, -0.2266), (-0.5625, 1.6328, -0.0469), (-0.0703, 0.2188, 0.6406)), source='a phone')
MATRIX_1 = (6461, -1164, -857, -3825, 11597, 2534, -416, 1540, 6039)
MATRIX_2 = (10234, -2969, -2266, -5625, 16328, -469, -703, 2188, 6406)
NOISE = (1e-4, 1e-6, 2e-4, 4e-6, 3e-4, 9e-6)  # pairs of red, green, blue


def rationals(values):
    return tuple(number for value in values for number in (value, 10000))


def write_dng(path, *, cell='rggb', dim=(2, 2), noise=NOISE, orientation=1, active=None, samples=None, matrices=True,
              black=(100, 101, 102, 103)):
    """A small DNG of one directory; returns its mosaic [64, 96]."""
    tifffile = pytest.importorskip('tifffile')
    pytest.importorskip('rawpy')
    mosaic = np.random.default_rng(0).integers(90, 4000, (64, 96)).astype(np.uint16) if samples is None else samples
    tags = [
        (33421, 3, 2, dim, True), (33422, 1, dim[0] * dim[1], bytes('rgb'.index(letter) for letter in cell), True),
        (50706, 1, 4, bytes((1, 4, 0, 0)), True), (50707, 1, 4, bytes((1, 1, 0, 0)), True), (50708, 2, 0, 'Test', True),
        (271, 2, 0, 'Test', True), (272, 2, 0, 'Test', True), (274, 3, 1, orientation, True),
        (50713, 3, 2, (2, 2), True), (50714, 3, 4, black, True), (50717, 4, 1, 4000, True),
        (50728, 5, 3, rationals((5000, 10000, 6250)), True)]
    if matrices:
        tags += [(50721, 10, 9, rationals(MATRIX_1), True), (50722, 10, 9, rationals(MATRIX_2), True),
                 (50778, 3, 1, 17, True), (50779, 3, 1, 21, True)]
    if noise is not None:
        tags.append((51041, 12, len(noise), noise, True))
    if active is not None:
        tags.append((50829, 4, 4, active, True))
    photometric = 32803 if mosaic.ndim == 2 else 34892
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(mosaic, photometric=photometric, extratags=tags[2 * (mosaic.ndim == 3):], metadata=None, software=False)
    return mosaic


@pytest.mark.parametrize('cell', CFA_PATTERNS)
def test_dng_of_every_pattern(tmp_path, cell):
    mosaic = write_dng(tmp_path / 'a.dng', cell=cell)
    frame = read_raw(tmp_path / 'a.dng')
    assert frame.mosaic.dtype == np.uint16 and np.array_equal(frame.mosaic, mosaic)
    meta = frame.metadata
    assert (meta.cfa, meta.bits, meta.source, meta.orientation) == (cell, 12, 'a.dng', 1)
    assert meta.black_level == (100, 101, 102, 103) and meta.white_level == (4000,) * 4  # by position, not by color
    assert meta.white_balance == pytest.approx((2, 1, 1.6))
    assert np.allclose(meta.color_matrix, np.reshape(MATRIX_2, (3, 3)) / 1e4)  # that of D65
    at = ['rgb'.index(letter) for letter in cell]
    assert meta.noise_shot == pytest.approx([(1e-4, 2e-4, 3e-4)[color] for color in at])
    assert meta.noise_read == pytest.approx([(1e-3, 2e-3, 3e-3)[color] for color in at])


@pytest.mark.parametrize(('top', 'left'), [(4, 8), (4, 7), (5, 8), (5, 7)])
def test_dng_with_margins_has_the_pattern_of_its_visible_area(tmp_path, top, left):
    # A DNG's pattern and levels start at the active area; LibRaw may leave out a line of it at an odd margin.
    mosaic = write_dng(tmp_path / 'a.dng', cell='rggb', active=(top, left, 60, 91))
    frame = read_raw(tmp_path / 'a.dng')
    height, width = frame.mosaic.shape
    assert np.array_equal(frame.mosaic, mosaic[60 - height:60, 91 - width:91])
    y, x = 60 - height - top, 91 - width - left
    assert y in (0, 1) and x in (0, 1)
    order = [2 * ((i + y) % 2) + (j + x) % 2 for i in (0, 1) for j in (0, 1)]
    assert frame.metadata.cfa == ''.join('rggb'[k] for k in order)
    assert frame.metadata.black_level == tuple(100 + k for k in order)
    assert frame.metadata.noise_shot == pytest.approx([(1e-4, 2e-4, 2e-4, 3e-4)[k] for k in order])


@pytest.mark.parametrize('orientation', range(1, 9))
def test_dng_orientation(tmp_path, orientation):
    mosaic = write_dng(tmp_path / 'a.dng', orientation=orientation)
    frame = read_raw(tmp_path / 'a.dng')
    assert frame.metadata.orientation == orientation and np.array_equal(frame.mosaic, mosaic)


def test_dng_noise_for_all_planes_or_none(tmp_path):
    write_dng(tmp_path / 'a.dng', noise=(1e-3, -1e-9))
    assert read_raw(tmp_path / 'a.dng').metadata.noise_shot == pytest.approx((1e-3,) * 4)
    assert read_raw(tmp_path / 'a.dng').metadata.noise_read == (0,) * 4
    write_dng(tmp_path / 'b.dng', noise=None)
    assert read_raw(tmp_path / 'b.dng').metadata.noise_shot is None


def test_samples_above_white_stay_within_the_bits(tmp_path):
    write_dng(tmp_path / 'a.dng', samples=np.full((64, 96), 9000, np.uint16))
    assert read_raw(tmp_path / 'a.dng').mosaic.max() == 4095


@pytest.mark.parametrize(('arguments', 'message'), [
    ({'cell': 'rrggrrggggbbggbb', 'dim': (4, 4)}, 'Quad-Bayer'),
    ({'cell': 'ggrggbggbggrbrgrbgggbggrggrggbrbgbrg', 'dim': (6, 6)}, 'X-Trans'),
    ({'cell': 'rgbg'}, 'not a Bayer pattern'),
    ({'samples': np.zeros((64, 96, 3), np.uint16)}, 'no mosaic|LibRaw cannot read it'),  # as tifffile writes it
    ({'matrices': False}, 'no color matrix')])
def test_dng_that_cannot_be_used_is_refused_in_one_line(tmp_path, arguments, message):
    write_dng(tmp_path / 'a.dng', **arguments)
    with pytest.raises(DataError, match=message) as error:
        read_raw(tmp_path / 'a.dng')
    assert 'a.dng: ' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('content', [b'', b'not a raw file' * 100])
def test_damaged_dng_is_refused(tmp_path, content):
    pytest.importorskip('rawpy')
    (tmp_path / 'a.dng').write_bytes(content)
    with pytest.raises(DataError, match='a.dng: LibRaw cannot read it'):
        read_raw(tmp_path / 'a.dng')


@pytest.mark.parametrize('share', [0.02, 0.3, 0.6, 0.95])
def test_cut_off_dng_is_refused(tmp_path, share):
    write_dng(tmp_path / 'a.dng')
    content = (tmp_path / 'a.dng').read_bytes()
    (tmp_path / 'a.dng').write_bytes(content[:int(share * len(content))])
    with pytest.raises(DataError, match='a.dng: '):
        read_raw(tmp_path / 'a.dng')


def test_a_camera_file(shared):
    pytest.importorskip('rawpy')
    frame = read_raw(shared('raw/dng/colorchart.dng'))
    assert frame.mosaic.shape == (1156, 1734)
    meta = frame.metadata
    assert (meta.cfa, meta.bits, meta.black_level, meta.white_level) == ('rggb', 14, (2056,) * 4, (15000,) * 4)
    assert meta.white_balance == pytest.approx((2.477, 1, 2.477 / 1.462))
    assert meta.color_matrix[0] == pytest.approx((0.6461, -0.1164, -0.0857))
    assert meta.noise_shot is None and meta.orientation == 1


def test_a_folder_of_tiffs_with_shared_metadata(shared, tmp_path):
    for name in (4, 0, 2):
        shutil.copy(shared(f'raw/hdrplus_burst/{name}.tiff'), tmp_path / f'{name * 5}.tiff')
    burst = dataclasses.replace(CAMERA, bits=16, black_level=(0.,) * 4, white_level=(65535.,) * 4)
    (tmp_path / 'metadata.json').write_text(burst.to_json())
    files = list_raw_files(tmp_path)
    assert [file.name for file in files] == ['0.tiff', '10.tiff', '20.tiff']
    frame = read_raw(files[0])
    assert frame.metadata == burst
    assert frame.mosaic.shape == (1000, 1000) and frame.mosaic.dtype == np.uint16
    assert np.array_equal(frame.mosaic, cv2.imread(str(files[0]), cv2.IMREAD_UNCHANGED))


@pytest.mark.parametrize('kind', [np.uint8, np.uint16, np.float32])
def test_tiff_samples_are_kept(tmp_path, kind):
    samples = np.random.default_rng(0).integers(0, 256 if kind is np.uint8 else 4096, (6, 8)).astype(kind)
    cv2.imwrite(str(tmp_path / 'a.tif'), samples)
    (tmp_path / 'a.json').write_text(CAMERA.to_json())
    (tmp_path / 'metadata.json').write_text('not used')
    frame = read_raw(tmp_path / 'a.tif', cfa='grbg')
    assert frame.mosaic.dtype == np.uint16 and np.array_equal(frame.mosaic, samples)
    assert frame.metadata == CAMERA


def test_tiff_without_metadata_says_what_to_write(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.tif'), np.zeros((4, 4), np.uint16))
    with pytest.raises(DataError, match='write .*a.json or .*metadata.json with the fields cfa, bits, black_level, '
                                        'white_level, white_balance, color_matrix'):
        read_raw(tmp_path / 'a.tif')


@pytest.mark.parametrize(('samples', 'message'), [
    (np.full((4, 4), 0.5, np.float32), 'whole numbers'), (np.full((4, 4), np.nan, np.float32), 'NaN'),
    (np.full((4, 4), -1, np.float32), r'0 .. 4095'), (np.full((4, 4), 4096, np.uint16), '12 bits'),
    (np.full((4, 4), 1e9, np.float32), '12 bits'), (np.zeros((4, 4, 3), np.uint16), 'one sample per pixel')])
def test_tiff_that_cannot_be_used_is_refused(tmp_path, samples, message):
    cv2.imwrite(str(tmp_path / 'a.tif'), samples)
    (tmp_path / 'a.json').write_text(CAMERA.to_json())
    with pytest.raises(DataError, match=message):
        read_raw(tmp_path / 'a.tif')


def test_tiff_and_its_metadata_that_cannot_be_read(tmp_path):
    (tmp_path / 'a.tif').write_bytes(b'II*\0nothing')
    (tmp_path / 'a.json').write_text(CAMERA.to_json())
    with pytest.raises(DataError, match='a.tif: not a readable TIFF'):
        read_raw(tmp_path / 'a.tif')
    (tmp_path / 'a.json').write_bytes(b'\xff\xfe{')
    with pytest.raises(DataError, match='a.json: cannot be read as text'):
        read_raw(tmp_path / 'a.tif')
    (tmp_path / 'a.json').write_text(json.dumps({'cfa': 'rggb'}))
    with pytest.raises(DataError, match=r"a.json: metadata field 'bits' is missing"):
        read_raw(tmp_path / 'a.tif')


def write_matlab(path, *, image=None, noise='plain', pattern=None, leave_out=()):
    """A frame in the layout of SC_burst; returns the mosaic [6, 8] in [0, 1]."""
    h5py = pytest.importorskip('h5py')
    image = np.random.default_rng(0).random((6, 8)) if image is None else image
    profile = np.array([[1e-3], [1e-4], [2e-3], [4e-4], [3e-3], [9e-4]])
    with h5py.File(path, 'w') as file:
        fields = {'im': image.T, 'meta/ColorMatrix2': np.array(MATRIX_2)[:, None] / 1e4,
                  'meta/AsShotNeutral': np.array([[0.5], [1], [0.625]])}
        for name in set(fields) - set(leave_out):
            file[name] = fields[name]
        file.require_group('meta')
        if noise == 'plain':
            file['meta/UnknownTags/Value'] = profile[:2]
        elif noise == 'references':
            values = [np.array([[0.25], [0.5]]), profile, np.array([[1.0]])]
            for name, entries in (('Value', values), ('ID', [np.array([[n]], float) for n in (50000, 51041, 51125)])):
                references = []
                for index, entry in enumerate(entries):
                    file[f'#refs#/{name}{index}'] = entry
                    references.append(file[f'#refs#/{name}{index}'].ref)
                file.create_dataset(f'meta/UnknownTags/{name}', data=np.array([references], dtype=h5py.ref_dtype),
                                    dtype=h5py.ref_dtype)
        if pattern is not None:
            file['meta/cfa'] = pattern
    return image


def test_matlab_frame(tmp_path):
    image = write_matlab(tmp_path / 'a.mat')
    frame = read_raw(tmp_path / 'a.mat', cfa='gbrg')
    assert frame.mosaic.shape == (6, 8) and frame.mosaic.dtype == np.uint16
    assert np.abs(frame.mosaic / 65535 - image).max() <= 0.5001 / 65535
    meta = frame.metadata
    assert (meta.cfa, meta.bits, meta.black_level, meta.white_level) == ('gbrg', 16, (0,) * 4, (65535,) * 4)
    assert meta.white_balance == (2, 1, 1.6) and np.allclose(meta.color_matrix, np.reshape(MATRIX_2, (3, 3)) / 1e4)
    assert meta.noise_shot == (1e-3,) * 4 and meta.noise_read == pytest.approx((1e-2,) * 4)


def test_matlab_noise_among_other_tags(tmp_path):
    write_matlab(tmp_path / 'a.mat', noise='references')
    meta = read_raw(tmp_path / 'a.mat', cfa='gbrg').metadata
    assert meta.noise_shot == (2e-3, 3e-3, 1e-3, 2e-3) and meta.noise_read == pytest.approx((0.02, 0.03, 0.01, 0.02))
    write_matlab(tmp_path / 'b.mat', noise=None)
    assert read_raw(tmp_path / 'b.mat', cfa='gbrg').metadata.noise_shot is None


@pytest.mark.parametrize('pattern', [
    np.array([[ord(letter)] for letter in 'GRBG'], np.uint16), np.array([[1], [0], [2], [1]], np.uint8)])
def test_matlab_pattern_may_be_stated(tmp_path, pattern):
    write_matlab(tmp_path / 'a.mat', pattern=pattern)
    assert read_raw(tmp_path / 'a.mat').metadata.cfa == 'grbg'
    assert read_raw(tmp_path / 'a.mat', cfa='rggb').metadata.cfa == 'rggb'  # the caller knows better


@pytest.mark.parametrize(('arguments', 'message'), [
    ({'leave_out': ['im']}, "'im' is missing"), ({'leave_out': ['meta/ColorMatrix2']}, "'meta/ColorMatrix2' is missing"),
    ({'image': np.full((4, 4), 1.5)}, 'values in'), ({'image': np.full((4, 4), np.nan)}, 'values in'),
    ({'image': np.zeros((4, 4, 3))}, 'expected a mosaic'), ({'image': np.zeros((4, 4), np.uint16)}, 'expected a mosaic')])
def test_matlab_files_that_cannot_be_used_are_refused(tmp_path, arguments, message):
    write_matlab(tmp_path / 'a.mat', **arguments)
    with pytest.raises(DataError, match=message):
        read_raw(tmp_path / 'a.mat', cfa='rggb')


def test_matlab_pattern_has_to_be_known(tmp_path):
    write_matlab(tmp_path / 'a.mat')
    with pytest.raises(DataError, match='does not state its Bayer pattern; give cfa'):
        read_raw(tmp_path / 'a.mat')
    (tmp_path / 'b.mat').write_bytes(b'MATLAB 5.0 MAT-file')
    with pytest.raises(DataError, match='b.mat: cannot be read as a MATLAB 7.3 file'):
        read_raw(tmp_path / 'b.mat', cfa='rggb')


def test_unknown_missing_and_contradicting_files(tmp_path):
    with pytest.raises(DataError, match='a.dng: no such file'):
        read_raw(tmp_path / 'a.dng')
    with pytest.raises(DataError, match='convert it'):
        read_raw(tmp_path / 'a.jpg')
    with pytest.raises(DataError, match='nowhere: no such folder'):
        list_raw_files(tmp_path / 'nowhere')
    cv2.imwrite(str(tmp_path / 'a.tif'), np.zeros((4, 4), np.uint16))
    (tmp_path / 'a.json').write_text(CAMERA.to_json())
    with pytest.raises(DataError, match='its pattern is grbg, not rggb'):
        read_raw(tmp_path / 'a.tif', cfa='rggb')
    with pytest.raises(DataError, match='expected one of'):
        read_raw(tmp_path / 'a.tif', cfa='rgbg')


@pytest.mark.parametrize(('package', 'name'), [('rawpy', 'a.dng'), ('h5py', 'a.mat')])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package, name):
    import sys
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    (tmp_path / name).write_bytes(b'')
    with pytest.raises(DataError, match=f'pip install {package}'):
        read_raw(tmp_path / name)
