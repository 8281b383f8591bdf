import io
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, TiffImagePlugin

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.restoration import picture as picture_module
from jddb_plugin.restoration.exif import exif_summary, read_exif, tiff_tags
from jddb_plugin.restoration.picture import FORMATS, check_suffix, quantize, write_picture
from jddb_plugin.restoration.rows import Rows
from tests.restoration.samples import command

_BASE, _SHOT = ExifTags.Base, ExifTags.IFD.Exif
#: How Pillow turns a picture of each EXIF orientation upright.
_UPRIGHT = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90}


def _values(dtype, shape=(37, 23, 3)):
    values = np.random.default_rng(0).random(shape)
    return values.astype(dtype) if np.dtype(dtype).kind == 'f' else (values * (np.iinfo(dtype).max + 0.99)).astype(dtype)


def _rows(values, folder=None):
    rows = Rows(values.shape, values.dtype, folder=folder)
    rows.write(0, values)
    return rows


def _upright(values, orientation):
    if _UPRIGHT[orientation] is None:
        return values
    places = Image.fromarray(np.arange(values.shape[0] * values.shape[1], dtype=np.int32).reshape(values.shape[:2]))
    return values.reshape(-1, 3)[np.asarray(places.transpose(_UPRIGHT[orientation]))]


def _exif():
    exif = Image.Exif()
    exif[int(_BASE.Make)], exif[int(_BASE.Model)] = 'Maker', 'Maker One'
    shot = exif.get_ifd(_SHOT)
    shot[int(_BASE.ExposureTime)] = TiffImagePlugin.IFDRational(1, 30)
    shot[int(_BASE.ISOSpeedRatings)] = 800
    shot[int(_BASE.ExposureBiasValue)] = TiffImagePlugin.IFDRational(-1, 3)
    return exif


@pytest.mark.parametrize('in_file', [False, True])
@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('name', [name for name in FORMATS if name != 'dng'])
def test_every_format_and_orientation_is_read_back(tmp_path, monkeypatch, name, orientation, in_file):
    kind = FORMATS[name]
    values = _values(kind.dtype)
    monkeypatch.setattr(picture_module, '_STRIP_BYTES', 5 * 23 * 3 * np.dtype(kind.dtype).itemsize)  # 5 rows, and a rest
    path = tmp_path / f'a{kind.suffix}'
    write_picture(path, _rows(values, tmp_path if in_file else None), kind, orientation=orientation, exif=_exif(),
                  description={'name': 'h\xe9 \ud800 "x"'})
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    expected = _upright(values, orientation)
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found.dtype == kind.dtype and np.array_equal(found[..., ::-1], expected)
    if kind.suffix == '.tif':
        with tifffile.TiffFile(path) as file:
            assert np.array_equal(file.asarray(), expected) and len(file.pages) == 1
            assert (34675 in file.pages[0].tags) != kind.linear  # a profile of sRGB
            assert file.pages[0].tags[271].value == 'Maker' and file.pages[0].tags[34855].value == 800
    if kind.dtype is np.float32:  # Pillow does not know colors of 32 bits
        return
    with Image.open(path) as image:
        if kind.dtype is np.uint8:
            assert image.mode == 'RGB' and np.array_equal(np.asarray(image), expected)
        text = image.info['Description'] if kind.suffix == '.png' else image.tag_v2[270]
        assert json.loads(text)['name'] == 'h\xe9 \ud800 "x"'
        exif = image.getexif()
        assert (exif[_BASE.Make], exif[_BASE.Model]) == ('Maker', 'Maker One')
        assert exif.get(_BASE.Orientation, 1) == 1  # it is upright already
        shot = exif.get_ifd(_SHOT) or exif
        assert float(shot[_BASE.ExposureTime]) == pytest.approx(1 / 30, abs=1e-6) and shot[_BASE.ISOSpeedRatings] == 800
        assert float(shot[_BASE.ExposureBiasValue]) == pytest.approx(-1 / 3, abs=1e-3)


def test_a_large_picture_is_written_in_several_strips(tmp_path):
    values = _values(np.uint16, (300, 5000, 3))
    for name in ('png16', 'tiff16'):
        path = tmp_path / f'a{FORMATS[name].suffix}'
        write_picture(path, _rows(values, tmp_path), FORMATS[name], orientation=6, exif=Image.Exif(), description={})
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(found[..., ::-1], np.rot90(values, -1))


def test_the_tags_of_the_shot_alone_are_kept_too(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(_SHOT)[int(_BASE.ISOSpeedRatings)] = 400
    write_picture(tmp_path / 'a.png', _rows(_values(np.uint8)), FORMATS['png'], orientation=1, exif=exif, description={})
    with Image.open(tmp_path / 'a.png') as image:
        assert image.getexif().get_ifd(_SHOT)[_BASE.ISOSpeedRatings] == 400
    write_picture(tmp_path / 'b.png', _rows(_values(np.uint8)), FORMATS['png'], orientation=1, exif=Image.Exif(), description={})
    assert b'eXIf' not in (tmp_path / 'b.png').read_bytes()


def test_values_are_rounded_and_floats_kept():
    values = np.array([0, 0.5 / 255, 0.51 / 255, 1 / 3, 1], np.float32)
    assert quantize(values, np.uint8).tolist() == [0, 0, 1, 85, 255] and quantize(values, np.uint16)[-1] == 65535
    assert quantize(values, np.float32).tolist() == values.tolist()


@pytest.mark.parametrize('name', ['png', 'tiff16'])
@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_nothing_is_left_of_a_picture_that_was_not_finished(tmp_path, monkeypatch, name, error):
    kind = FORMATS[name]
    path = tmp_path / f'a{kind.suffix}'
    path.write_bytes(b'the one before')
    values = _values(kind.dtype)
    monkeypatch.setattr(picture_module, '_STRIP_BYTES', 1)

    class Broken(Rows):
        def read(self, first, last):
            if first > 20:
                raise error
            return super().read(first, last)

    rows = Broken(values.shape, values.dtype)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else DataError) as caught:
        write_picture(path, rows, kind, orientation=1, exif=_exif(), description={})
    assert path.read_bytes() == b'the one before' and [file.name for file in tmp_path.iterdir()] == [path.name]
    if isinstance(error, OSError):
        assert str(caught.value).startswith(f'{path}: cannot be written (No space left on device); free some space')


def test_a_folder_in_the_way_is_told(tmp_path):
    (tmp_path / 'a.png').mkdir()
    with pytest.raises(DataError, match='a.png: cannot be written'):
        write_picture(tmp_path / 'a.png', _rows(_values(np.uint8)), FORMATS['png'], orientation=1, exif=_exif(), description={})
    with pytest.raises(OptionError, match='has the wrong suffix; format tiff16 needs .tif'):
        check_suffix(tmp_path / 'a.png', 'tiff16')
    check_suffix(tmp_path / 'a.TIFF', 'linear32')


_FULL = '''
import resource, sys, signal
from pathlib import Path
import numpy as np
from PIL import Image
from jddb_plugin.checks import DataError
from jddb_plugin.restoration.picture import FORMATS, write_picture
from jddb_plugin.restoration.rows import Rows
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
values = np.random.default_rng(0).integers(0, 256, (100, 200, 3)).astype(np.uint8)
rows = Rows(values.shape, values.dtype)
rows.write(0, values)
for name in ('png', 'tiff'):
    try:
        write_picture(Path(sys.argv[1]) / f'a.{name}'[:5], rows, FORMATS[name], orientation=1, exif=Image.Exif(), description={})
    except DataError as error:
        sys.stdout.write(f'{error}\\n')
try:
    Rows(values.shape, values.dtype, folder=Path(sys.argv[1])).write(0, values)
except DataError as error:
    sys.stdout.write(f'{error}\\n')
'''


def test_a_full_disk_is_told_in_one_line(tmp_path):
    _, environment = command()
    result = subprocess.run([sys.executable, '-c', _FULL, str(tmp_path)], env=environment, capture_output=True, text=True)
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and not result.stderr and len(lines) == 3, result
    assert lines[0].startswith(f'{tmp_path}/a.png: cannot be written (File too large)')
    assert lines[1].startswith(f'{tmp_path}/a.tif: cannot be written (File too large)')
    assert 'a temporary file of 0 MB cannot be written (File too large)' in lines[2] and 'TMPDIR' in lines[2]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('shape', [(7, 5, 3), (9, 4)])
@pytest.mark.parametrize('in_file', [False, True])
def test_rows_and_columns_come_back(tmp_path, shape, in_file):
    values = np.random.default_rng(0).integers(0, 60000, shape).astype(np.uint16)
    rows = Rows(shape, np.uint16, folder=tmp_path if in_file else None)
    assert rows.bytes_in_memory == (0 if in_file else values.nbytes) and not list(tmp_path.iterdir())
    assert not rows.read(0, shape[0]).any()
    for first in (5, 0, 2):
        rows.write(first, values[first:first + 3])
    rows.write(3, np.asfortranarray(values)[3:])
    assert np.array_equal(rows.read(2, 6), values[2:6]) and np.array_equal(rows.read_columns(1, 3), values[:, 1:3])
    rows.close()
    rows.close()


def test_rows_that_cannot_be_written_are_told(tmp_path, monkeypatch):
    with pytest.raises(DataError, match='cannot be written'):
        Rows((4, 4), np.uint8, folder=tmp_path / 'nowhere')
    rows = Rows((4, 4), np.uint8, folder=tmp_path)

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.pwrite', full)
    with pytest.raises(DataError, match=r'temporary file of 0 MB cannot be written \(No space left on device\)'):
        rows.write(0, np.zeros((4, 4), np.uint8))
    rows._file.truncate(8)
    with pytest.raises(DataError, match='was truncated'):
        rows.read(0, 4)


def _tiff_with(tags, shot):
    """A file of TIFF tags as cameras write them, the shot's in a directory of their own."""
    exif = Image.Exif()
    exif.get_ifd(_SHOT).update(shot)
    for tag, value in tags.items():
        exif[int(tag)] = value
    return exif.tobytes()[6:]


def test_exif_is_kept_without_the_place(tmp_path):
    (tmp_path / 'a.dng').write_bytes(_tiff_with(
        {_BASE.Make: 'Maker\0hidden', _BASE.Model: 'One', _BASE.Software: 'x'},
        {_BASE.FNumber: TiffImagePlugin.IFDRational(28, 10), _BASE.LensModel: 'Lens', _BASE.UserComment: b'x',
         _BASE.FocalLength: 35.0}))
    exif = read_exif(tmp_path / 'a.dng')
    assert dict(exif) == {_BASE.Make: 'Maker', _BASE.Model: 'One'}
    assert float(exif.get_ifd(_SHOT)[_BASE.FNumber]) == 2.8 and _BASE.UserComment not in exif.get_ifd(_SHOT)
    summary = exif_summary(exif)
    assert (summary['Camera'], summary['Aperture'], summary['Focal length']) == ('Maker One', 'f/2.8', '35 mm')
    assert not tiff_tags(read_exif(None)) and not tiff_tags(read_exif(tmp_path / 'nothing.dng'))


@pytest.mark.parametrize('value', [0, -1, -5000, 1e6, 1e-9, 1e30, float('nan'), float('inf'), '', 'x' * 10 ** 5, b'\xff\xfe',
                                   'a\nb\x1b[2J', (1, 2, 3), (7,), None, 65536, '<script>'])
def test_hostile_exif_becomes_a_picture(tmp_path, value):
    # As read_exif meets it: whatever a file holds under whatever tag.
    from jddb_plugin.restoration import exif as module
    exif = Image.Exif()
    for kept, target in ((module._KEPT, exif), (module._KEPT_OF_SHOT, exif.get_ifd(_SHOT))):
        for tag, kind in kept.items():
            cleaned = module._clean(value, kind)
            if cleaned is not None:
                target[int(tag)] = cleaned
    for name in ('png', 'tiff'):
        path = tmp_path / f'a{FORMATS[name].suffix}'
        write_picture(path, _rows(_values(np.uint8)), FORMATS[name], orientation=1, exif=exif, description={})
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            kept = {**image.getexif(), **image.getexif().get_ifd(_SHOT)}
            texts = [kept[tag] for tag in (_BASE.Make, _BASE.LensModel, _BASE.DateTimeOriginal) if tag in kept]
            assert all(text.isascii() and text.isprintable() and 0 < len(text) <= 200 for text in texts)
    assert all(len(line) < 600 for line in exif_summary(exif).values())
