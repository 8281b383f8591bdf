"""Samples of DNGs of every depth, layout and compression, against LibRaw and plain decoders."""
import numpy as np
import pytest

from jddb_plugin.checks import DataError
from tests.data.raw_files import (
    Ifd,
    camera_tags,
    lossless_jpeg,
    mosaic_tags,
    random_mosaic,
    raw_bytes,
    tiff_bytes,
    write_dng,
)

from .dng_run import read


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
