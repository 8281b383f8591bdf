"""Orientation, crops and aspect of DNGs, and files of several mosaics."""
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
    write_nested_dng,
)

from .dng_run import read


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
