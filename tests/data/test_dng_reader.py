"""DNG: every tag that changes samples, colours or geometry, against a plain reading of the specification, LibRaw and exiftool."""
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
from jddb_plugin.data.raw_reader import read_raw
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
    lossless_jpeg,
    mosaic_tags,
    pack_bits,
    random_mosaic,
    raw_bytes,
    tiff_bytes,
    write_dng,
    write_nested_dng,
)

_FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path, **options):
    return read_raw(path, log_notes=False, **options)


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


@pytest.mark.parametrize('bits', range(8, 17))
@pytest.mark.parametrize('order', '<>')
def test_samples_of_every_depth_are_those_that_libraw_reads(tmp_path, bits, order):
    rawpy = pytest.importorskip('rawpy')
    mosaic = random_mosaic((40, 66), low=0, high=2 ** bits)
    write_dng(tmp_path / 'a.dng', mosaic, bits=bits, order=order, BlackLevel=0, WhiteLevel=2 ** bits - 1)
    assert np.array_equal(read(tmp_path / 'a.dng').mosaic, mosaic)
    with rawpy.imread(str(tmp_path / 'a.dng')) as raw:
        assert np.array_equal(raw.raw_image, mosaic)


def test_bits_that_do_not_fit_the_strips_are_refused(tmp_path):
    mosaic = random_mosaic((20, 32))
    write_dng(tmp_path / 'a.dng', mosaic, data=raw_bytes(mosaic), BitsPerSample=14)
    with pytest.raises(DataError, match='BitsPerSample is 14, but its strips hold 16 bits'):
        read(tmp_path / 'a.dng')


def _strips(mosaic, rows):
    return [raw_bytes(mosaic[k:k + rows]) for k in range(0, len(mosaic), rows)]


def _tiles(mosaic, height, width):
    padded = np.pad(mosaic, ((0, -mosaic.shape[0] % height), (0, -mosaic.shape[1] % width)), constant_values=7)
    return [padded[y:y + height, x:x + width] for y in range(0, len(padded), height) for x in range(0, padded.shape[1], width)]


def test_strips_and_tiles_wherever_they_lie(tmp_path):
    mosaic = random_mosaic((50, 70))
    write_dng(tmp_path / 'a.dng', mosaic, data=_strips(mosaic, 8), RowsPerStrip=8)
    assert np.array_equal(read(tmp_path / 'a.dng').mosaic, mosaic)
    tiles = [raw_bytes(tile) for tile in _tiles(mosaic, 16, 32)]
    write_dng(tmp_path / 'b.dng', mosaic, data=tiles, RowsPerStrip=None, TileWidth=32, TileLength=16)
    assert np.array_equal(read(tmp_path / 'b.dng').mosaic, mosaic)
    # Strips in any order: LibRaw would read on from the first one.
    content = tiff_bytes([Ifd({**mosaic_tags(mosaic), **camera_tags(), 'WhiteLevel': 16383, 'RowsPerStrip': 25,
                               'StripOffsets': [16 + 25 * 140, 16], 'StripByteCounts': [25 * 140] * 2})],
                         head=bytes(8) + raw_bytes(mosaic[25:]) + raw_bytes(mosaic[:25]))
    (tmp_path / 'c.dng').write_bytes(content)
    assert np.array_equal(read(tmp_path / 'c.dng').mosaic, mosaic)


@pytest.mark.parametrize('components', [1, 2])
def test_lossless_jpeg(tmp_path, components):
    mosaic = random_mosaic((32, 40), low=0, high=65536)
    write_dng(tmp_path / 'a.dng', mosaic, data=lossless_jpeg(mosaic, 16, components), Compression=7, WhiteLevel=65535)
    assert np.array_equal(read(tmp_path / 'a.dng').mosaic, mosaic)
    tiles = [lossless_jpeg(tile, 16, components) for tile in _tiles(mosaic, 16, 32)]
    write_dng(tmp_path / 'b.dng', mosaic, data=tiles, Compression=7, RowsPerStrip=None, TileWidth=32, TileLength=16,
              WhiteLevel=65535)
    assert np.array_equal(read(tmp_path / 'b.dng').mosaic, mosaic)


def test_deflate_with_and_without_predictors(tmp_path):
    import zlib
    mosaic = random_mosaic((20, 32), low=0, high=65536)
    for predictor, step in ((1, 0), (2, 1), (34892, 2), (34893, 4)):
        values = mosaic.copy()
        if step:
            values[:, step:] = mosaic[:, step:] - mosaic[:, :-step]
        for order in '<>':
            write_dng(tmp_path / 'a.dng', mosaic, order=order, data=zlib.compress(values.astype(f'{order}u2').tobytes()),
                      Compression=8,
                      Predictor=predictor, WhiteLevel=65535)
            assert np.array_equal(read(tmp_path / 'a.dng').mosaic, mosaic), (predictor, order)


def float_bytes(values, bits, order):
    """Floating point of 16, 24 or 32 bits; 24 bits have a sign, 7 bits of exponent and 16 of fraction."""
    if bits == 24:
        raw = bytearray()
        for value in values.astype(float).ravel():
            fraction, exponent = np.frexp(abs(value))
            word = 0 if value == 0 else (int(exponent) + 62) << 16 | int((fraction * 2 - 1) * 65536)
            raw += int(word | (value < 0) << 23).to_bytes(3, 'little' if order == '<' else 'big')
        return bytes(raw)
    return values.astype(f'{order}f{bits // 8}').tobytes()


def with_predictor(values, bits, step):
    """Rows of bytes sorted by weight, each as its difference from the one ``step`` before."""
    size = bits // 8
    lines = np.frombuffer(float_bytes(values, bits, '>'), np.uint8).reshape(len(values), -1, size)
    lines = lines.transpose(0, 2, 1).reshape(len(values), -1)
    result = lines.copy()
    result[:, step:] = lines[:, step:] - lines[:, :-step]
    return result.tobytes()


@pytest.mark.parametrize('bits', [16, 24, 32])
@pytest.mark.parametrize('white', [1, 4, 16383])
def test_floating_point_is_scaled_by_its_white_level(tmp_path, bits, white):
    import zlib
    light = (np.random.default_rng(0).integers(0, 1024, (20, 32)) / 1024).astype(np.float32)
    light[0, :3] = -0.25, 1.5, 1
    values = light * np.float32(white)
    stored = np.clip(np.rint(light.astype(float) * 65535), 0, 65535)
    common = {'BitsPerSample': bits, 'SampleFormat': 3, 'BlackLevel': white / 16, 'WhiteLevel': white}
    for order in '<>':
        write_dng(tmp_path / 'a.dng', np.zeros((20, 32), np.uint16), order=order, data=float_bytes(values, bits, order), **common)
        frame = read(tmp_path / 'a.dng')
        assert np.abs(frame.mosaic - stored).max() <= (1 if white in (1, 4) else 40), order
        assert frame.metadata.black_level == pytest.approx((65535 / 16,) * 4, rel=1e-5)
        assert frame.metadata.white_level == (65535,) * 4 and frame.metadata.bits == 16
    for predictor, step in ((3, 1), (34894, 2), (34895, 4)):
        write_dng(tmp_path / 'b.dng', np.zeros((20, 32), np.uint16), data=zlib.compress(with_predictor(values, bits, step)),
                  Compression=8, Predictor=predictor, **common)
        assert np.array_equal(read(tmp_path / 'b.dng').mosaic, frame.mosaic), predictor


def test_floating_point_without_a_white_level_and_without_numbers(tmp_path):
    values = np.full((20, 32), 0.5, np.float32)
    write_dng(tmp_path / 'a.dng', np.zeros((20, 32), np.uint16), data=values.tobytes(), BitsPerSample=32, SampleFormat=3,
              BlackLevel=0,
              WhiteLevel=None)
    assert set(np.unique(read(tmp_path / 'a.dng').mosaic)) == {32768}
    values[3, 3] = np.nan
    write_dng(tmp_path / 'a.dng', np.zeros((20, 32), np.uint16), data=values.tobytes(), BitsPerSample=32, SampleFormat=3,
              WhiteLevel=1)
    with pytest.raises(DataError, match='samples that are not numbers'):
        read(tmp_path / 'a.dng')


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


@pytest.mark.parametrize(('profile', 'shot', 'read_noise'), [
    ((1e-3, 1e-6), (1e-3,) * 4, (1e-3,) * 4), ((1e-3, 1e-6, 2e-3, 4e-6, 3e-3, 9e-6), (2e-3, 1e-3, 3e-3, 2e-3),
                                               (2e-3, 1e-3, 3e-3, 2e-3)),
    ((1e-3, 1e-6, 2e-3, 4e-6, 3e-3, 9e-6, 4e-3, 16e-6), (1e-3, 2e-3, 3e-3, 4e-3), (1e-3, 2e-3, 3e-3, 4e-3)),
    ((0.0, 1e-6), (0,) * 4, (1e-3,) * 4), ((1e-3, 0.0), (1e-3,) * 4, (0,) * 4), ((1e-3, -1e-9), (1e-3,) * 4, (0,) * 4)])
def test_noise_of_one_three_and_four_planes(tmp_path, profile, shot, read_noise):
    write_dng(tmp_path / 'a.dng', cfa='grbg', NoiseProfile=profile)
    meta = read(tmp_path / 'a.dng').metadata
    assert meta.noise_shot == pytest.approx(shot) and meta.noise_read == pytest.approx(read_noise)


@pytest.mark.parametrize('profile', [
    (0.0, 0.0), (float('nan'), 1e-6), (1e-3, float('nan')), (float('inf'), 0.0), (0.0,) * 6, (0.0,) * 8, (-1e-3, 1e-6),
    (5.0, 1e-6),
    (1e-3, 1e-6, 0.0, 0.0, 1e-3, 1e-6), (1e-3, 1e-6, 1e-3, 1e-6)])
def test_a_noise_profile_that_says_nothing_counts_as_missing(tmp_path, profile):
    write_dng(tmp_path / 'a.dng', NoiseProfile=profile)
    frame = read(tmp_path / 'a.dng')
    assert frame.metadata.noise_shot is None and frame.metadata.noise_read is None
    assert 'counts as missing' in frame.notes[0] and frame.notes[0].startswith(str(tmp_path / 'a.dng'))


def test_noise_profile_of_the_first_directory_serves_too(tmp_path):
    write_nested_dng(tmp_path / 'a.dng', [random_mosaic((20, 32))], main={'NoiseProfile': (1e-3, 1e-6)})
    assert read(tmp_path / 'a.dng').metadata.noise_shot == (1e-3,) * 4


def test_white_balance_of_an_unknown_kind_is_daylight_and_said(tmp_path, caplog):
    gains = dng_oracle.gains_of({'ColorMatrix1': MATRIX_A, 'ColorMatrix2': MATRIX_D65, 'CalibrationIlluminant1': 17,
                                 'CalibrationIlluminant2': 21})
    for tags in ({'AsShotNeutral': None}, {'AsShotNeutral': (0.5, 0, 1)}, {'AsShotNeutral': ((1, 0), 1, 1)},
                 {'AsShotNeutral': (1, 1)},
                 {'AsShotNeutral': None, 'AsShotWhiteXY': (0.9, 0.9)}, {'AsShotNeutral': None, 'AsShotWhiteXY': (0, 0)}):
        write_dng(tmp_path / 'a.dng', **tags)
        caplog.clear()
        frame = read_raw(tmp_path / 'a.dng')
        assert frame.metadata.white_balance == pytest.approx(gains, rel=0.01)
        assert 'developed for daylight' in caplog.text and 'developed for daylight' in frame.notes[0]


def test_white_balance_by_chromaticity_of_three_lights(tmp_path):
    third = [value * 1.1 for value in MATRIX_D65]
    write_dng(tmp_path / 'a.dng', AsShotNeutral=None, AsShotWhiteXY=(0.4476, 0.4074), ColorMatrix3=third,
              CalibrationIlluminant3=23)
    near_a = read(tmp_path / 'a.dng').metadata.white_balance
    only_a = dng_oracle.gains_of({'ColorMatrix1': MATRIX_A, 'AsShotWhiteXY': (0.4476, 0.4074)})
    assert near_a == pytest.approx(only_a, rel=0.01)  # at a light itself the others do not count


def test_lights_by_chromaticity(tmp_path):
    def xy(x, y):
        return struct.pack('<H4I', 0, int(x * 10000), 10000, int(y * 10000), 10000)

    write_dng(tmp_path / 'a.dng', AsShotNeutral=None, AsShotWhiteXY=(0.4476, 0.4074), CalibrationIlluminant1=255,
              CalibrationIlluminant2=255, IlluminantData1=xy(0.4476, 0.4074), IlluminantData2=xy(0.3127, 0.3290))
    only_a = dng_oracle.gains_of({'ColorMatrix1': MATRIX_A, 'AsShotWhiteXY': (0.4476, 0.4074)})
    assert read(tmp_path / 'a.dng').metadata.white_balance == pytest.approx(only_a, rel=0.01)


def test_white_levels_that_differ_are_said(tmp_path):
    write_dng(tmp_path / 'a.dng', WhiteLevel=(16000, 15000, 16000, 16000))
    frame = read(tmp_path / 'a.dng')
    assert frame.metadata.white_level == (15000,) * 4 and 'WhiteLevel has 4 values' in frame.notes[0]
    write_dng(tmp_path / 'a.dng', WhiteLevel=(15000,) * 4)
    assert not read(tmp_path / 'a.dng').notes


def test_orientation_is_that_of_the_first_directory(tmp_path):
    write_nested_dng(tmp_path / 'a.dng', [random_mosaic((20, 32))], main={'Orientation': 6}, Orientation=3)
    assert read(tmp_path / 'a.dng').metadata.orientation == 6
    write_nested_dng(tmp_path / 'a.dng', [random_mosaic((20, 32))], main={'Orientation': None})
    assert read(tmp_path / 'a.dng').metadata.orientation == 1


@pytest.mark.parametrize(('tags', 'aspect', 'crop'), [
    ({}, 1, None), ({'DefaultScale': (1, 2)}, 0.5, None), ({'DefaultScale': (2, 2)}, 1, None),
    ({'DefaultScale': (1.4142, 0.7071)}, 2, None),
    ({'DefaultCropOrigin': (4, 2), 'DefaultCropSize': (20, 10)}, 1, (2, 4, 10, 20)),
    ({'DefaultCropOrigin': (4.5, 2.25), 'DefaultCropSize': (20, 10)}, 1, (2, 5, 10, 20)),
    ({'DefaultCropSize': (20, 10)}, 1, (0, 0, 10, 20)), ({'DefaultCropOrigin': (0, 0), 'DefaultCropSize': (32, 20)}, 1, None)])
def test_geometry(tmp_path, tags, aspect, crop):
    write_dng(tmp_path / 'a.dng', random_mosaic((20, 32)), **tags)
    frame = read(tmp_path / 'a.dng')
    assert frame.metadata.pixel_aspect == pytest.approx(aspect, rel=1e-3) and frame.metadata.crop == crop and not frame.notes
    assert frame.mosaic.shape == (20, 32)


@pytest.mark.parametrize('tags', [
    {'DefaultScale': (0, 1)}, {'DefaultScale': ((1, 0), 1)}, {'DefaultCropOrigin': (30, 2), 'DefaultCropSize': (20, 10)},
    {'DefaultCropSize': (0, 10)}, {'DefaultCropSize': (20,)}])
def test_geometry_of_no_sense_is_said(tmp_path, tags):
    write_dng(tmp_path / 'a.dng', random_mosaic((20, 32)), **tags)
    frame = read(tmp_path / 'a.dng')
    assert len(frame.notes) == 1 and 'Default' in frame.notes[0]
    assert frame.metadata.crop is None and frame.metadata.pixel_aspect == 1


def test_several_mosaics(tmp_path):
    mosaics = [random_mosaic((20, 32), seed=seed) for seed in range(3)]
    write_nested_dng(tmp_path / 'a.dng', mosaics)
    with pytest.raises(DataError, match='holds 3 mosaics .*--frames-of-file'):
        read(tmp_path / 'a.dng')
    for number, mosaic in enumerate(mosaics):
        assert np.array_equal(read(tmp_path / 'a.dng', number=number).mosaic, mosaic)
    with pytest.raises(DataError, match='holds 3 mosaics, counted from 0; number 3 does not exist'):
        read(tmp_path / 'a.dng', number=3)


def test_several_mosaics_of_lossless_jpeg(tmp_path):
    mosaics = [random_mosaic((40, 64), seed=seed) for seed in range(2)]
    subs = [Ifd({**mosaic_tags(mosaic), 'Compression': 7, 'WhiteLevel': 16383}, lossless_jpeg(mosaic)) for mosaic in mosaics]
    (tmp_path / 'a.dng').write_bytes(tiff_bytes([Ifd({'ImageWidth': 4, 'ImageLength': 2, **camera_tags()}, None, subs)]))
    for number, mosaic in enumerate(mosaics):
        assert np.array_equal(read(tmp_path / 'a.dng', number=number).mosaic, mosaic)


def test_smaller_mosaics_are_copies(tmp_path):
    mosaic = random_mosaic((20, 32))
    small = Ifd({**mosaic_tags(mosaic[:10, :16]), 'NewSubfileType': 1}, raw_bytes(mosaic[:10, :16]))
    full = Ifd({**mosaic_tags(mosaic), 'WhiteLevel': 16383}, raw_bytes(mosaic))
    (tmp_path / 'a.dng').write_bytes(tiff_bytes([Ifd({'ImageWidth': 4, 'ImageLength': 2, **camera_tags()}, None, [small, full])]))
    assert np.array_equal(read(tmp_path / 'a.dng').mosaic, mosaic)


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
