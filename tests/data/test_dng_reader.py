"""DNG: every tag that changes samples, colors or geometry, against a plain reading of the specification, LibRaw and exiftool."""
import json
import shutil
import struct
import subprocess

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jddb_plugin.checks import DataError
from jddb_plugin.data.metadata import CFA_PATTERNS
from tests.data import dng_oracle
from tests.data.raw_files import (
    DOUBLE,
    FLOAT,
    LONG,
    MATRIX_A,
    MATRIX_D65,
    RATIONAL,
    SHORT,
    Ifd,
    camera_tags,
    mosaic_tags,
    pack_bits,
    random_mosaic,
    raw_bytes,
    tiff_bytes,
    write_dng,
    write_nested_dng,
)

from .dng_run import read

_FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def valid_tags(draw):
    """Size, bits and tags of a valid DNG."""
    height, width = draw(st.integers(8, 24)), draw(st.integers(8, 24))
    bits = draw(st.sampled_from((8, 10, 12, 14, 16)))
    top, left = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    bottom, right = height - draw(st.integers(0, 3)), width - draw(st.integers(0, 3))
    most = 2 ** bits // 8
    tags = {'ImageLength': height, 'ImageWidth': width, 'BitsPerSample': bits}
    if draw(st.booleans()):
        tags['ActiveArea'] = (top, left, bottom, right)
    else:
        top, left, bottom, right = 0, 0, height, width
    if draw(st.booleans()):
        dim = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
        tags['BlackLevelRepeatDim'] = dim
        tags['BlackLevel'] = [draw(st.integers(0, 4 * most)) / 4 for _ in range(dim[0] * dim[1])]
    elif draw(st.booleans()):
        tags['BlackLevel'] = [draw(st.integers(0, most))]
    for name, count in (('BlackLevelDeltaH', right - left), ('BlackLevelDeltaV', bottom - top)):
        if draw(st.booleans()):
            tags[name] = [draw(st.integers(0, 40)) / 4 for _ in range(count)]
    if draw(st.booleans()):
        tags['WhiteLevel'] = draw(st.integers(2 ** bits * 3 // 4, 2 ** bits - 1))
    tags['CFAPlaneColor'] = draw(st.permutations((0, 1, 2)))
    tags['CFAPattern'] = ['rgb'.index(letter) for letter in draw(st.sampled_from(CFA_PATTERNS))]
    tags['Orientation'] = draw(st.integers(0, 9))
    kind = draw(st.sampled_from(('neutral', 'xy', 'daylight')))
    numbers = st.integers(-100, 100).map(lambda value: value / 1000)
    if kind == 'neutral':
        tags['AsShotNeutral'] = [draw(st.integers(200, 1500)) / 1000 for _ in range(3)]
    elif kind == 'xy':
        tags['AsShotWhiteXY'] = (draw(st.integers(290, 460)) / 1000, draw(st.integers(300, 420)) / 1000)
    if draw(st.booleans()):
        tags['AnalogBalance'] = [draw(st.integers(500, 2000)) / 1000 for _ in range(3)]
    for number in (1, 2):
        if draw(st.booleans()):
            tags[f'CameraCalibration{number}'] = [(k % 4 == 0) + draw(numbers) for k in range(9)]
    if draw(st.booleans()):
        tags['CameraCalibrationSignature'] = draw(st.sampled_from(('com.test', 'other')))
        tags['ProfileCalibrationSignature'] = 'com.test'
    if draw(st.booleans()):
        tags['LinearResponseLimit'] = draw(st.sampled_from((0.5, 0.9)))
    tags['ColorMatrix1'] = MATRIX_A
    if draw(st.booleans()):
        tags['ColorMatrix2'] = MATRIX_D65
    lights = draw(st.sampled_from(((17, 21), (21, 17), (23, 20), (0, 21))))
    tags['CalibrationIlluminant1'], tags['CalibrationIlluminant2'] = lights
    return tags


@_FEW
@given(tags=valid_tags(), order=st.sampled_from('<>'), nested=st.booleans(), tail=st.booleans(), big=st.booleans())
def test_random_valid_tags_mean_what_the_specification_says(tmp_path, tags, order, nested, tail, big):
    size, bits = (tags['ImageLength'], tags['ImageWidth']), tags['BitsPerSample']
    white = dng_oracle.white_of(tags)
    mosaic = random_mosaic(size, low=int(0.4 * white), high=white)
    planes = tags['CFAPlaneColor']
    common = camera_tags(AsShotNeutral=None, ColorMatrix2=None)
    of_main = (*common, 'AsShotWhiteXY', 'AnalogBalance', 'LinearResponseLimit')
    in_main = {name: value for name, value in tags.items() if name in of_main or name.startswith(('Ca', 'Profile'))}
    in_raw = {name: value for name, value in tags.items() if name not in in_main}
    raw = {**mosaic_tags(mosaic, bits=bits), **in_raw}
    data = raw_bytes(mosaic, bits, order)
    if nested:
        preview = {'NewSubfileType': 1, 'ImageWidth': 4, 'ImageLength': 2, 'BitsPerSample': (8, 8, 8), 'Compression': 1,
                   'Photometric': 2, 'SamplesPerPixel': 3, 'RowsPerStrip': 2, 'BlackLevel': 77, 'WhiteLevel': 88}
        content = [Ifd({**preview, **common, **in_main}, bytes(24), [Ifd(raw, data)])]
    else:
        content = [Ifd({**raw, **common, **in_main}, data)]
    (tmp_path / 'a.dng').write_bytes(tiff_bytes(content, order=order, tail=tail, big=big and not tail))
    frame = read(tmp_path / 'a.dng')
    meta = frame.metadata
    top, left, bottom, right = dng_oracle.active_area(tags)
    assert frame.mosaic.shape == (bottom - top, right - left)
    assert meta.cfa == ''.join('rgb'[color] for color in tags['CFAPattern'])
    assert meta.black_level == pytest.approx(dng_oracle.cell_means(tags), abs=1e-6)
    assert meta.white_level == (white,) * 4
    assert meta.orientation == (tags['Orientation'] if 1 <= tags['Orientation'] <= 8 else 1)
    assert meta.white_balance == pytest.approx(dng_oracle.gains_of(tags), rel=0.01)
    light = [int(tags['CalibrationIlluminant1'] == 21), int(tags['CalibrationIlluminant2'] == 21)]
    chosen = (0, 1) if 'ColorMatrix2' in tags and (light[1] or not light[0]) else (1, 0)
    expected = np.array(dng_oracle.xyz_to_camera(tags, chosen))[[planes.index(color) for color in range(3)]]
    assert np.allclose(meta.color_matrix, expected, atol=1e-6)
    for y in range(0, bottom - top, 3):
        for x in range(right - left):
            stored = int(mosaic[top + y, left + x])
            light = int(frame.mosaic[y, x]) - meta.black_level[2 * (y % 2) + x % 2]
            if stored < white:
                error = abs(light - float(stored - dng_oracle.black_of(tags, y, x)))
                assert error <= 0.5 + 1e-6 or frame.mosaic[y, x] >= 2 ** meta.bits - 1
            else:
                assert frame.mosaic[y, x] >= white


def test_temperatures_of_known_lights():
    from jddb_plugin.data.dng_color import temperature_of
    for x, y, kelvin in ((0.44757, 0.40745, 2856), (0.34567, 0.35850, 5003), (0.33242, 0.34743, 5503), (0.31271, 0.32902, 6504),
                         (0.29902, 0.31485, 7504)):
        assert temperature_of(x, y)[0] == pytest.approx(kelvin, rel=2e-3)
        assert dng_oracle.temperature_of(x, y) == pytest.approx(kelvin, rel=1e-2)


def test_a_linearization_table(tmp_path):
    rawpy = pytest.importorskip('rawpy')
    table = (np.arange(200) ** 2).astype(np.uint16)
    mosaic = random_mosaic((40, 64), low=0, high=255)
    write_dng(tmp_path / 'a.dng', mosaic, bits=8, LinearizationTable=table, BlackLevel=0, WhiteLevel=39601)
    expected = table[np.minimum(mosaic, 199)]
    assert np.array_equal(read(tmp_path / 'a.dng').mosaic, expected)
    with rawpy.imread(str(tmp_path / 'a.dng')) as raw:
        assert np.array_equal(raw.raw_image, expected)


@pytest.mark.parametrize(('tags', 'expected'), [
    ({'BlackLevel': (SHORT, [100, 101, 102, 103])}, (100, 101, 102, 103)),  # four values, no repeat dimension
    ({'BlackLevel': (FLOAT, [64.5])}, (64.5,) * 4), ({'BlackLevel': (LONG, [64])}, (64,) * 4),
    ({'BlackLevel': (RATIONAL, [(129, 2)])}, (64.5,) * 4), ({'BlackLevel': (DOUBLE, [64.25])}, (64.25,) * 4),
    ({'BlackLevel': 64, 'BlackLevelRepeatDim': (2, 2)}, (64,) * 4),
    ({'BlackLevel': (64, 80), 'BlackLevelRepeatDim': (1, 2)}, (64, 80, 64, 80)),
    ({'BlackLevel': (64, 80), 'BlackLevelRepeatDim': (2, 1)}, (64, 64, 80, 80)),
    ({'BlackLevel': None}, (0,) * 4), ({'BlackLevel': None, 'BlackLevelDeltaV': [3] * 20}, (3,) * 4),
    ({'BlackLevel': 100, 'BlackLevelDeltaV': [0, 10] * 10}, (100, 100, 110, 110)),
    ({'BlackLevel': 100, 'BlackLevelDeltaH': [0, 10] * 16, 'BlackLevelDeltaV': [1] * 20}, (101, 111, 101, 111))])
def test_black_levels_as_they_are_written(tmp_path, tags, expected):
    mosaic = write_dng(tmp_path / 'a.dng', random_mosaic((20, 32)), **tags)
    frame = read(tmp_path / 'a.dng')
    assert frame.metadata.black_level == expected and np.array_equal(frame.mosaic, mosaic)


def test_black_level_by_row_and_column_is_subtracted_in_full(tmp_path):
    mosaic = random_mosaic((20, 32))
    mosaic[5, 6] = 16383
    by_row, by_column = np.arange(20) * 3.0, np.arange(32) * -2.0 + 62
    write_dng(tmp_path / 'a.dng', mosaic, BlackLevel=100, BlackLevelDeltaV=list(by_row), BlackLevelDeltaH=list(by_column))
    frame = read(tmp_path / 'a.dng')
    level = np.tile(np.reshape(frame.metadata.black_level, (2, 2)), (10, 16))
    error = frame.mosaic - level - (mosaic - 100.0 - by_row[:, None] - by_column)
    assert np.abs(error[mosaic < 16383]).max() <= 0.5 and frame.mosaic[5, 6] == 16383  # what is clipped stays so


@pytest.mark.parametrize(('tags', 'message'), [
    ({'BlackLevel': (1, 2, 3)}, 'BlackLevel holds 3 values'), ({'BlackLevelRepeatDim': (0, 2)}, 'BlackLevelRepeatDim 0 2'),
    ({'BlackLevel': [9] * 81, 'BlackLevelRepeatDim': (9, 9)}, 'expected two numbers in 1 .. 8'),
    ({'BlackLevel': (RATIONAL, [(1, 0)])}, 'not finite'), ({'BlackLevelDeltaV': [1.0] * 7}, 'DeltaV holds 7 values'),
    ({'WhiteLevel': 0}, 'WhiteLevel 0'), ({'BlackLevel': 20000}, 'white_level'), ({'ActiveArea': (0, 0, 99, 9)}, 'ActiveArea'),
    ({'CFALayout': 2}, 'CFALayout 2'), ({'CFALayout': 6}, 'CFALayout 6'), ({'RowInterleaveFactor': 2}, 'interleaved'),
    ({'CFAPlaneColor': (0, 1, 6)}, 'not a Bayer pattern'), ({'Compression': 52546}, 'JPEG XL'),
    ({'Compression': 34892}, 'lossy JPEG'),
    ({'Compression': 9}, 'VC-5'), ({'Compression': 12345}, 'compression 12345'), ({'Compression': 50002}, 'JPEG XL')])
def test_what_makes_no_sense_or_is_not_supported_is_refused(tmp_path, tags, message):
    write_dng(tmp_path / 'a.dng', random_mosaic((20, 32)), **tags)
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path / 'a.dng')
    assert 'a.dng: ' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(('cell', 'dim', 'message'), [
    ('rrggrrggggbbggbb', 4, 'a Quad-Bayer pattern'), ('rrrggg' * 3 + 'gggbbb' * 3, 6, 'a Nona-Bayer pattern'),
    ('rggbrgbgbggrgbgr', 4, 'not a Bayer pattern'), ('ggrggbggbggrbrgrbgggbggrggrggbrbgbrg', 6, 'an X-Trans pattern')])
def test_other_patterns_are_refused_by_name(tmp_path, cell, dim, message):
    write_dng(tmp_path / 'a.dng', random_mosaic((24, 36)), cfa=cell)
    with pytest.raises(DataError, match=message):
        read(tmp_path / 'a.dng')


def test_a_bayer_cell_written_twice_is_one(tmp_path):
    write_dng(tmp_path / 'a.dng', random_mosaic((24, 36)), cfa='grgrbgbggrgrbgbg')
    assert read(tmp_path / 'a.dng').metadata.cfa == 'grbg'


def test_linear_dngs_are_refused_with_their_compression(tmp_path):
    for compression, name in ((52546, 'JPEG XL'), (34892, 'lossy JPEG'), (1, 'none')):
        write_dng(tmp_path / 'a.dng', random_mosaic((20, 32)), Photometric=34892, Compression=compression)
        with pytest.raises(DataError, match=f'no mosaic .*{name}'):
            read(tmp_path / 'a.dng')


def test_levels_are_those_of_the_mosaics_directory(tmp_path):
    mosaics = [random_mosaic((20, 32))]
    write_nested_dng(tmp_path / 'a.dng', mosaics, main={'BlackLevel': 5, 'WhiteLevel': 255}, BlackLevel=(SHORT, [600]),
                     WhiteLevel=9000)
    frame = read(tmp_path / 'a.dng')
    assert frame.metadata.black_level == (600,) * 4 and frame.metadata.white_level == (9000,) * 4
    assert np.array_equal(frame.mosaic, np.minimum(mosaics[0], 2 ** 14 - 1))


def test_masked_areas_tell_the_black_level_where_no_tag_does(tmp_path):
    rawpy = pytest.importorskip('rawpy')
    mosaic = random_mosaic((40, 64))
    mosaic[:, :8] = np.tile([[500, 510], [520, 530]], (20, 4))
    tags = {'ActiveArea': (0, 8, 40, 64), 'MaskedAreas': (0, 0, 40, 8)}
    write_dng(tmp_path / 'a.dng', mosaic, BlackLevel=None, **tags)
    frame = read(tmp_path / 'a.dng')
    assert frame.metadata.black_level == (500, 510, 520, 530)
    with rawpy.imread(str(tmp_path / 'a.dng')) as raw:
        assert sorted(raw.black_level_per_channel) == [500, 510, 520, 530]
    write_dng(tmp_path / 'a.dng', mosaic, BlackLevel=64, **tags)
    assert read(tmp_path / 'a.dng').metadata.black_level == (64,) * 4
    write_dng(tmp_path / 'a.dng', mosaic, BlackLevel=None, **{**tags, 'ActiveArea': (0, 9, 40, 64)})
    assert read(tmp_path / 'a.dng').metadata.black_level == (510, 500, 530, 520)
    for areas in ((0, 0, 64, 8, 0, 8), (0, 0, 0, 0), (500, 500, 600, 600)):
        write_dng(tmp_path / 'a.dng', mosaic, BlackLevel=None, MaskedAreas=areas)
        frame = read(tmp_path / 'a.dng')
        assert frame.metadata.black_level == (0,) * 4 and 'MaskedAreas are invalid' in frame.notes[0]


def test_black_levels_below_zero_raise_the_samples(tmp_path):
    mosaic = random_mosaic((20, 32), low=0, high=16384)
    write_dng(tmp_path / 'a.dng', mosaic, BlackLevel=10, BlackLevelDeltaV=[-20.0, -30.0] * 10)
    frame = read(tmp_path / 'a.dng')
    assert frame.metadata.black_level == (0,) * 4
    expected = np.minimum(mosaic.astype(int) + np.array([10, 20] * 10)[:, None], 16383)
    assert np.array_equal(frame.mosaic, expected)


def test_white_levels_that_differ_are_said(tmp_path):
    write_dng(tmp_path / 'a.dng', WhiteLevel=(16000, 15000, 16000, 16000))
    frame = read(tmp_path / 'a.dng')
    assert frame.metadata.white_level == (15000,) * 4 and 'WhiteLevel has 4 values' in frame.notes[0]
    write_dng(tmp_path / 'a.dng', WhiteLevel=(15000,) * 4)
    assert not read(tmp_path / 'a.dng').notes


def test_exiftool_reads_the_same_tags(tmp_path):
    if shutil.which('exiftool') is None:
        pytest.skip('exiftool is not installed (Debian: libimage-exiftool-perl)')
    tags = {'BlackLevel': (100.5, 101, 102, 103), 'BlackLevelRepeatDim': (2, 2), 'WhiteLevel': 15000, 'DefaultScale': (1, 2),
            'NoiseProfile': (1e-3, 1e-6), 'ActiveArea': (2, 2, 60, 90), 'DefaultCropOrigin': (1, 2), 'DefaultCropSize': (80, 50),
            'AsShotNeutral': (0.4, 1, 0.6), 'Orientation': 6}
    for order in '<>':
        write_dng(tmp_path / 'a.dng', order=order, **tags)
        found, = json.loads(subprocess.run(['exiftool', '-j', '-n', str(tmp_path / 'a.dng')], capture_output=True,
                                           check=True).stdout)
        meta = read(tmp_path / 'a.dng').metadata

        def numbers(name, found=found):
            return [float(value) for value in str(found[name]).split()]

        assert numbers('BlackLevel') == list(meta.black_level) and numbers('WhiteLevel') == [meta.white_level[0]]
        assert [1 / value for value in numbers('AsShotNeutral')] == pytest.approx(meta.white_balance)
        assert found['Orientation'] == meta.orientation and numbers('ColorMatrix2') == pytest.approx(np.ravel(meta.color_matrix))
        assert numbers('NoiseProfile') == pytest.approx([meta.noise_shot[0], meta.noise_read[0] ** 2])
        scale, origin, size = numbers('DefaultScale'), numbers('DefaultCropOrigin'), numbers('DefaultCropSize')
        assert scale[0] / scale[1] == meta.pixel_aspect and meta.crop == (origin[1], origin[0], size[1], size[0])


def test_libraw_reads_the_same_levels_and_gains(tmp_path):
    rawpy = pytest.importorskip('rawpy')
    write_dng(tmp_path / 'a.dng', BlackLevel=(100, 110, 120, 130), BlackLevelRepeatDim=(2, 2), WhiteLevel=15000, cfa='gbrg',
              ActiveArea=(2, 4, 60, 90))
    meta = read(tmp_path / 'a.dng').metadata
    with rawpy.imread(str(tmp_path / 'a.dng')) as raw:
        channels = raw.raw_colors_visible[:2, :2].ravel()
        assert [raw.black_level_per_channel[channel] for channel in channels] == list(meta.black_level)
        assert raw.white_level == meta.white_level[0]
        assert np.array(raw.camera_whitebalance[:3]) / raw.camera_whitebalance[1] == pytest.approx(meta.white_balance, rel=1e-5)
        assert ''.join('rgbg'[channel] for channel in channels) == meta.cfa


def test_packed_bits_of_the_tests_are_as_the_specification_has_them():
    assert pack_bits(np.array([[0xABC, 0xDEF]]), 12) == bytes.fromhex('abcdef')
    assert struct.unpack('<2H', raw_bytes(np.array([[1, 2]], np.uint16))) == (1, 2)
