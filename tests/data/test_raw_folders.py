"""Folders as cameras, phones and data sets leave them, and clips whose frames differ in what the camera says."""
import json
import shutil
import subprocess

import cv2
import numpy as np
import pytest
import tifffile

from jddb_plugin.checks import DataError
from jddb_plugin.data.build import build
from jddb_plugin.data.folders import CAMERA_SUFFIXES, frames_of_folder
from jddb_plugin.data.frame_source import FrameSource
from jddb_plugin.data.raw_burst_dataset import RawBurstTestDataset
from jddb_plugin.data.raw_exif import exif_directories
from jddb_plugin.data.raw_reader import read_raw
from jddb_plugin.data.source_clips import find_clips
from jddb_plugin.data.verify import verify
from jddb_plugin.ops.cfa import cell_to_rggb
from jddb_plugin.restoration.bursts import burst_of_mosaics, find_bursts
from jddb_plugin.restoration.exif import read_exif
from tests.data.raw_files import Ifd, random_mosaic, tiff_bytes, write_dng, write_nested_dng
from tests.data.test_raw_damage import arw, cr2, cr3, nef, rw2

_EXIF = 34665


def test_hdrplus_bursts_jpegs_covers_and_side_files(tmp_path, caplog):
    for k in range(3):
        write_dng(tmp_path / f'payload_N00{k}.dng', random_mosaic(seed=k))
        tifffile.imwrite(tmp_path / f'lens_shading_map_N00{k}.tiff', np.ones((13, 17, 4), np.float32))
        cv2.imwrite(str(tmp_path / f'payload_N00{k}.JPG'), np.zeros((4, 4, 3), np.uint8))
        (tmp_path / f'payload_N00{k}.xmp').write_text('<x/>')
        (tmp_path / f'._payload_N00{k}.dng').write_bytes(b'AppleDouble')
    cv2.imwrite(str(tmp_path / 'COVER.jpg'), np.zeros((4, 4, 3), np.uint8))
    for name in ('reference_frame.txt', 'timing.txt', 'Thumbs.db', '.DS_Store', 'metadata.json'):
        (tmp_path / name).write_text('1\n')
    burst, = find_bursts(tmp_path)
    assert burst.frames == ('payload_N000.dng', 'payload_N001.dng', 'payload_N002.dng') and not burst.is_video
    assert 'skipped 7 pictures beside raw files' in caplog.text
    assert frames_of_folder(tmp_path)[1]


@pytest.mark.parametrize('suffix', ['.RW2', '.Rwl', '.raw', '.3FR', '.iiq', '.mef', '.MRW', '.kdc', '.dcr', '.erf', '.mos',
                                    '.sr2',
                                    '.srw', '.fff', '.cap', '.nrw', '.pef'])
def test_every_suffix_that_libraw_knows_is_a_frame(tmp_path, suffix):
    pytest.importorskip('rawpy')
    (tmp_path / f'a{suffix}').write_bytes(rw2())
    burst, = find_bursts(tmp_path)
    assert burst.read(0).mosaic.shape == (280, 420) and suffix.lower() in CAMERA_SUFFIXES


def test_one_shot_in_two_formats_is_refused(tmp_path):
    write_dng(tmp_path / 'a.dng')
    shutil.copy(tmp_path / 'a.dng', tmp_path / 'a.CR2')
    with pytest.raises(DataError, match='holds the same shot twice, a.(CR2|dng) and a.(CR2|dng)'):
        find_bursts(tmp_path)


def test_mosaics_of_one_file_are_a_burst(tmp_path):
    mosaics = [random_mosaic(seed=seed) for seed in range(3)]
    write_nested_dng(tmp_path / 'roll.dng', mosaics)
    burst = burst_of_mosaics(tmp_path / 'roll.dng')
    assert burst.name == 'roll' and burst.frames == ('roll.dng [0]', 'roll.dng [1]', 'roll.dng [2]')
    assert all(np.array_equal(burst.read(k).mosaic, np.minimum(mosaic, 16383)) for k, mosaic in enumerate(mosaics))
    assert [one.name for one in find_bursts(tmp_path, frames_of_file=True)] == ['roll']
    with pytest.raises(DataError, match='holds 3 mosaics .*--frames-of-file'):
        find_bursts(tmp_path)
    with pytest.raises(DataError, match='not a camera file'):
        burst_of_mosaics(tmp_path / 'a.png')


def _clip(tmp_path, size=(33, 47), frames=3):
    """A clip whose noise, white balance, black level and orientation change from frame to frame."""
    (tmp_path / 'in' / 'clip').mkdir(parents=True)
    mosaics = []
    for k in range(frames):
        mosaics.append(write_dng(tmp_path / 'in' / 'clip' / f'{k}.dng', random_mosaic(size, seed=k), cfa='grbg',
                                 BlackLevel=1000 + 10 * k,
                                 NoiseProfile=(1e-3 * (k + 1), 1e-6), AsShotNeutral=(0.5 + 0.1 * k, 1, 0.6), Orientation=1 + k))
    build(find_clips(tmp_path / 'in'), str(tmp_path / 'x.lmdb'))
    return mosaics


def test_an_lmdb_keeps_what_is_said_of_every_frame(tmp_path):
    mosaics = _clip(tmp_path)
    source = FrameSource(str(tmp_path / 'x.lmdb'), {'type': 'lmdb'}, 'test', frames='mosaic')
    clip = source.clips['clip']
    assert clip.size == (33, 47)  # odd sides are kept
    burst, = find_bursts(tmp_path / 'x.lmdb')
    for k, mosaic in enumerate(mosaics):
        meta = source.metadata(clip, k)
        assert np.array_equal(source.read(clip, k), mosaic) and burst.read(k).metadata == meta
        assert meta.noise_shot == pytest.approx((1e-3 * (k + 1),) * 4) and meta.black_level == (1000 + 10 * k,) * 4
        assert meta.white_balance[0] == pytest.approx(1 / (0.5 + 0.1 * k)) and meta.orientation == 1 + k
    summary, problems = verify(tmp_path / 'x.lmdb', workers=0)
    assert not problems and 'sound' in summary


def test_data_sets_use_what_is_said_of_every_frame(tmp_path):
    mosaics = _clip(tmp_path)
    sample = RawBurstTestDataset({'name': 'x', 'dataroot_lq': str(tmp_path / 'x.lmdb'), 'num_frame': 3})[1]
    assert sample['lq'].shape == (3, 8, 16, 23)
    for k, mosaic in enumerate(mosaics):
        red = (mosaic[0:32:2, 1:47:2] - (1000.0 + 10 * k)) / (16383 - (1000 + 10 * k))
        assert np.allclose(sample['lq'][k, 0], red, atol=1e-5)
        assert np.allclose(sample['lq'][k, 4] ** 2, 1e-3 * (k + 1) * red + 1e-6, rtol=1e-3)
    assert float(sample['camera'].red_gain) == pytest.approx(1 / 0.6)  # of the reference
    assert cell_to_rggb((0, 1, 2, 3), 'grbg') == (1, 0, 3, 2)


def test_frames_that_do_not_differ_need_nothing_of_their_own(tmp_path):
    (tmp_path / 'in' / 'clip').mkdir(parents=True)
    for k in range(2):
        write_dng(tmp_path / 'in' / 'clip' / f'{k}.dng', random_mosaic(seed=k))
    build(find_clips(tmp_path / 'in'), str(tmp_path / 'x.lmdb'))
    assert 'clip/00000001/metadata' not in (tmp_path / 'x.lmdb' / 'checksums.txt').read_text()


@pytest.mark.parametrize('noted', ['zeros', 'opcodes'])
def test_notes_are_told_once_for_a_clip(tmp_path, caplog, noted):
    (tmp_path / 'in' / 'clip').mkdir(parents=True)
    for k in range(3):
        write_dng(tmp_path / 'in' / 'clip' / f'{k}.dng', random_mosaic(seed=k), NoiseProfile=(0.0, 0.0))
    build(find_clips(tmp_path / 'in'), str(tmp_path / 'x.lmdb'))
    assert caplog.text.count('counts as missing') == 1


def _shot():
    return {'ExposureTime': 0.008, 'FNumber': 2.8, 'ISO': 400, 'DateTimeOriginal': '2026:11:25 12:00:00', 'FocalLength': 35,
            'LensModel': 'Lens 35'}


def _jpeg_of(camera, shot):
    block = b'Exif\0\0' + tiff_bytes([Ifd(camera, exif=Ifd(shot))])
    return b'\xff\xd8\xff\xe1' + (len(block) + 2).to_bytes(2, 'big') + block + b'\xff\xd9'


def _fuji():
    picture = _jpeg_of({'Make': 'FUJIFILM', 'Model': 'X100'}, _shot())
    head = b'FUJIFILMCCD-RAW '.ljust(84, b'\0') + (108).to_bytes(4, 'big') + len(picture).to_bytes(4, 'big') + bytes(16)
    return head + picture


def _panasonic():
    return tiff_bytes([Ifd({'Make': 'Panasonic', 'Model': 'DMC-LX3', 1: (7, b'0300'), 46: (7, _jpeg_of({}, _shot()))})],
                      magic=0x55)


def _olympus():
    return tiff_bytes([Ifd({'Make': 'OLYMPUS', 'Model': 'E-M1'}, exif=Ifd(_shot()))], magic=0x4F52)


@pytest.mark.parametrize(('content', 'make', 'model'), [
    (_fuji, 'FUJIFILM', 'X100'), (_panasonic, 'Panasonic', 'DMC-LX3'), (_olympus, 'OLYMPUS', 'E-M1'),
    (lambda: cr3(), 'Canon', 'Canon EOS R5'), (nef, 'NIKON CORPORATION', 'NIKON D200'), (arw, 'SONY', 'DSLR-A900'),
    (cr2, 'Canon', 'Canon EOS 40D'), (rw2, 'Panasonic', 'DMC-LX3')])
def test_exif_of_camera_files(tmp_path, content, make, model):
    (tmp_path / 'a.raw').write_bytes(content())
    exif = read_exif(tmp_path / 'a.raw')
    assert (exif[271], exif[272]) == (make, model)
    shot = exif.get_ifd(_EXIF)
    if content in (_fuji, _panasonic, _olympus) or make == 'Canon' and model.endswith('R5'):
        assert float(shot[33434]) == pytest.approx(1 / 125) and shot[34855] == 400
    if content is rw2:
        assert shot[34855] == 80


@pytest.mark.parametrize('content', [_fuji, _panasonic, _olympus, cr3, rw2])
def test_cut_exif_is_left_out(tmp_path, content):
    whole = content()
    for cut in range(0, min(len(whole), 700), 9):
        (tmp_path / 'a.raw').write_bytes(whole[:cut])
        read_exif(tmp_path / 'a.raw')
        exif_directories(whole[:cut])


def test_dng_keeps_its_exif(tmp_path):
    mosaic = random_mosaic()
    from tests.data.raw_files import camera_tags, mosaic_tags, raw_bytes
    (tmp_path / 'a.dng').write_bytes(tiff_bytes([Ifd({**mosaic_tags(mosaic), **camera_tags(), 'WhiteLevel': 16383},
                                                     raw_bytes(mosaic),
                                                     exif=Ifd(_shot()))]))
    read_raw(tmp_path / 'a.dng')
    assert read_exif(tmp_path / 'a.dng').get_ifd(_EXIF)[42036] == 'Lens 35'


@pytest.mark.parametrize(('content', 'suffix'), [(_fuji, 'raf'), (_panasonic, 'rw2'), (_olympus, 'orf'), (cr3, 'cr3'),
                                                 (nef, 'nef')])
def test_exif_is_what_exiftool_finds(tmp_path, content, suffix):
    if shutil.which('exiftool') is None:
        pytest.skip('exiftool is not installed (Debian: libimage-exiftool-perl)')
    (tmp_path / f'a.{suffix}').write_bytes(content())
    found, = json.loads(subprocess.run(['exiftool', '-j', '-n', str(tmp_path / f'a.{suffix}')], capture_output=True).stdout)
    exif = read_exif(tmp_path / f'a.{suffix}')
    assert (found['Make'], found['Model']) == (exif[271], exif[272])
    for name, tag in (('ExposureTime', 33434), ('ISO', 34855), ('FocalLength', 37386), ('LensModel', 42036)):
        value = exif.get_ifd(_EXIF).get(tag)
        if name in found:
            assert value == pytest.approx(found[name]) if not isinstance(value, str) else value == found[name]
        else:
            assert value is None
