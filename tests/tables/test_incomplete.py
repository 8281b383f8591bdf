"""Studies of which something is not there: no clips, no data any more, seeds of some rows alone."""
import json
import shutil
from pathlib import Path

import pytest

from jddb_plugin.config import load_options
from jddb_plugin.tables.planning import Evaluation
from jddb_plugin.tables.systems import SYSTEMS, make_study

from .test_running import main

PHOTOGRAPHS = ('small_shift', 'medium_shift', 'large_shift')


def data(*names, clips=()):
    """What ``prepare`` leaves of the small study."""
    root = Path('datasets/tables_small')
    for name in names:
        (root / f'{name}.lmdb').mkdir(parents=True)
    (root / 'sources.json').write_text(json.dumps({'photographs': ['a.png'], 'clips': list(clips)}))
    return root


def a_test():
    study = make_study('small')
    return Evaluation(study, SYSTEMS['edvr'], 0, study.tests[0])


def test_photographs_alone_make_a_study(calls):
    data(*PHOTOGRAPHS)
    assert main('--systems', 'edvr') == 0
    assert [section['name'] for section in load_options(str(a_test().file))['datasets'].values()] == list(PHOTOGRAPHS)
    assert list(a_test().metrics()) == list(PHOTOGRAPHS) and a_test().marker.exists()
    shutil.rmtree('datasets')
    assert list(a_test().metrics()) == list(PHOTOGRAPHS), 'what was tested, not what a test would have now'


@pytest.mark.parametrize('built', [{'clips': ['walk']}, None])
def test_other_missing_data_are_not_left_out(calls, built):
    root = data('medium_shift', **(built or {}))
    if built is None:
        (root / 'sources.json').unlink()
    assert list(a_test().metrics()) == [*PHOTOGRAPHS, 'real'], 'the test is to say what it lacks'


def test_clips_of_another_folder_are_tested_on(calls):
    data(*PHOTOGRAPHS)
    assert main('--systems', 'edvr', '--set-test', 'datasets.test_4.dataroot_gt=walks.lmdb') == 0
    assert list(a_test().metrics()) == [*PHOTOGRAPHS, 'real']
