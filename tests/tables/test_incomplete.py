"""Studies of which something is not there: no clips, no data any more, seeds of some rows alone."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jddb_plugin.config import load_options
from jddb_plugin.tables import command
from jddb_plugin.tables.planning import Evaluation
from jddb_plugin.tables.systems import SYSTEMS, make_study

from ..conftest import ROOT
from .test_report import complete
from .test_running import main

PHOTOGRAPHS = ('small_shift', 'medium_shift', 'large_shift')


def data(*names, clips=()):
    """What ``prepare`` leaves of the small study."""
    root = Path('datasets/tables_small')
    root.mkdir(parents=True)
    for name in names:
        (root / f'{name}.lmdb').mkdir()
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


def rows_of(text):
    """First cell of every line of the tables -> the others."""
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines() if line.startswith('|')]
    return {first: others for first, *others in cells}


def test_scores_that_are_kept_are_printed_without_the_data(calls, capsys):
    assert main('--systems', 'edvr') == 0
    for name in PHOTOGRAPHS:
        average = {'average': {'all': 20.0, 'center': 22.0}}
        Path(f'results/small/bilinear_{name}.json').write_text(json.dumps({'psnr': average}))
    capsys.readouterr()
    assert command.main(['print', '--study', 'small']) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows['bilinear'][1:5] == ['22.00', '22.00', '22.00', 'missing']
    assert rows['EDVR*'] == ['1 of 1', *['30.00'] * 4, 'missing', '', 'missing'], 'real has no baseline to gain over'
    Path('results/small/bilinear_real.json').write_text(Path('results/small/bilinear_small_shift.json').read_text())
    assert command.main(['print', '--study', 'small']) == 0
    assert rows_of(capsys.readouterr().out)['EDVR*'] == ['1 of 1', *['30.00'] * 4, '+8.00', '', 'yes']


@pytest.mark.parametrize('study', ['small', 'claims'])
def test_columns_stand_where_nothing_is_known(workplace, capsys, study):
    assert command.main(['print', '--study', study]) == 0
    rows = rows_of(capsys.readouterr().out)
    if study == 'small':
        assert rows['system'][1:5] == ['small shift', 'medium shift', 'large shift', 'real']
        assert rows['bilinear'][1:5] == rows['GCP-Net'][1:5] == ['missing'] * 4
    else:
        assert rows['full'] == ['missing'] * 4


def test_sets_that_were_left_out_are_no_columns(workplace, capsys):
    data()
    assert command.main(['print', '--study', 'small']) == 0
    assert rows_of(capsys.readouterr().out)['system'][1:5] == ['small shift', 'medium shift', 'large shift', 'least gain']


def test_rows_that_get_one_seed_are_complete_with_it(calls, capsys):
    assert main('--systems', 'rvidenet', 'edvr', '--seeds', '0', '1') == 0
    capsys.readouterr()
    assert command.main(['print', '--study', 'small', '--seeds', '0', '1']) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows['rvidenet'][1:3] == ['1 of 1', 'complete'] and rows['edvr'][1:3] == ['2 of 2', 'complete']
    assert rows['dmn'][1:3] == ['0 of 1', 'missing'] and rows['two_stage'][1:3] == ['0 of 2', 'missing']


def test_what_others_start_from_is_printed_first(workplace, capsys):
    assert command.main(['print', '--study', 'claims', '--seeds', '0', '1']) == 0
    text = capsys.readouterr().out
    assert [rows_of(text)[part][1] for part in ('start', 'two_stage')] == ['0 of 2'] * 2
    assert text.index('| start ') < text.index('| wo_align ')


def script(folder, hidden, *arguments):
    """(status, output, errors) of scripts/tables.py without some packages."""
    code = ('import runpy, sys; sys.modules.update(dict.fromkeys(sys.argv[1].split())); sys.argv = [sys.argv[2], *sys.argv[3:]]; '
            'runpy.run_path(sys.argv[0], run_name="__main__")')
    found = subprocess.run([sys.executable, '-c', code, hidden, str(ROOT / 'scripts' / 'tables.py'), *arguments],
                           capture_output=True, text=True, cwd=folder, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    return found.returncode, found.stdout, found.stderr


def test_a_missing_package_is_one_line(workplace):
    status, _, errors = script(workplace, 'torchvision', 'list')
    assert status == 2 and errors.count('\n') == 1, errors
    assert errors.startswith('error: jddb_plugin cannot use its environment (') and errors.endswith('; run: jddb doctor\n')


def test_scipy_is_needed_for_the_paired_tests_alone(workplace):
    status, output, errors = script(workplace, 'scipy', 'print', '--study', 'claims')
    assert status == 0 and '| full > w/ RA' in output, errors
    study = make_study('claims')
    for key in ('two_stage', 'w_ra'):
        complete(study, key, 0, {name: {'a': 20.0, 'b': 21.0} for name in (*PHOTOGRAPHS, 'real')})
    status, _, errors = script(workplace, 'scipy', 'print', '--study', 'claims')
    assert status == 2 and errors.count('\n') == 1, errors
    assert "the paired tests of the claims: needs the package 'scipy'" in errors and 'pip install scipy' in errors
