"""Whatever bytes are given, decoding ends in an image or in one line."""
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jddb_plugin.checks import DataError
from jddb_plugin.data.images import decode_mosaic, decode_srgb, encode_png, image_header, to_tiff

DECODERS = (decode_srgb, decode_mosaic, image_header, to_tiff)


def _sound(kind):
    image = np.random.default_rng(0).integers(0, 65536, (8, 10) if kind == 'mosaic' else (8, 10, 3), np.uint16)
    png = encode_png(image, 'test')
    return png if kind != 'tiff' else to_tiff(png, 'test')


def _survives(content):
    for decode in DECODERS:
        try:
            result = decode(content, 'somewhere/00000003')
        except DataError as error:
            message = str(error)
            told = message.startswith('somewhere/00000003: ') and '\n' not in message
            assert told, message  # noqa: PT017
        else:
            assert result is not None


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_random_bytes(content):
    _survives(content)


@pytest.mark.parametrize('kind', ['srgb', 'mosaic', 'tiff'])
def test_damaged_images(kind):
    sound = _sound(kind)

    @given(st.integers(0, len(sound) - 1), st.integers(0, 255), st.integers(0, len(sound)))
    @settings(max_examples=150, deadline=None)
    def damage(place, byte, length):
        content = bytearray(sound)
        content[place] = byte
        _survives(bytes(content[:length]))

    damage()


def test_a_part_of_a_frame_is_that_part():
    image = np.random.default_rng(1).integers(0, 256, (9, 12, 3), np.uint8)
    content = cv2.imencode('.png', image[..., ::-1])[1].tobytes()
    part = decode_srgb(content, 'x', size=(9, 12), window=(1, 2, 4, 6))
    assert np.array_equal(part, image[1:5, 2:8])
    with pytest.raises(DataError, match='x: is 12 x 9, expected 12 x 8'):
        decode_srgb(content, 'x', size=(8, 12))


def test_a_mosaic_in_floating_point_is_told_from_a_damaged_file():
    content = cv2.imencode('.tiff', np.zeros((8, 8), np.float32))[1].tobytes()
    with pytest.raises(DataError, match='x: expected 8 or 16 bits per channel, got float32. A Bayer mosaic must be stored'):
        decode_srgb(content, 'x')


@pytest.mark.parametrize('kind', ['mosaic', 'tiff'])
def test_a_mosaic_is_no_picture(kind):
    content = _sound('mosaic')
    if kind == 'tiff':
        content = to_tiff(content, 'test')
    with pytest.raises(DataError, match='^x: has one channel of 16 bits'):
        decode_srgb(content, 'x')
    for color in (_sound('picture'), _sound('tiff'), cv2.imencode('.png', np.zeros((8, 8), np.uint8))[1].tobytes()):
        assert decode_srgb(color, 'x').shape[2] == 3
