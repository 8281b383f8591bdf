"""The scripts as a user runs them."""
import subprocess
import sys

import pytest

from jddb_plugin.data.frame_source import FrameSource

from ..conftest import ROOT


def _run(script, *arguments, cwd):
    return subprocess.run([sys.executable, str(ROOT / 'scripts' / script), *map(str, arguments)], capture_output=True, text=True,
                          cwd=cwd)


def test_create_burst_lmdb(texture_folder, tmp_path):
    result = _run('data/create_burst_lmdb.py', '--input', texture_folder, '--output', 'x.lmdb', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    source = FrameSource(str(tmp_path / 'x.lmdb'), {'type': 'lmdb'}, 'test')
    assert [len(clip.keys) for clip in source.clips.values()] == [7, 7]
    again = _run('data/create_burst_lmdb.py', '--input', texture_folder, '--output', 'x.lmdb', cwd=tmp_path)
    assert again.returncode == 2 and 'exists already' in again.stderr


@pytest.mark.parametrize(('arguments', 'message'), [
    (('--input', 'nowhere', '--output', 'x.lmdb'), 'nowhere: no such folder'),
    (('--input', '.', '--output', 'x.lmdb'), 'holds no folders'),
])
def test_create_burst_lmdb_names_what_is_wrong(tmp_path, arguments, message):
    result = _run('data/create_burst_lmdb.py', *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith('error: ') and message in result.stderr and result.stderr.count('\n') == 1


def test_the_demo_prepares_its_clips(texture_folder, tmp_path):
    small = tmp_path / 'small.yml'
    small.write_text(f"_base_: {ROOT / 'options' / 'test' / 'demo.yml'}\nval: {{tile: 32}}\n")
    result = _run('demo/prepare.py', '--output', 'photographs', '--test', small, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    train = FrameSource(str(tmp_path / 'photographs' / 'train.lmdb'), {'type': 'lmdb'}, 'test')
    test = FrameSource(str(tmp_path / 'photographs' / 'test.lmdb'), {'type': 'lmdb'}, 'test')
    assert {name.rsplit('_', 1)[0] for name in train.clips}.isdisjoint(name.rsplit('_', 1)[0] for name in test.clips)
    assert len(train.clips) >= 9 and list(test.clips) == ['astronaut_0']

    result = _run('demo/prepare.py', '--output', texture_folder.parent, '--frames', texture_folder, '--test', small, cwd=tmp_path)
    assert len(list(texture_folder.iterdir())) == 2  # the user's own frames are left alone
    assert result.returncode == 0, result.stderr
    assert list(FrameSource(str(texture_folder.parent / 'test.lmdb'), {'type': 'lmdb'}, 'test').clips) == ['b']
    assert 'own_a' in FrameSource(str(texture_folder.parent / 'train.lmdb'), {'type': 'lmdb'}, 'test').clips


def test_the_demo_names_what_is_wrong(tmp_path):
    result = _run('demo/prepare.py', '--frames', 'nowhere', cwd=tmp_path)
    assert result.returncode == 2 and 'FRAMES: nowhere: no such folder' in result.stderr


def test_the_demo_knows_a_bad_test_clip_before_it_trains(texture_folder, tmp_path):
    for path in sorted((texture_folder / 'b').iterdir())[3:]:
        path.unlink()
    result = _run('demo/prepare.py', '--frames', texture_folder, '--output', tmp_path / 'demo', '--test',
                  ROOT / 'options' / 'test' / 'demo.yml', cwd=tmp_path)
    assert result.returncode == 2
    assert 'clip b has 3 frames, a burst needs 5' in result.stderr
