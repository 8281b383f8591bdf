"""Opcodes that change the mosaic, against sample by sample arithmetic by the specification."""
import struct

import numpy as np
import pytest

from jddb_plugin.data.dng_opcodes import fix_bad_pixels
from jddb_plugin.data.raw_reader import read_raw
from tests.data.raw_files import random_mosaic, write_dng

GAIN_MAP, CONSTANT, LIST, WARP, VIGNETTE = 9, 4, 5, 1, 3


def opcodes(*entries, flags=0):
    """An opcode list of (number, parameters)."""
    return struct.pack('>I', len(entries)) + b''.join(
        struct.pack('>4I', number, 0x01030000, flags, len(content)) + content for number, content in entries)


def gain_map(area, gains, *, pitch=(1, 1), plane=0, planes=1, origin=(0.0, 0.0), spacing=None):
    gains = np.asarray(gains, dtype='>f4')
    down, across = gains.shape[:2]
    spacing = spacing or (1 / max(down - 1, 1), 1 / max(across - 1, 1))
    points = struct.pack('>2I4dI', down, across, *spacing, *origin, 1)
    return struct.pack('>8I', *area, plane, planes, *pitch) + points + gains.tobytes()


def slow_gain(gains, y, x, size, origin, spacing):
    """Bilinear between points, at the center of a sample."""
    result = []
    for place, side, start, step, count in zip((y, x), size, origin, spacing, np.shape(gains)):
        position = min(max(((place + 0.5) / side - start) / step, 0), count - 1) if count > 1 else 0
        result.append((int(position), position - int(position)))
    (row, down), (column, across) = result

    def at(i, j):
        return gains[min(i, len(gains) - 1)][min(j, len(gains[0]) - 1)]

    top = at(row, column) * (1 - across) + at(row, column + 1) * across
    return top * (1 - down) + (at(row + 1, column) * (1 - across) + at(row + 1, column + 1) * across) * down


def read(path, **options):
    return read_raw(path, log_notes=False, **options)


@pytest.mark.parametrize('active', [None, (3, 5, 60, 90)])
def test_gain_maps_of_list_2_multiply_light(tmp_path, active):
    mosaic = random_mosaic(high=6000)
    top, left, bottom, right = active or (0, 0, 64, 96)
    size = bottom - top, right - left
    rng = np.random.default_rng(0)
    fields = [rng.uniform(1, 2, (3, 4)) for _ in range(4)]
    entries = [(GAIN_MAP, gain_map((y, x, *size), fields[2 * y + x], pitch=(2, 2))) for y in (0, 1) for x in (0, 1)]
    write_dng(tmp_path / 'a.dng', mosaic, OpcodeList2=opcodes(*entries), ActiveArea=active, NoiseProfile=(1e-4, 1e-6))
    frame = read(tmp_path / 'a.dng')
    gains = np.empty(size)
    for y in range(size[0]):
        for x in range(size[1]):
            field = fields[2 * (y % 2) + x % 2].astype(np.float32).astype(float)
            gains[y, x] = slow_gain(field, y, x, size, (0, 0), (1 / 2, 1 / 3))
    expected = 1024 + (mosaic[top:bottom, left:right] - 1024.0) * gains
    assert np.abs(frame.mosaic - expected).max() <= 0.51
    assert frame.metadata.noise_shot == pytest.approx(
        [1e-4 * gains[y::2, x::2].mean() for y in (0, 1) for x in (0, 1)], rel=1e-6)
    # Behind a denoiser the same factors are handed out, and samples and noise are as the sensor gave them.
    plain = read(tmp_path / 'a.dng', shading=False)
    assert np.array_equal(plain.mosaic, mosaic[top:bottom, left:right]) and plain.metadata.noise_shot == (1e-4,) * 4
    assert np.allclose(plain.shading.of_samples(0, *size), gains)
    for y in (0, 1):
        for x in (0, 1):
            own = plain.shading.of_place((y, x), np.arange(size[0]), np.arange(size[1]))
            assert np.allclose(own[y::2, x::2], gains[y::2, x::2])


def test_a_gain_map_of_a_part_and_of_list_1(tmp_path):
    mosaic = random_mosaic(high=6000)
    write_dng(tmp_path / 'a.dng', mosaic, OpcodeList2=opcodes((GAIN_MAP, gain_map((10, 20, 30, 50), [[2.0]], pitch=(3, 1)))))
    expected = mosaic.astype(float)
    expected[10:30:3, 20:50] = 1024 + (expected[10:30:3, 20:50] - 1024) * 2
    frame = read(tmp_path / 'a.dng', shading=False)  # not smooth, so it cannot wait
    assert np.array_equal(frame.mosaic, expected) and frame.shading is None
    # List 1 works on stored samples, the black level is not subtracted yet.
    write_dng(tmp_path / 'b.dng', mosaic, OpcodeList1=opcodes((GAIN_MAP, gain_map((0, 0, 64, 96), [[1.5]]))))
    assert np.abs(read(tmp_path / 'b.dng').mosaic - mosaic * 1.5).max() <= 0.5


def test_what_is_clipped_stays_so(tmp_path):
    mosaic = np.full((64, 96), 16383, np.uint16)
    mosaic[::3] = 9000
    write_dng(tmp_path / 'a.dng', mosaic, OpcodeList2=opcodes((GAIN_MAP, gain_map((0, 0, 64, 96), [[0.5]]))))
    found = read(tmp_path / 'a.dng').mosaic
    assert (found[1::3] == 16383).all() and np.array_equal(found[::3], np.full((22, 96), 1024 + (9000 - 1024) // 2))


@pytest.mark.parametrize('cfa', ['rggb', 'grbg'])
def test_bad_pixels_get_the_mean_of_their_neighbors(tmp_path, cfa):
    mosaic = random_mosaic()
    mosaic[10, 20] = mosaic[11, 20] = 0
    write_dng(tmp_path / 'a.dng', mosaic, cfa=cfa, OpcodeList1=opcodes((CONSTANT, struct.pack('>2I', 0, 1))))
    expected = mosaic.astype(float)
    for y, x in ((10, 20), (11, 20)):
        near = ((-1, -1), (-1, 1), (1, -1), (1, 1)) if cfa[2 * (y % 2) + x % 2] == 'g' else ((0, -2), (0, 2), (-2, 0), (2, 0))
        expected[y, x] = np.rint(np.mean([mosaic[y + j, x + i] for j, i in near]))
    assert np.array_equal(read(tmp_path / 'a.dng').mosaic, expected)


@pytest.mark.parametrize('number', [1, 2])
def test_lists_of_bad_pixels_count_from_the_stored_samples_or_the_active_area(tmp_path, number):
    mosaic = np.full((64, 96), 5000, np.uint16)
    places = [(8, 9), (20, 30), (0, 0), (63, 95)]
    off = (0, 0) if number == 1 else (2, 4)
    for y, x in places:
        mosaic[y, x] = 15000
    mosaic[40:44, 50:55] = 16000
    points = [value for y, x in places for value in (y - off[0], x - off[1])]
    area = (40 - off[0], 50 - off[1], 44 - off[0], 55 - off[1])
    content = struct.pack(f'>3I{len(points)}i4i', 0, len(places), 1, *points, *area)
    write_dng(tmp_path / 'a.dng', mosaic, ActiveArea=(2, 4, 60, 90), **{f'OpcodeList{number}': opcodes((LIST, content))})
    frame = read(tmp_path / 'a.dng')
    assert (frame.mosaic == 5000).all() and frame.mosaic.shape == (58, 86) and not frame.notes


def test_clusters_of_bad_pixels_are_filled_from_further_away():
    samples = np.full((20, 20), 7, np.uint16)
    bad = np.zeros((20, 20), bool)
    bad[4:13, 5:14] = True
    samples[bad] = 60000
    assert (fix_bad_pixels(samples, bad, 'rggb') == 7).all()


def test_other_opcodes_are_said_in_one_line(tmp_path, caplog):
    write_dng(tmp_path / 'a.dng', OpcodeList3=opcodes((WARP, bytes(68)), (VIGNETTE, bytes(56)), (WARP, bytes(68))),
              OpcodeList2=opcodes((7, bytes(40)), (99, b'')), OpcodeList1=opcodes((GAIN_MAP, b'short')))
    frame = read_raw(tmp_path / 'a.dng')
    assert len(frame.notes) == 1 and len(caplog.records) == 1
    for name in ('WarpRectilinear (list 3)', 'FixVignetteRadial (list 3)', 'MapTable (list 2)', 'opcode 99 (list 2)',
                 'the rest of list 1'):
        assert frame.notes[0].count(name) == 1
    assert np.array_equal(frame.mosaic, random_mosaic())


def test_a_map_for_planes_that_a_mosaic_has_not_is_left_out(tmp_path):
    mosaic = write_dng(tmp_path / 'a.dng', OpcodeList2=opcodes((GAIN_MAP, gain_map((0, 0, 64, 96), [[2.0]], plane=1))))
    assert np.array_equal(read(tmp_path / 'a.dng').mosaic, mosaic)


@pytest.mark.parametrize('content', [b'\0', struct.pack('>I', 5), struct.pack('>5I', 1, 9, 0, 0, 1 << 30), b'\xff' * 40])
def test_damaged_lists_are_said(tmp_path, content):
    write_dng(tmp_path / 'a.dng', OpcodeList2=content)
    assert 'damaged' in read(tmp_path / 'a.dng').notes[0]
