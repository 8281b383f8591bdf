"""jddb lmdb, in this process."""
import pytest

from jddb_plugin.cli.main import main
from jddb_plugin.data import lmdb_reader
from jddb_plugin.data.frame_source import FrameSource


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command; returns (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, workers=0):
        status = main(['lmdb', *map(str, arguments), '--workers', str(workers)])
        return (status, *capsys.readouterr())

    return call


def fails(result, message):
    assert result[0] == 2 and message in result[2], result
    assert result[2].count('error: ') == 1 and result[2].rsplit('error: ', 1)[1].count('\n') == 1


def test_build(run, texture_folder, tmp_path):
    assert run('build', texture_folder, 'x.lmdb')[0] == 0
    source = FrameSource(str(tmp_path / 'x.lmdb'), {'type': 'lmdb'}, 'test')
    assert [len(clip.keys) for clip in source.clips.values()] == [7, 7]
    fails(run('build', texture_folder, 'x.lmdb'), 'already exists')
    fails(run('build', 'nowhere', 'y.lmdb'), 'nowhere: no such folder')
    (tmp_path / 'empty').mkdir()
    fails(run('build', 'empty', 'y.lmdb'), 'holds no frames')
    fails(run('build', texture_folder, 'y.lmdb', workers=-1), '--workers: expected at least 0')


def test_resume_and_verify(run, texture_folder, tmp_path):
    (tmp_path / 'x.lmdb.partial').mkdir()
    (tmp_path / 'x.lmdb.partial' / 'data.mdb').touch()
    fails(run('build', texture_folder, 'x.lmdb'), 'left over from an interrupted build')
    assert run('build', texture_folder, 'x.lmdb', '--resume')[0] == 0
    status, output, _ = run('verify', 'x.lmdb')
    assert (status, output) == (0, 'x.lmdb: sound; 2 clips, 14 frames, 0 clips of mosaics\n')
    value = lmdb_reader.read_value(tmp_path / 'x.lmdb', 'a/00000004')
    lmdb_reader.close(tmp_path / 'x.lmdb')
    data = (tmp_path / 'x.lmdb' / 'data.mdb').read_bytes()
    (tmp_path / 'x.lmdb' / 'data.mdb').write_bytes(data.replace(value[-1000:], value[-1000:-999] + bytes(999)))
    status, output, errors = run('verify', 'x.lmdb')
    assert status == 1 and output.startswith('x.lmdb: 1 problem;') and 'damaged: a/00000004: checksum' in errors
    fails(run('verify', 'nowhere.lmdb'), 'nowhere.lmdb: is not an LMDB')
