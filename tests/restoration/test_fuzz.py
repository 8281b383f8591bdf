"""Files that nobody would write: either a frame or one clear error comes of them."""
import json
import random
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from jddb_plugin.checks import JDDBError
from jddb_plugin.data.raw_reader import CAMERA_SUFFIXES, read_raw
from jddb_plugin.restoration.exif import _KEPT, _KEPT_OF_SHOT, exif_summary, read_exif, tiff_tags
from jddb_plugin.restoration.picture import FORMATS, write_picture
from jddb_plugin.restoration.rows import Rows
from jddb_plugin.restore import main
from tests.data.test_raw_reader import write_dng
from tests.restoration.samples import ARGUMENTS, CAMERA, command, listing, make_mosaics, save_net, write_tiffs

#: Reads the files named on stdin, tells what came of each; in a process of its own, as LibRaw may end it.
_READER = '''
import faulthandler, signal, sys, traceback, time
from pathlib import Path
from jddb_plugin.checks import JDDBError
from jddb_plugin.data.raw_reader import read_raw
from jddb_plugin.restoration.exif import exif_summary, read_exif, tiff_tags
for line in sys.stdin:
    path = Path(line.rstrip("\\n"))
    print(path.name, end=" ", flush=True)
    signal.alarm(20)
    start = time.perf_counter()
    try:
        frame = read_raw(path, cfa="rggb" if path.suffix == ".mat" else None)
        assert frame.mosaic.ndim == 2 and frame.mosaic.max(initial=0) < 2 ** frame.metadata.check("x").bits
        told = "frame"
    except JDDBError as error:
        good = "\\n" not in str(error) and str(error).startswith(str(path.parent)) and len(str(error)) < 2000
        told = "error" if good else repr(error)
    except BaseException:
        told = traceback.format_exc().replace("\\n", "|")
    exif = read_exif(path)
    tiff_tags(exif), exif_summary(exif)
    signal.alarm(0)
    print(told, flush=True)
'''


@pytest.fixture(scope='module')
def read_all():
    """Read files in another process: read_all(folder, names) -> {name: 'frame' or 'error'}."""
    line, environment = [sys.executable, '-c', _READER], command()[1]
    with subprocess.Popen(line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def read(folder, names):
            before, told = listing(folder), {}
            for name in names:
                process.stdin.write(f'{folder / name}\n')
                process.stdin.flush()
                answer = process.stdout.readline()
                assert answer, f'{name}: ended the process, or took too long'
                told.update([answer.rstrip('\n').split(' ', 1)])
            assert set(told.values()) <= {'frame', 'error'}, {name: text for name, text in told.items() if ' ' in text}
            assert listing(folder) == before
            return told

        yield read
        process.stdin.close()


def _random_bytes(rng):
    start = rng.choice([b'', b'II*\0\x08\0\0\0', b'MM\0*\0\0\0\x08', b'II+\0\x08\0\0\0', b'FUJIFILMCCD-RAW ', b'\0MRM',
                        b'IIRO\x08\0\0\0',
                        b'IIU\0\x08\0\0\0', b'II\x1a\0\0\0HEAPCCDR', b'\0\0\0\x18ftypcrx ', b'\x89HDF\r\n\x1a\n',
                        b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff\xe1', b'BM', b'RIFF', b'MATLAB 7.3 MAT-file'])
    return start + rng.randbytes(rng.choice([0, 1, 30, 500, 5000]))


def test_random_bytes_under_every_suffix(tmp_path, read_all):
    rng = random.Random(0)
    (tmp_path / 'metadata.json').write_text(CAMERA.to_json())
    names = [f'{index}{suffix}' for suffix in (*CAMERA_SUFFIXES, '.tif', '.tiff', '.mat') for index in range(12)]
    for name in names:
        (tmp_path / name).write_bytes(_random_bytes(rng))
    assert set(read_all(tmp_path, names).values()) == {'error'}


def test_dngs_that_are_cut_off(tmp_path, read_all):
    write_dng(tmp_path / 'a.dng', samples=np.full((32, 48), 2000, np.uint16))
    content = (tmp_path / 'a.dng').read_bytes()
    (tmp_path / 'cut').mkdir()
    names = []
    for length in [*range(0, 700, 9), *range(700, len(content), 150)]:
        names.append(f'{length}.dng')
        (tmp_path / 'cut' / names[-1]).write_bytes(content[:length])
    assert set(read_all(tmp_path / 'cut', names).values()) == {'error'}


def _tags_end(content):
    """Where the samples begin: all tags lie before them."""
    return content.index(np.full(8, 2000, np.uint16).tobytes())


def test_dngs_with_one_byte_changed(tmp_path, read_all):
    write_dng(tmp_path / 'a.dng', samples=np.full((32, 48), 2000, np.uint16))
    content, rng = (tmp_path / 'a.dng').read_bytes(), random.Random(0)
    (tmp_path / 'changed').mkdir()
    names = []
    for position in range(_tags_end(content)):
        damaged = bytearray(content)
        damaged[position] = rng.choice([0, 255, 127, damaged[position] ^ 1 << rng.randrange(8), rng.randrange(256)])
        names.append(f'{position}.dng')
        (tmp_path / 'changed' / names[-1]).write_bytes(damaged)
    told = list(read_all(tmp_path / 'changed', names).values())
    assert told.count('frame') > 100 and told.count('error') > 50


def _retagged(content, code, kind, count, value):
    """A little-endian TIFF whose tag ``code`` is of another type, count and value (or offset)."""
    start = int.from_bytes(content[4:8], 'little')
    damaged = bytearray(content)
    for k in range(int.from_bytes(content[start:start + 2], 'little')):
        entry = start + 2 + 12 * k
        if int.from_bytes(content[entry:entry + 2], 'little') == code:
            damaged[entry + 2:entry + 12] = kind.to_bytes(2, 'little') + count.to_bytes(4, 'little') + value.to_bytes(4, 'little')
            return bytes(damaged)
    raise KeyError(code)


def test_dngs_whose_tags_lie_about_type_count_and_place(tmp_path, read_all):
    write_dng(tmp_path / 'a.dng', samples=np.full((32, 48), 2000, np.uint16), active=(0, 0, 32, 48))
    content = (tmp_path / 'a.dng').read_bytes()
    (tmp_path / 'lies').mkdir()
    names = []
    for code in (256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 271, 33421, 33422, 50713, 50714, 50717, 50728, 50721, 50778,
                 50829, 51041):
        for kind, count, value in ((2, 4, 0x41414141), (12, 3, 8), (11, 3, 8), (5, 1, len(content) - 4), (7, 2 ** 32 - 1, 8),
                                   (4, 2 ** 31, 0), (13, 1, 8), (16, 1, 8), (3, 0, 0), (0, 1, 1), (999, 3, 8), (3, 1, 65535)):
            names.append(f'{code}_{kind}_{count}.dng')
            (tmp_path / 'lies' / names[-1]).write_bytes(_retagged(content, code, kind, count, value))
    told = list(read_all(tmp_path / 'lies', names).values())
    assert told.count('frame') > 10 and told.count('error') > 50


def test_dngs_whose_directories_go_in_circles(tmp_path, read_all):
    write_dng(tmp_path / 'a.dng', samples=np.full((32, 48), 2000, np.uint16))
    content = (tmp_path / 'a.dng').read_bytes()
    start = int.from_bytes(content[4:8], 'little')
    count = int.from_bytes(content[start:start + 2], 'little')
    end = start + 2 + 12 * count
    next_one = bytearray(content)
    next_one[end:end + 4] = start.to_bytes(4, 'little')
    make, sub_ifds, shot_ifd = (code.to_bytes(2, 'little') + b'\4\0' for code in (271, 330, 34665))
    below = _retagged(content, 271, 4, 1, start).replace(make, sub_ifds, 1)
    shot = below.replace(sub_ifds, shot_ifd, 1)
    for name, damaged in (('next.dng', next_one), ('below.dng', below), ('shot.dng', shot)):
        (tmp_path / name).write_bytes(damaged)
    assert set(read_all(tmp_path, ['next.dng', 'below.dng', 'shot.dng']).values()) == {'frame'}


_HOSTILE = [None, True, -1, 0, 1e308, 10 ** 400, float('nan'), float('inf'), -0.0, 5e-324, '', 'x' * 10 ** 5, '../../etc/passwd',
            '/dev/zero',
            '\ud800', '\x00', [], [[]], {}, [None] * 4, [1e6] * 4, [1e-6] * 3, [1, 1e6, 1e-6], [[1, 0, 0]] * 3, [[1e6] * 3] * 3,
            [[1, 0], [0, 1]], [[5e-324, 0, 0], [0, 5e-324, 0], [0, 0, 5e-324]], [0, 0, 0, 65536], [[float('nan')] * 3] * 3]


@pytest.mark.filterwarnings('error')
def test_hostile_metadata(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.tif'), make_mosaics(1, (8, 10))[0])
    good, outcomes = json.loads(CAMERA.to_json()), set()
    contents = [json.dumps({**good, field: value}) for field in (*good, 'unknown', '__class__') for value in _HOSTILE]
    contents += [json.dumps(value) for value in _HOSTILE if value != 10 ** 400]
    contents += ['[' * 10 ** 5, '{"cfa":' * 10 ** 5, '', '{', 'NaN', '{"a": 1' + '0' * 5000 + '}', '\ufeff' + CAMERA.to_json(),
                 CAMERA.to_json() + 'x', '1' + '0' * 400]
    for content in contents:
        (tmp_path / 'a.json').write_text(content, encoding='utf-8', errors='surrogatepass')
        try:
            read_raw(tmp_path / 'a.tif')
            outcomes.add('frame')
        except JDDBError as error:
            text = str(error)
            outcomes.add('error')
            if '\n' in text or len(text) > 1000 or str(tmp_path) not in text:
                pytest.fail(f'{content[:100]}: {text[:500]}')
    assert outcomes == {'frame', 'error'}


@pytest.mark.filterwarnings('error')
def test_hostile_exif(tmp_path):
    exif = Image.Exif()
    shot = exif.get_ifd(ExifTags.IFD.Exif)
    for tags, target in ((_KEPT, exif), (_KEPT_OF_SHOT, shot)):
        target.update({int(tag): {2: 'text', 3: 400}.get(kind, TiffImagePlugin.IFDRational(1, 3)) for tag, kind in tags.items()})
    content, rng, kept = exif.tobytes()[6:], random.Random(0), set()
    for _ in range(250):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 5])):
            damaged[rng.randrange(8, len(damaged))] = rng.choice([0, 1, 2, 5, 10, 127, 128, 255, rng.randrange(256)])
        (tmp_path / 'a.dng').write_bytes(damaged[:rng.choice([len(damaged), rng.randrange(len(damaged))])])
        found = read_exif(tmp_path / 'a.dng')
        kept.add(len(tiff_tags(found)))
        shown = exif_summary(found)
        for suffix in ('png', 'tiff'):  # and a file can be written of it
            rows = Rows((1, 1, 3), np.uint8)
            write_picture(tmp_path / f'a.{suffix}', rows, FORMATS[suffix], orientation=1, exif=found, description=shown)
    assert {0, len(_KEPT) + len(_KEPT_OF_SHOT)} <= kept and len(kept) > 5


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return save_net(tmp_path_factory.mktemp('net') / 'net.pth')


@pytest.mark.filterwarnings('error::RuntimeWarning')
@pytest.mark.parametrize('changes', [
    {'source': '../../../etc/passwd'}, {'source': '\ud800\x00\n'}, {'white_balance': [1e6, 1e-6, 1e6]},
    {'white_balance': [1e-6, 1e6, 1e-6]},
    {'color_matrix': [[1e6, 0, 0], [0, 1e3, 0], [0, 0, 1e3]]}, {'noise_shot': [0] * 4, 'noise_read': [0] * 4},
    {'noise_shot': [1] * 4, 'noise_read': [1] * 4}, {'black_level': [63.999] * 4, 'white_level': [64.001] * 4},
    {'black_level': [0] * 4, 'white_level': [5e-324] * 4}, {'bits': 16, 'white_level': [65535.9] * 4},
    {'color_matrix': [[1, -0.9504, 0], [0, 1, 0], [0, 0, 1]]}, {'color_matrix': [[1, -3, 0], [0, 1, 0], [0, 0, 1]]}])
def test_hostile_metadata_gives_a_picture_or_one_line(tmp_path, weights, capfd, changes):
    folder = write_tiffs(tmp_path / 'b', size=(40, 48))
    (folder / 'metadata.json').write_text(json.dumps({**json.loads(CAMERA.to_json()), **changes}))
    before = listing(tmp_path)
    for kind in ('png', 'linear32'):
        status = main([str(folder), '-o', str(tmp_path / 'out'), '--weights', str(weights), '--format', kind, *ARGUMENTS,
                       '--report', str(tmp_path / 'out' / 'r.html')])
        stderr = capfd.readouterr().err
        found = listing(tmp_path)
        assert {**found, **before} == found and all(name.startswith('out/') for name in found.keys() - before.keys())
        assert status in (0, 1) and 'Traceback' not in stderr
        assert status == 0 or stderr.startswith('error: ') and stderr.count('\n') == 2
        if status == 0 and kind == 'linear32':
            assert np.isfinite(cv2.imread(str(tmp_path / 'out' / 'b.tif'), cv2.IMREAD_UNCHANGED)).all()


def test_damaged_files_of_a_burst_through_the_command(tmp_path, weights):
    rng = random.Random(1)
    folder = tmp_path / 'all'
    for index in range(12):
        (folder / str(index)).mkdir(parents=True)
        for place in range(2):
            path = folder / str(index) / f'{place}.dng'
            write_dng(path, samples=make_mosaics(2, (32, 40))[place])
            content = bytearray(path.read_bytes())
            for _ in range(index):
                content[rng.randrange(8, 600)] = rng.randrange(256)
            path.write_bytes(content)
    before = listing(tmp_path)
    line, environment = command(folder, '-o', tmp_path / 'out', '--weights', weights, *ARGUMENTS)
    result = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1 and 'Traceback' not in result.stderr, result.stderr
    assert 'out/0.png: 2 of 2 frames, reference ' in result.stdout
    errors = [text for text in result.stderr.splitlines() if text.startswith('error: ')]
    found = listing(tmp_path)
    pictures = found.keys() - before.keys()
    assert {**found, **before} == found and pictures <= {f'out/{index}.png' for index in range(12)} and 'out/0.png' in pictures
    assert len(pictures) + len(errors) == 12
