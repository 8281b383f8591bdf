"""Noise profiles, white balance and lights of DNGs."""
import struct

import pytest

from jddb_plugin.data.raw_reader import read_raw
from tests.data import dng_oracle
from tests.data.raw_files import (
    MATRIX_A,
    MATRIX_D65,
    random_mosaic,
    write_dng,
    write_nested_dng,
)

from .dng_run import read


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
