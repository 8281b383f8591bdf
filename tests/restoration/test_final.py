"""Pictures of raw files: cut, stretched and turned as the camera wants, in its colors, corrected for shading, or as DNGs."""
import dataclasses
import json
import shutil
import subprocess

import cv2
import numpy as np
import pytest
import tifffile
import torch

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.data.images import decode_srgb
from jddb_plugin.data.raw_reader import read_raw
from jddb_plugin.ops.camera import Camera
from jddb_plugin.restoration.bursts import burst_of_files, find_bursts, noisy_frame
from jddb_plugin.restoration.developing import Developer, noisy_rows
from jddb_plugin.restoration.export_burst import export_burst, photograph_burst
from jddb_plugin.restoration.frames import load_frames
from jddb_plugin.restoration.geometry import final_picture, final_size
from jddb_plugin.restoration.inputs import bursts_of
from jddb_plugin.restoration.picture import FORMATS
from jddb_plugin.restoration.restorer import Restorer, Settings
from jddb_plugin.restoration.rows import Rows
from jddb_plugin.restore import main
from tests.data.raw_files import MATRIX_A, write_dng, write_nested_dng
from tests.data.test_dng_opcodes import GAIN_MAP, gain_map, opcodes
from tests.restoration.restore_run import error_line
from tests.restoration.samples import ARGUMENTS, CAMERA, TILES, save_net, scenes

_NOISE = (2.5e-3, 1e-2)
#: The setting that says what the picture file holds.
_FORMAT = {'format', 'kind'} & {field.name for field in dataclasses.fields(Settings)}


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return save_net(tmp_path_factory.mktemp('net') / 'net.pth')


def restore(weights, burst, output, kind='png', **options):
    settings = Settings(**dict.fromkeys(_FORMAT, kind), device='cpu', **TILES, **options)
    return Restorer(str(weights), settings).restore(burst, output, progress=False)


def scene_mosaic(size=(64, 96), cfa='rggb', *, white=16383, black=1024, shift=0, level=1.0):
    """A smooth scene in muted colors as a sensor sees it."""
    rgb = scenes(1, (size[0] + 8, size[1] + 8), seed=3)[0][shift:shift + size[0], shift:shift + size[1]] * level
    rgb = 0.6 * rgb + 0.4 * rgb.mean(axis=2, keepdims=True)
    mosaic = np.empty(size)
    for place, letter in enumerate(cfa):
        y, x = divmod(place, 2)
        mosaic[y::2, x::2] = rgb[y::2, x::2, 'rgb'.index(letter)] * {'r': 0.45, 'g': 0.9, 'b': 0.55}[letter]
    return np.rint(black + mosaic * (white - black)).astype(np.uint16)


def write_burst(folder, count=3, size=(64, 96), **tags):
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        write_dng(folder / f'{k}.dng', scene_mosaic(size, shift=k), **{'NoiseProfile': (1e-3, 1e-5), **tags})
    return folder


@pytest.mark.parametrize('in_file', [False, True])
@pytest.mark.parametrize(('aspect', 'crop'), [(1.0, (2, 5, 30, 21)), (0.5, None), (2.0, None), (0.75, (1, 2, 31, 40)),
                                              (1.0, None),
                                              (1.0, (0, 0, 99, 99))])
def test_pictures_are_cut_and_stretched(tmp_path, aspect, crop, in_file):
    values = np.random.default_rng(0).integers(0, 65536, (40, 50, 3)).astype(np.uint16)
    rows = Rows(values.shape, values.dtype, folder=tmp_path if in_file else None)
    rows.write(0, values)
    camera = dataclasses.replace(CAMERA, pixel_aspect=aspect, crop=crop)
    final = final_picture(rows, camera)
    if aspect == 1 and (crop is None or crop[2] == 99):
        assert final is None
        return
    top, left, height, width = crop or (0, 0, 40, 50)
    part = values[top:top + height, left:left + width].astype(float)
    wanted = (round(height / aspect), width) if aspect < 1 else (height, round(width * aspect))
    assert final.shape[:2] == wanted == final_size(camera, (40, 50))
    for axis in (0, 1):
        place = np.clip((np.arange(wanted[axis]) + 0.5) * part.shape[axis] / wanted[axis] - 0.5, 0, part.shape[axis] - 1)
        low = np.floor(place).astype(int)
        share = (place - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        part = np.take(part, low, axis) * (1 - share) + np.take(part, np.minimum(low + 1, part.shape[axis] - 1), axis) * share
    assert np.abs(final.read(0, wanted[0]) - part).max() <= 2


def test_a_burst_is_restored_to_the_size_that_its_tags_say(tmp_path, weights):
    folder = write_burst(tmp_path / 'b', Orientation=6, DefaultScale=(1, 2), DefaultCropOrigin=(4, 6), DefaultCropSize=(80, 50))
    restore(weights, folder, tmp_path / 'a.png')
    assert cv2.imread(str(tmp_path / 'a.png')).shape == (80, 100, 3)
    restore(weights, folder, tmp_path / 'a.tif', 'linear16')
    assert tifffile.imread(tmp_path / 'a.tif').shape == (80, 100, 3)


def test_clipped_white_is_white_whatever_the_gains(tmp_path, weights):
    folder = tmp_path / 'b'
    folder.mkdir()
    for k in range(3):
        mosaic = scene_mosaic(shift=k)
        mosaic[20:44, 20:60] = 16383
        write_dng(folder / f'{k}.dng', mosaic, NoiseProfile=(1e-3, 1e-5), AsShotNeutral=(1.0, 0.8, 0.32))
    frames = load_frames(find_bursts(folder)[0], reference=1, count=None, noise='metadata')
    for gain in (1.0, 0.5):
        rows = Developer(frames, gain, FORMATS['linear32']).rgb(noisy_rows(frames, 0, frames.packed_size[0]))
        assert np.allclose(rows[28:36, 28:52], gain, atol=1e-4)
    camera = Camera.of(red_gain=3.0, blue_gain=0.5, cam2rgb=torch.eye(3))
    assert np.allclose(camera.develop_linear(torch.ones(3, 1, 1)), 1)


def _chromaticity(picture):
    mean = picture.reshape(-1, 3).astype(float).mean(axis=0)
    return mean / mean.sum()


def _libraw(path):
    rawpy = pytest.importorskip('rawpy')
    with rawpy.imread(str(path)) as raw:
        return _chromaticity(raw.postprocess(use_camera_wb=True, no_auto_bright=True, gamma=(1, 1), output_bps=16,
                                             user_flip=0))


def _developed(path):
    """The reference as the restore command develops it, without the network."""
    frames = load_frames(burst_of_files([path, path]), reference=0, count=None, noise=_NOISE)
    return _chromaticity(Developer(frames, 1.0, FORMATS['linear32']).rgb(noisy_rows(frames, 0, frames.packed_size[0])))


@pytest.mark.parametrize('tags', [
    {}, {'cfa': 'bggr'}, {'AsShotNeutral': (0.9, 1, 0.4)}, {'BlackLevel': (1000, 1010, 1020, 1030),
                                                            'BlackLevelRepeatDim': (2, 2)},
    {'ColorMatrix2': None, 'CalibrationIlluminant2': None}, {'AnalogBalance': (1.2, 1, 0.9)}, {'WhiteLevel': 15000},
    {'ActiveArea': (3, 5, 63, 90)}, {'CameraCalibration1': (1.02, 0, 0, 0, 1, 0, 0, 0, 0.97), 'CameraCalibration2': (
        1.02, 0, 0, 0, 1, 0, 0, 0, 0.97)}, {'CalibrationIlluminant1': 21, 'CalibrationIlluminant2': 17, 'ColorMatrix1': (
            1.0234, -0.2969, -0.2266, -0.5625, 1.6328, -0.0469, -0.0703, 0.2188, 0.6406), 'ColorMatrix2': MATRIX_A}])
def test_no_color_cast_against_libraws_own_development(tmp_path, tags):
    cfa = 'bggr' if 'ActiveArea' in tags else tags.get('cfa', 'rggb')  # odd margins: the pattern begins at the active area
    write_dng(tmp_path / 'a.dng', scene_mosaic(cfa=cfa), **tags)
    assert _developed(tmp_path / 'a.dng') == pytest.approx(_libraw(tmp_path / 'a.dng'), rel=0.02)


def test_no_color_cast_of_a_cameras_file(shared):
    path = shared('raw/dng/colorchart.dng')
    assert _developed(path) == pytest.approx(_libraw(path), rel=0.02)


def test_a_restored_dng_is_what_the_picture_is(tmp_path, weights):
    folder = write_burst(tmp_path / 'b', Orientation=6, ActiveArea=(1, 0, 63, 96), DefaultCropOrigin=(4, 6),
                         DefaultCropSize=(80, 50),
                         DefaultScale=(1, 2), CameraCalibration1=(1.02, 0, 0, 0, 1, 0, 0, 0, 0.97))
    restore(weights, folder, tmp_path / 'a.dng', 'dng')
    linear = restore(weights, folder, None, 'linear32').picture
    rawpy = pytest.importorskip('rawpy')
    with rawpy.imread(str(tmp_path / 'a.dng')) as raw:
        assert raw.raw_type.name == 'Stack' and raw.sizes.flip == 6 and raw.sizes.pixel_aspect == 0.5
        assert raw.raw_image_visible.shape[:2] == (62, 96) and raw.white_level == 65535
        assert np.array(raw.camera_whitebalance[:3]) == pytest.approx((2, 1, 1.6), rel=1e-4)
        samples = raw.raw_image_visible[..., :3] / 65535
    frames = load_frames(find_bursts(folder)[0], reference='sharpest', count=None, noise='metadata')
    developed = Developer(frames, 1.0, FORMATS['linear32']).rgb(torch.from_numpy(samples).float().permute(2, 0, 1))
    assert np.abs(developed - linear).max() < 2e-4
    assert _libraw(tmp_path / 'a.dng') == pytest.approx(_chromaticity(linear), rel=0.02)


def test_a_restored_dng_has_the_cameras_tags(tmp_path, weights):
    if shutil.which('exiftool') is None:
        pytest.skip('exiftool is not installed (Debian: libimage-exiftool-perl)')
    folder = write_burst(tmp_path / 'b', order='>', Orientation=8, AsShotNeutral=None, AsShotWhiteXY=(0.4, 0.39))
    restore(weights, folder, tmp_path / 'a.dng', 'dng')

    def tags(path):
        return json.loads(subprocess.run(['exiftool', '-j', '-n', '-validate', '-all', str(path)], capture_output=True,
                                         check=True).stdout)[0]

    before, after = tags(folder / '1.dng'), tags(tmp_path / 'a.dng')
    assert after['Validate'] == '0 0 0'
    for name in ('Make', 'Model', 'UniqueCameraModel', 'ColorMatrix1', 'ColorMatrix2', 'CalibrationIlluminant1',
                 'CalibrationIlluminant2',
                 'AsShotWhiteXY', 'Orientation'):
        assert after[name] == before[name], name
    assert 'AsShotNeutral' not in after and after['PhotometricInterpretation'] == 34892 and after['BitsPerSample'] == '16 16 16'


def test_shading_is_corrected_behind_the_network(tmp_path, weights):
    fields = [np.random.default_rng(k).uniform(1, 1.6, (3, 4)) for k in range(4)]
    entries = [(GAIN_MAP, gain_map((y, x, 64, 96), fields[2 * y + x], pitch=(2, 2))) for y in (0, 1) for x in (0, 1)]
    plain = write_burst(tmp_path / 'plain', cfa='grbg')
    shaded = write_burst(tmp_path / 'shaded', cfa='grbg', OpcodeList2=opcodes(*entries))
    before, after = (restore(weights, folder, None, 'dng').picture.astype(float) for folder in (plain, shaded))
    frame = read_raw(shaded / '1.dng', shading=False)
    rows, columns = np.arange(64), np.arange(96)
    of = {place: frame.shading.of_place(divmod(place, 2), rows, columns) for place in range(4)}
    factors = np.stack([of[1], (of[0] + of[3]) / 2, of[2]], axis=-1)  # grbg
    expected = np.minimum(before * factors, 65535)
    inner = np.s_[2:-2, 2:-2]
    assert np.abs(after[inner] - expected[inner]).max() <= 2


def test_lens_shading_maps_are_used_when_asked_for(tmp_path, weights):
    folder = write_burst(tmp_path / 'b')
    factors = np.random.default_rng(0).uniform(1, 1.5, (5, 7, 4)).astype(np.float32)
    for k in range(3):
        (folder / f'{k}.dng').rename(folder / f'payload_N00{k}.dng')
        tifffile.imwrite(folder / f'lens_shading_map_N00{k}.tiff', factors)
    plain, shaded = (restore(weights, bursts_of([folder], lens_shading=asked)[0], None, 'dng').picture for asked in (False, True))
    ratio = shaded[8:-8, 8:-8].astype(float) / np.maximum(plain[8:-8, 8:-8], 1)
    assert (ratio[plain[8:-8, 8:-8] > 5000] > 1.0).all()
    assert np.abs(shaded[0, 0, 0] / max(plain[0, 0, 0], 1) - factors[0, 0, 0]) < 0.02 or plain[0, 0, 0] < 500
    (folder / 'lens_shading_map_N001.tiff').unlink()
    with pytest.raises(DataError, match='payload_N001.dng: has no lens shading map beside it'):
        load_frames(bursts_of([folder], lens_shading=True)[0], reference=1, count=None, noise='metadata')
    tifffile.imwrite(folder / 'lens_shading_map_N001.tiff', factors[..., 0])
    with pytest.raises(DataError, match='lens_shading_map_N001.tiff: expected positive factors'):
        load_frames(bursts_of([folder], lens_shading=True)[0], reference=1, count=None, noise='metadata')


def test_mosaics_of_a_file_are_restored(tmp_path, weights):
    write_nested_dng(tmp_path / 'roll.dng', [scene_mosaic(shift=k) for k in range(3)], NoiseProfile=(1e-3, 1e-5))
    burst, = bursts_of([tmp_path / 'roll.dng'], frames_of_file=True)
    result = restore(weights, burst, tmp_path / 'a.png')
    assert len(result.frames.names) == 3 and cv2.imread(str(tmp_path / 'a.png')).shape == (64, 96, 3)


def _pictures(folder, count=3):
    folder.mkdir()
    for index, rgb in enumerate(scenes(count, (41, 47))):
        cv2.imwrite(str(folder / f'{index}.png'), (255 * rgb[..., ::-1]).astype(np.uint8))
    return folder


def test_video_frames_are_exported_as_dngs(tmp_path):
    folder = _pictures(tmp_path / 'video', 7)
    files = export_burst(find_bursts(folder, noise=_NOISE)[0], tmp_path / 'out')
    assert [file.name for file in files] == [f'00{k}.dng' for k in range(5)]
    for number, file in enumerate(files):
        index = number + 1
        expected = noisy_frame(decode_srgb((folder / f'{index}.png').read_bytes(), ''), index, _NOISE, '')
        frame = read_raw(file)
        assert np.array_equal(frame.mosaic, expected.mosaic) and not frame.notes
        meta = frame.metadata
        assert meta.noise_shot == pytest.approx((_NOISE[0],) * 4) and meta.noise_read == pytest.approx((_NOISE[1],) * 4)
        assert meta.white_balance == pytest.approx(expected.metadata.white_balance, rel=1e-4)
        assert np.allclose(meta.color_matrix, expected.metadata.color_matrix, atol=1e-5)
        assert (meta.cfa, meta.black_level, meta.white_level) == ('rggb', (0,) * 4, (65535,) * 4)
    assert len(export_burst(find_bursts(folder, noise=_NOISE)[0], tmp_path / 'three', frames=3, reference=0)) == 3
    with pytest.raises(DataError, match=r'out: holds other frames \(003.dng\)'):
        export_burst(find_bursts(folder, noise=_NOISE)[0], tmp_path / 'out', frames=3)
    assert len(list((tmp_path / 'out').iterdir())) == 5


def test_exported_dngs_are_read_by_libraw_and_valid(tmp_path):
    rawpy = pytest.importorskip('rawpy')
    burst, = bursts_of([_pictures(tmp_path / 'v') / '1.png'], noise=_NOISE, photographs=5)
    files = export_burst(burst, tmp_path / 'out')
    assert len(files) == 5
    for file in files:
        with rawpy.imread(str(file)) as raw:
            assert np.array_equal(raw.raw_image_visible, read_raw(file).mosaic)
        if shutil.which('exiftool') is not None:
            said = subprocess.run(['exiftool', '-validate', '-s3', str(file)], capture_output=True, text=True, check=True).stdout
            assert said.strip() == 'OK'


def test_a_photograph_is_seen_by_a_moving_hand(tmp_path):
    picture = _pictures(tmp_path / 'v') / '0.png'
    burst = photograph_burst(picture, _NOISE, frames=3)
    first, again, other = burst.read(0), photograph_burst(picture, _NOISE, frames=3).read(0), burst.read(1)
    assert np.array_equal(first.mosaic, again.mosaic) and not np.array_equal(first.mosaic, other.mosaic)
    assert first.mosaic.shape == (36, 42)
    with pytest.raises(OptionError, match='an odd number'):
        photograph_burst(picture, _NOISE, frames=4)
    with pytest.raises(OptionError, match='give --noise'):
        export_burst(photograph_burst(picture, None), tmp_path / 'out')


def test_raw_bursts_are_not_exported(tmp_path):
    with pytest.raises(DataError, match='is raw already'):
        export_burst(find_bursts(write_burst(tmp_path / 'b'))[0], tmp_path / 'out')


def test_notes_are_told_once_for_a_burst(tmp_path, caplog):
    folder = write_burst(tmp_path / 'b', AsShotNeutral=None)
    load_frames(find_bursts(folder)[0], reference=1, count=None, noise='metadata')
    assert caplog.text.count('developed for daylight') == 1


def test_the_command_from_an_exported_burst_to_a_dng(tmp_path, weights, capfd):
    picture, burst, roll = _pictures(tmp_path / 'v') / '1.png', tmp_path / 'burst', tmp_path / 'roll.dng'
    assert main([str(picture), '--noise', 'low', '--export-burst', str(burst)]) == 0
    assert len(list(burst.iterdir())) == 5
    assert main([str(burst), '-o', str(tmp_path / 'a.dng'), '--weights', str(weights), *ARGUMENTS]) == 0
    assert tifffile.imread(tmp_path / 'a.dng').shape == (36, 42, 3)
    capfd.readouterr()
    write_nested_dng(roll, [scene_mosaic(shift=k) for k in range(2)], NoiseProfile=(1e-3, 1e-5))
    arguments = [str(roll), '-o', str(tmp_path / 'roll.png'), '--weights', str(weights), *ARGUMENTS]
    assert main(arguments) == 2
    assert '--frames-of-file' in error_line(capfd)
    assert main([*arguments, '--frames-of-file']) == 0
    assert (tmp_path / 'roll.png').is_file()
