"""The command jddb: its help, its names, and its errors."""
import os
import select
import subprocess
import sys
import time

import pytest

import jddb_plugin
from jddb_plugin.checks import OptionError
from jddb_plugin.cli import arguments, export, lmdb
from jddb_plugin.cli.main import COMMANDS, build_parser, main
from jddb_plugin.config import find_options, shipped_options
from jddb_plugin.data.burst_lmdb import ENCODINGS
from jddb_plugin.ops.cfa import CFA_PATTERNS
from jddb_plugin.restoration.export import FORMS
from jddb_plugin.restoration.picture import FORMATS
from jddb_plugin.restoration.settings import FORMAT_NAMES
from tests.conftest import ROOT


@pytest.mark.parametrize('command', [[], *([name] for name in COMMANDS), ['lmdb', 'build'], ['lmdb', 'verify']], ids=' '.join)
def test_help_needs_neither_torch_nor_the_toolbox(command):
    """All heavy modules are hidden, so that importing one of them fails."""
    hidden = ('torch', 'torchvision', 'basicsr', 'cv2', 'numpy', 'matplotlib', 'yaml', 'mmengine')
    code = (f'import sys; sys.modules.update(dict.fromkeys({hidden})); from jddb_plugin.cli.main import main; '
            f'main({[*command, "--help"]})')
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0 and result.stdout.startswith('usage: jddb'), result.stderr


def test_help_takes_less_than_a_second_of_cpu():
    resource = pytest.importorskip('resource')
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run([sys.executable, '-m', 'jddb_plugin', 'restore', '--help'], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 1, f'{spent:.2f} s of CPU in {time.perf_counter() - start:.2f} s'


def test_version(capsys):
    with pytest.raises(SystemExit) as error:
        main(['--version'])
    assert error.value.code == 0 and capsys.readouterr().out == f'jddb_plugin {jddb_plugin.__version__}\n'


def test_the_copies_of_names_are_those_of_the_library():
    assert arguments.CFA_PATTERNS == CFA_PATTERNS and lmdb.ENCODINGS == ENCODINGS
    assert tuple(FORMS) == export.FORMS and tuple(FORMATS) == FORMAT_NAMES


def test_old_spellings_are_the_same_command(capsys):
    for name in ('train', 'test', 'restore', 'doctor'):
        module = __import__(f'jddb_plugin.{name}', fromlist=['main'])
        with pytest.raises(SystemExit) as error:
            module.main(['--help'])
        assert error.value.code == 0 and capsys.readouterr().out.startswith(f'usage: jddb {name}')


def test_completion_is_printed_for_all_commands(capsys):
    pytest.importorskip('shtab')
    with pytest.raises(SystemExit):
        main(['--print-completion', 'bash'])
    script = capsys.readouterr().out
    assert all(word in script for word in ('show-matching', '--skip-existing', 'linear32', '--auto_resume'))
    assert subprocess.run(['bash', '-n'], input=script, text=True).returncode == 0


def test_shipped_option_files_are_found_by_name(tmp_path, monkeypatch):
    folder = shipped_options()
    assert find_options('jddb_reds', 'train') == str(folder / 'train' / 'jddb_reds.yml')
    assert find_options('tables/w_ca', 'train') == str(folder / 'train' / 'tables' / 'w_ca.yml')
    assert find_options('demo', 'test') == str(folder / 'test' / 'demo.yml')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'demo').write_text('mine')  # a file of the user's comes first
    assert find_options('demo', 'test') == 'demo'
    with pytest.raises(OptionError, match="jddb_redss: no such option file, and none .*; did you mean 'jddb_reds'"):
        find_options('jddb_redss', 'train')


def test_every_argument_has_a_help_text():
    parsers = [build_parser()]
    while parsers:
        parser = parsers.pop()
        for action in parser._actions:
            assert action.help or action.choices, f'{parser.prog}: {action.dest}'
            if isinstance(action.choices, dict):
                parsers += action.choices.values()


def test_what_a_missing_package_means_is_said_in_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'jddb_plugin.restoration.batch', None)
    monkeypatch.delitem(sys.modules, 'jddb_plugin.restoration.batch')

    def missing(name, *_):
        if name == 'jddb_plugin.restoration.batch':
            raise ModuleNotFoundError("No module named 'basicsr'", name='basicsr')

    class Finder:
        find_spec = staticmethod(missing)

    monkeypatch.setattr(sys, 'meta_path', [Finder, *sys.meta_path])
    assert main(['restore', 'x', '-o', 'y', '--weights', 'z']) == 2
    assert capsys.readouterr().err == \
        "error: jddb_plugin cannot use its environment (No module named 'basicsr'); run: jddb doctor\n"


@pytest.mark.skipif(not hasattr(select, 'poll'), reason='no poll')
@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_a_reader_that_went_away_is_no_error(unbuffered):
    """As after ``jddb ... | head``; a broken pipe of anything else stays an error."""
    code = """
import os, sys
from jddb_plugin.cli import main as command
def fail(*_):
    raise BrokenPipeError('another pipe')
command.main = {'output': lambda: print('x' * 10000), 'other': fail}[sys.argv[1]]
command.console()
"""
    for case, status, message in (('output', 141, ''), ('other', 1, '\nBrokenPipeError: another pipe\n')):
        reader, writer = os.pipe()
        if case == 'output':
            os.close(reader)
        result = subprocess.run([sys.executable, '-c', code, case], stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
                                env={**os.environ, 'PYTHONUNBUFFERED': unbuffered})
        os.close(writer)
        assert result.returncode == status and result.stderr.endswith(message) and (message or not result.stderr), result.stderr


@pytest.mark.parametrize(('given', 'expected'), [
    ({}, '10000'), ({'GOMP_SPINCOUNT': '5'}, '5'), ({'OMP_WAIT_POLICY': 'active'}, 'None')])
def test_threads_that_wait_leave_the_processor_to_others(given, expected):
    code = '''
import os, sys
import jddb_plugin.cli.main as command
command.main = lambda: print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT')) or 0
command.console()
'''
    variables = {k: v for k, v in os.environ.items() if k not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')}
    output = subprocess.run([sys.executable, '-c', code], env={**variables, **given}, capture_output=True, text=True, check=True)
    assert output.stdout == f'False {expected}\n'
