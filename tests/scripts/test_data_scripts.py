"""The scripts that build data sets, as a user runs them; in this process, where that saves starting another."""
import importlib.util
import sys
import zipfile

import cv2
import numpy as np
import pytest

from jddb_plugin.data.frame_source import FrameSource

from ..conftest import ROOT
from ..data.build_run import noise, write_raw, write_video
from ..data.conftest import raw_reader  # noqa: F401  (a fixture)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a script's main; returns (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(script, *arguments, workers=0):
        spec = importlib.util.spec_from_file_location(script, ROOT / 'scripts' / 'data' / f'{script}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', [script, *map(str, arguments), '--workers', str(workers)])
        status = module.main()
        return (status, *capsys.readouterr())

    return call


def fails(result, message):
    assert result[0] == 2 and message in result[2], result
    assert result[2].count('error: ') == 1 and result[2].rsplit('error: ', 1)[1].count('\n') == 1


@pytest.fixture
def reds(tmp_path):
    """The zip file of a tiny REDS: two clips of three frames."""
    with zipfile.ZipFile(tmp_path / 'train_sharp.zip', 'w') as archive:
        for clip in ('000', '011'):
            for index in range(3):
                png = cv2.imencode('.png', noise((16, 20, 3), 8, index))[1].tobytes()
                archive.writestr(f'train/train_sharp/{clip}/{index:08d}.png', png)
    return tmp_path / 'train_sharp.zip'


def test_reds_from_its_zip_file_and_from_a_folder(run, reds, tmp_path):
    assert run('prepare_reds', '--input', reds, '--subset')[0] == 0  # to where the examples expect it
    clips = FrameSource('datasets/REDS/train_sharp.lmdb', {'type': 'lmdb'}, 'test').clips
    assert {name: len(clip.keys) for name, clip in clips.items()} == {'000': 3, '011': 3}
    zipfile.ZipFile(reds).extractall(tmp_path)
    assert run('prepare_reds', '--input', 'train/train_sharp', '--output', 'b.lmdb', '--subset')[0] == 0
    assert (tmp_path / 'b.lmdb' / 'checksums.txt').read_text() == \
        (tmp_path / 'datasets' / 'REDS' / 'train_sharp.lmdb' / 'checksums.txt').read_text()


def test_wrong_input_for_reds_is_named(run, reds, tmp_path, texture_folder):
    fails(run('prepare_reds', '--input', reds), 'has 3 frames, a clip of REDS has 100; unpack or')
    fails(run('prepare_reds', '--input', texture_folder), 'not a clip of REDS, those are named 000')
    fails(run('prepare_reds', '--input', 'nowhere'), 'nowhere: no such folder')
    (tmp_path / 'cut.zip').write_bytes(reds.read_bytes()[:-30])
    fails(run('prepare_reds', '--input', 'cut.zip'), 'cut.zip: not a complete zip file')
    content = bytearray(reds.read_bytes())
    content[len(content) // 3] ^= 1
    (tmp_path / 'flipped.zip').write_bytes(content)
    fails(run('prepare_reds', '--input', 'flipped.zip', '--output', 'f.lmdb', '--subset'), 'cannot be read (Bad CRC-32')
    with zipfile.ZipFile(tmp_path / 'bad.zip', 'w') as archive:
        archive.writestr('train/../../000/00000000.png', b'x')
    fails(run('prepare_reds', '--input', 'bad.zip'), 'leads out of the archive')


def test_videezy4k(run, tmp_path):
    for name in ('a.mp4', 'b.mp4'):
        write_video(tmp_path / 'videos' / name, 24)
    assert run('prepare_videezy4k', '--input', 'videos')[0] == 0
    clips = FrameSource('datasets/Videezy4K/test.lmdb', {'type': 'lmdb'}, 'test').clips
    assert {name: len(clip.keys) for name, clip in clips.items()} == {'a': 20, 'b': 20}
    fails(run('prepare_videezy4k', '--input', 'videos', '--start', 10, '--output', 'x.lmdb'), 'has 24 frames, not enough for 20')
    fails(run('prepare_videezy4k', '--input', '.'), 'holds no videos')
    fails(run('prepare_videezy4k', '--input', 'videos', '--step', 0), 'step and count of at least 1')


def test_sc_burst(run, tmp_path, raw_reader):  # noqa: F811
    for scene in ('Scene1', 'Scene2', 'Scene10'):
        for index in range(11):
            write_raw(tmp_path / 'SC' / scene / f'frame_{index}.mat', np.full((8, 12), index, np.uint16))
    assert run('prepare_sc_burst', '--input', 'SC', '--cfa', 'bggr')[0] == 0
    source = FrameSource('datasets/SC_burst/test.lmdb', {'type': 'lmdb'}, 'test', frames='mosaic')
    assert sorted(source.clips) == ['Scene1', 'Scene10', 'Scene2']
    clip = source.clips['Scene10']
    assert [int(source.read(clip, i).max()) for i in range(len(clip.keys))] == [0, 1, 2, 3, 4]
    assert source.metadata(clip).cfa == 'bggr'
    fails(run('prepare_sc_burst', '--input', 'SC', '--frames', 12, '--output', 'x.lmdb'), 'has 11 .mat files, expected')
    fails(run('prepare_sc_burst', '--input', '.'), 'holds no folders Scene*')
