import dataclasses
import os
import shutil
import signal
import subprocess
import time

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from jddb_plugin.checks import CheckpointError, DataError, OptionError
from jddb_plugin.restoration import Burst, Restorer, Settings, find_bursts
from jddb_plugin.restoration import restorer as restorer_module
from jddb_plugin.restoration.frames import load_frames
from jddb_plugin.restore import main
from tests.data.test_raw_reader import write_dng
from tests.restoration.samples import (
    ARGUMENTS,
    CAMERA,
    TILES,
    command,
    listing,
    make_mosaics,
    write_tiffs,
)

from .restore_run import error_line, run_restore, write_pngs


def test_a_folder_becomes_a_picture(tmp_path, weights, burst, capfd):
    before = listing(burst)
    assert run_restore(burst, '-o', tmp_path / 'out', weights=weights) == 0
    out = capfd.readouterr().out
    assert out.startswith(f'{tmp_path}/out/burst.png: 3 of 3 frames, reference ') and out.count('\n') == 1
    assert [*listing(tmp_path / 'out')] == ['burst.png'] and listing(burst) == before
    picture = cv2.imread(str(tmp_path / 'out' / 'burst.png'), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (64, 80, 3) and picture.dtype == np.uint8 and picture.std() > 1


@pytest.mark.parametrize(('out', 'arguments', 'kind'), [
    ('a.png', [], np.uint8), ('a.TIFF', [], np.uint8), ('a.png', ['--format', 'png16'], np.uint16),
    ('deep/er/a.tif', ['--format', 'linear32'], np.float32), ('folder.d', ['--format', 'tiff16'], np.uint16)])
def test_what_out_may_be(tmp_path, weights, burst, out, arguments, kind):
    assert run_restore(burst, '-o', tmp_path / out, *arguments, weights=weights) == 0
    path = tmp_path / out if (tmp_path / out).is_file() else tmp_path / out / 'burst.tif'
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).dtype == kind


@pytest.mark.parametrize(('arguments', 'message'), [
    (['-o', 'a.png', '--format', 'tiff16'], 'a.png: has the wrong suffix; format tiff16 needs .tif'),
    (['-o', 'a.jpg'], 'a.jpg: has the wrong suffix'),
    (['--reference', 'first'], '--reference: expected'), (['--reference', '\xb2'], '--reference: expected'),
    (['--reference', '9' * 5000], '--reference: expected'), (['--noise', '1,2,3'], '--noise: expected'),
    (['--noise', 'nan,0'], '--noise: shot and read must be'), (['--noise', 'estimated'], '--noise: expected'),
    (['--gain', '0'], '--gain'), (['--gain', 'nan'], '--gain'), (['--gain', 'inf'], '--gain'), (['--memory', '0'], '--memory'),
    (['--memory', '1M'], '--memory: 1 MB is less'), (['--tile', '0'], '--tile: expected a multiple of 4 in 4 .. 4096'),
    (['--tile', '18'], '--tile'), (['--tile', '4000000000'], '--tile'), (['--overlap', '3'], '--overlap'),
    (['--overlap', '-4'], '--overlap'),
    (['--radius', '-1'], '--radius: expected a number in 0'), (['--radius', '1000000'], '--radius'),
    (['--frames', 'many'], "--frames: expected an integer, got 'many'"), (['--frames', '0'], '--frames: expected at least 1'),
    (['--coarse', 'dpmb'], "did you mean 'dpbm'"), (['--device', 'gpu'], "--device: unknown device 'gpu'"),
    (['--device', 'cuda:200'], '--device'), (['--device', 'cuda:7'], "--device: 'cuda:7' does not exist"),
    (['--device', ''], '--device'),
    (['--device', 'meta'], "'meta' is not supported"), (['--report', 'a.pdf'], 'ends in .html'),
    (['--clip', 'x'], "burst 'x' does not exist"),
    (['--weights', 'nowhere.pth'], 'no such checkpoint'), (['--weights', '.'], 'neither a file nor the name of weights'),
    (['--weights', 'smal'], "did you mean 'small'")])
def test_wrong_options_are_told_before_anything_is_written(tmp_path, monkeypatch, weights, burst, capfd, arguments, message):
    monkeypatch.chdir(tmp_path)
    line = ['burst', '-o', 'out', '--weights', str(weights), *ARGUMENTS, *arguments]
    assert main(line) == 2
    assert message in error_line(capfd)
    assert not [name for name in listing(tmp_path) if not name.startswith('burst/')]


@pytest.mark.parametrize('arguments', [[], ['x', '-o', 'y', '--weights', 'z', '--window', 'symetric'],
                                       ['x', '-o', 'y', '--weights', 'z', '--format', 'jpg']])
def test_usage_is_told_with_status_2(arguments, capfd):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2 and 'usage: jddb restore' in capfd.readouterr().err


def test_a_missing_output_is_told(tmp_path, capfd):
    assert main([str(tmp_path)]) == 2
    assert '--output is missing; give a folder' in error_line(capfd)


def test_options_reach_the_picture(tmp_path, weights, capfd):
    burst = write_tiffs(tmp_path / 'burst', size=(96, 112), shift=(8, 8))

    def picture(*arguments):
        assert run_restore(burst, '-o', tmp_path / 'a.png', *arguments, weights=weights) == 0
        return cv2.imread(str(tmp_path / 'a.png')).astype(int)

    plain = picture('--reference', 'middle')
    for other in (['--reference', '0'], ['--noise', '0.2,0.2'], ['--gain', '3'], ['--window', 'released'],
                  ['--noise', 'estimate'], ['--precision', 'bf16'], ['--frames', '2']):
        assert (picture('--reference', 'middle', *other) != plain).any(), other
    unsearched = ['--tile', '16', '--overlap', '4', '--reference', 'middle', '--coarse', 'none', '--weights', str(weights)]
    assert main([str(burst), '-o', str(tmp_path / 'a.png'), *unsearched]) == 0
    assert (cv2.imread(str(tmp_path / 'a.png')).astype(int) != plain).any()
    capfd.readouterr()
    assert run_restore(burst, '-o', tmp_path / 'a.png', '--reference', '1', '--frames', '2', weights=weights) == 0
    assert 'a.png: 2 of 3 frames, reference 1.tif' in capfd.readouterr().out
    assert run_restore(burst, '-o', tmp_path / 'a.png', '--reference', '3', weights=weights) == 1
    assert '--reference 3: the burst has frames 0 .. 2' in capfd.readouterr().err


def _batch(tmp_path):
    for name in ('a', 'b', 'c'):
        write_tiffs(tmp_path / 'all' / name, size=(40, 48))
    (tmp_path / 'all' / 'b' / '1.tif').write_bytes(b'II*\0')
    return tmp_path / 'all'


def test_a_batch_goes_on_and_reports(tmp_path, weights, capfd):
    status = run_restore(_batch(tmp_path), tmp_path / 'nowhere', '-o', tmp_path / 'out', '--report', tmp_path / 'r' / 'page.html',
                      weights=weights)
    captured = capfd.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith('error: ')]
    assert status == 1 and len(errors) == 2 and '2 of 4 bursts failed' in captured.err and 'Traceback' not in captured.err
    assert 'nowhere: no such folder' in errors[0] and 'b/1.tif: not a readable TIFF' in errors[1]
    assert [*listing(tmp_path / 'out')] == ['a.png', 'c.png'] and [*listing(tmp_path / 'r')] == ['page.html']
    page = (tmp_path / 'r' / 'page.html').read_text()
    assert '2 restored, 2 failed' in page and 'not a readable TIFF' in page and page.count('<section class="burst"') == 2

    shutil.copy(tmp_path / 'all' / 'a' / '1.tif', tmp_path / 'all' / 'b' / '1.tif')
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / 'out').iterdir()}
    assert run_restore(tmp_path / 'all', '-o', tmp_path / 'out', '--skip-existing', weights=weights) == 0
    assert capfd.readouterr().out.count('exists, skipped') == 2
    after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / 'out').iterdir()}
    assert after.keys() == before.keys() | {'b.png'} and {**after, **before} == after
    assert run_restore(tmp_path / 'all', '-o', tmp_path / 'c', '--clip', 'c', '--clip', 'a', weights=weights) == 0
    assert [*listing(tmp_path / 'c')] == ['a.png', 'c.png']


def test_a_batch_restored_into_its_own_folder_can_be_repeated(tmp_path, weights):
    for name in ('a', 'b'):
        write_tiffs(tmp_path / 'all' / name, size=(40, 48))
    for _ in range(2):
        assert run_restore(tmp_path / 'all', '-o', tmp_path / 'all' / 'out', weights=weights) == 0
    assert [*listing(tmp_path / 'all' / 'out')] == ['a.png', 'b.png']


def test_nothing_to_restore_is_status_2(tmp_path, weights, capfd):
    (tmp_path / 'empty').mkdir()
    assert run_restore(tmp_path / 'empty', '-o', tmp_path / 'out', '--clip', 'x', weights=weights) == 2
    assert 'holds no frames' in error_line(capfd)
    assert run_restore(tmp_path / 'empty', tmp_path / ('x' * 300), '-o', tmp_path / 'out', weights=weights) == 2
    error_line(capfd)
    assert not (tmp_path / 'out').exists()


def test_where_the_picture_cannot_go(tmp_path, weights, capfd):
    folder = _batch(tmp_path)
    assert run_restore(folder, '-o', tmp_path / 'x.png', weights=weights) == 2
    assert 'x.png: is one file, but there are 3 bursts; give a folder' in error_line(capfd)
    (tmp_path / 'file').write_text('mine')
    for out in ('file', 'file/x.png', 'file/deep', 'x' * 300):
        assert run_restore(folder / 'a', '-o', tmp_path / out, weights=weights) == 2
        assert out == 'x' * 300 or 'cannot be written to' in error_line(capfd)
        capfd.readouterr()
    assert (tmp_path / 'file').read_text() == 'mine'
    (tmp_path / 'out' / 'a.png').mkdir(parents=True)
    assert run_restore(folder / 'a', '-o', tmp_path / 'out', weights=weights) == 1
    assert 'a.png: cannot be written' in capfd.readouterr().err
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['a.png']


@pytest.mark.parametrize('kind', ['raw', 'pictures'])
def test_an_input_is_never_written_over(tmp_path, weights, capfd, kind):
    folder, name = (write_tiffs(tmp_path / '0'), '0.tif') if kind == 'raw' else (write_pngs(tmp_path / '0'), '0.png')
    os.symlink(folder / name, tmp_path / f'link{name[1:]}')
    before = listing(tmp_path)
    options = ['--noise', 'low', '--format', 'tiff' if kind == 'raw' else 'png']
    for out in (folder / name, folder / '..' / '0' / name, tmp_path / f'link{name[1:]}', folder):  # in the last: 0.tif of burst 0
        assert run_restore(folder, '-o', out, *options, weights=weights) == 2, out
        assert f'{name[1:]}: is a frame of the burst and would be overwritten; choose another --output' in error_line(capfd)
    assert listing(tmp_path) == before


def test_hostile_names_lead_nowhere_else(tmp_path, weights, capfd):
    folder = tmp_path / 'all'
    for name in ('-rf', 'a\nb', 'a b', '\x1b[2J', 'z', '~'):
        write_tiffs(folder / name, size=(40, 48))
    (folder / 'z').rename(folder / os.fsdecode(b'\xff'))  # OpenCV ends the process when it is asked for such a file
    for name in ('0.tif', '1.tif', '2.tif'):
        (folder / '~' / name).rename(folder / '~' / ('\x1b[31m' + name))
    before = listing(tmp_path)
    assert run_restore(folder, '-o', tmp_path / 'out', '--report', tmp_path / 'out' / 'r.html', weights=weights) == 1
    captured = capfd.readouterr()
    assert captured.out.count('\n') == 5 and '\x1b[31m' not in captured.out
    assert '\ufffd/0.tif: its name or that of its folder is not UTF-8; rename it.' in captured.err
    found = listing(tmp_path)
    assert {**found, **before} == found
    assert sorted(name[4:] for name in found.keys() - before.keys()) == [
        '-rf.png', '2J.png', 'a_b.png', 'a_b_2.png', 'burst.png', 'r.html']
    (folder / 'a b' / '0.tif').unlink()
    os.mkfifo(folder / 'a b' / '0.tif')  # not a file: not a frame, and nothing waits for it
    (folder / 'a\nb' / '1.tif').write_bytes(b'')
    assert run_restore(folder, '-o', tmp_path / 'out', weights=weights) == 1
    lines = capfd.readouterr().err.split('\n')
    assert len(lines) == 4 and all(line.startswith('error: ') for line in lines[:2]) and '2 of 6 bursts failed' in lines[2]


def test_the_reference_keeps_its_own_exif(tmp_path, weights):
    for place, model in enumerate(('One', 'Two')):  # of one name in two folders
        (tmp_path / model).mkdir()
        write_dng(tmp_path / model / 'x.dng', samples=make_mosaics(2, (40, 48))[place])
        path = tmp_path / model / 'x.dng'
        path.write_bytes(path.read_bytes().replace(b'Test\0', f'{model}\0\0'.encode()))
    for reference, model in enumerate(('One', 'Two')):
        files = [tmp_path / folder / 'x.dng' for folder in ('One', 'Two')]
        assert run_restore(*files, '-o', tmp_path / 'a.png', '--reference', reference, weights=weights) == 0
        with Image.open(tmp_path / 'a.png') as image:
            assert image.getexif()[ExifTags.Base.Model] == model


@pytest.mark.parametrize('orientation', [1, 6, 8])
def test_the_picture_is_upright(tmp_path, weights, orientation):
    plain = write_tiffs(tmp_path / 'x', size=(40, 48))
    turned = write_tiffs(tmp_path / 'y', size=(40, 48), camera=dataclasses.replace(CAMERA, orientation=orientation))
    assert run_restore(plain, '-o', tmp_path / 'x.png', weights=weights) == 0
    assert run_restore(turned, '-o', tmp_path / 'y.png', weights=weights) == 0
    before, after = (cv2.imread(str(tmp_path / name)) for name in ('x.png', 'y.png'))
    assert np.array_equal(after, np.rot90(before, {1: 0, 6: -1, 8: 1}[orientation]))


def test_videos_use_five_frames_around_the_middle(tmp_path, weights, capfd):
    assert run_restore(write_pngs(tmp_path / 'v'), '-o', tmp_path / 'a.png', '--noise', 'high', weights=weights) == 0
    assert 'a.png: 5 of 7 frames, reference 3.png' in capfd.readouterr().out
    assert run_restore(tmp_path / 'v', '-o', tmp_path / 'b.png', weights=weights) == 1
    assert 'is a picture, not raw; give --noise' in capfd.readouterr().err and not (tmp_path / 'b.png').exists()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_whole_pictures_only(tmp_path, weights, number):
    for name, size in (('a', (40, 48)), ('b', (600, 600))):
        write_tiffs(tmp_path / 'all' / name, size=size)
    before, temporary = listing(tmp_path), tmp_path / 'tmp'
    temporary.mkdir()
    line, environment = command(tmp_path / 'all', '-o', tmp_path / 'out', '--weights', weights, *ARGUMENTS)
    # A shell's background jobs ignore Ctrl-C, and so would what they start.
    process = subprocess.Popen(line, env={**environment, 'TMPDIR': str(temporary)}, stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / 'out' / 'a.png').exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and stderr.endswith('interrupted; all pictures that exist are complete\n'), stderr
    assert 'Traceback' not in stderr
    assert listing(tmp_path).keys() == before.keys() | {'out/a.png'}
    assert cv2.imread(str(tmp_path / 'out' / 'a.png')).shape == (40, 48, 3)


def test_an_interruption_while_writing_leaves_nothing(tmp_path, monkeypatch, weights, burst, capfd):
    def interrupt(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(restorer_module, '_description', lambda *_: {})
    monkeypatch.setattr('os.fsync', interrupt)
    assert run_restore(burst, '-o', tmp_path / 'out', weights=weights) == 130
    assert not listing(tmp_path / 'out') and signal.getsignal(signal.SIGTERM) == before
    assert capfd.readouterr().err == 'interrupted; all pictures that exist are complete\n'


def test_three_lines_of_python(tmp_path, weights, burst):
    restorer = Restorer(weights, Settings(**TILES))
    result = restorer.restore(burst, tmp_path / 'x.png', progress=False)
    assert result.path == tmp_path / 'x.png' and result.picture is None and list(result.seconds) == [
        'reading', 'alignment', 'restoration', 'developing', 'writing']
    again = restorer.restore(Burst.from_arrays(make_mosaics(), CAMERA), progress=False)
    assert np.array_equal(again.picture, cv2.imread(str(tmp_path / 'x.png'))[..., ::-1])
    for wrong, error, message in ((tmp_path / 'nowhere', DataError, 'nowhere'), (burst / '0.tif', DataError, 'one frame'),
                                  (tmp_path, DataError, 'holds frames')):
        with pytest.raises(error, match=message):
            restorer.restore(wrong, tmp_path / 'y.png', progress=False)
    with pytest.raises(OptionError, match='has the wrong suffix; format png needs .png'):
        restorer.restore(burst, tmp_path / 'y.jpg')
    with pytest.raises(CheckpointError):
        Restorer(burst / '0.tif')
    assert not (tmp_path / 'y.png').exists()


def test_the_range_of_a_search_that_is_not_made(weights, burst):
    for align in ('flow', 'none'):
        with pytest.raises(OptionError, match=f'^radius: is the range of the search of align: tiles or smooth, not of {align}'):
            Restorer(weights, Settings(align=align, radius=2)).restore(burst, progress=False)


def test_what_is_wrong_with_a_burst_comes_before_its_number_of_frames(tmp_path, weights):
    write_tiffs(tmp_path / 'a')
    write_tiffs(tmp_path / 'mixed')
    cv2.imwrite(str(tmp_path / 'mixed' / '0.png'), np.zeros((8, 8, 3), np.uint8))
    mixed = find_bursts(tmp_path)[1]
    for settings in (Settings(), Settings(frames=5), Settings(reference=3)):
        with pytest.raises(DataError, match='mixed: holds raw files and pictures'):
            Restorer(weights, settings).restore(mixed, progress=False)


def test_a_picture_does_not_go_among_the_frames(tmp_path, weights, capfd):
    folder = write_tiffs(tmp_path / 'bursts' / 'a', size=(40, 48))
    for output in (folder / 'x.png', folder):
        assert run_restore(folder, '-o', output, weights=weights) == 2
        assert 'would lie among the frames of a burst' in error_line(capfd)
    assert run_restore(*sorted(folder.glob('*.tif')), '-o', folder / 'x.png', weights=weights) == 0  # files that were named
    (folder / 'x.png').unlink()
    assert run_restore(tmp_path / 'bursts', '-o', tmp_path / 'bursts', weights=weights) == 0


def test_the_reference_may_be_the_frame_of_another_exposure(tmp_path):
    mosaics = make_mosaics(3)
    brighter = [np.minimum(2.0 * mosaic, 4000).astype(np.uint16) for mosaic in mosaics]
    for frames, reference, message in (
            ([brighter[0], mosaics[1], brighter[2]], 1, 'frame 1: the reference has another exposure'),
            ([mosaics[0], mosaics[1], brighter[2]], 1, 'frame 2: has another exposure'),
            ([mosaics[0], brighter[1]], 0, 'frame 1: has another exposure')):
        with pytest.raises(DataError, match=message):
            load_frames(Burst.from_arrays(frames, CAMERA), reference=reference, count=None, noise=(0.01, 0.01))


def test_a_crop_that_is_ignored_is_logged(caplog):
    camera = dataclasses.replace(CAMERA, crop=(10, 10, 500, 500))
    load_frames(Burst.from_arrays(make_mosaics(3), camera), reference=1, count=None, noise=(0.01, 0.01)).close()
    assert [record.message for record in caplog.records if 'crop [10, 10, 500, 500] reaches beyond' in record.message]
