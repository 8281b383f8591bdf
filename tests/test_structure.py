"""What the folders promise: imports in one direction, small files, nothing printed or asserted."""
import ast
import os
import subprocess
import sys

import pytest

from .conftest import ROOT

PACKAGE = ROOT / 'jddb_plugin'
# Each room may import from those below it.
ALLOWED = {
    'entry': {'entry', 'restoration', 'models', 'data', 'archs', 'losses', 'hooks', 'visual', 'ops', 'compat', 'runtime', 'base'},
    'restoration': {'restoration', 'archs', 'data', 'visual', 'ops', 'runtime', 'base'},
    'tables': {'tables', 'archs', 'models', 'data', 'ops', 'compat', 'runtime', 'base'},
    'models': {'models', 'archs', 'losses', 'hooks', 'visual', 'ops', 'runtime', 'base'},
    'data': {'data', 'ops', 'base'},
    'archs': {'archs', 'ops', 'base'},
    'losses': {'losses', 'ops', 'base'},
    'hooks': {'hooks', 'base'},
    'visual': {'visual', 'ops', 'base'},
    'ops': {'ops', 'checks'},
    'runtime': {'runtime', 'base'},
    'compat': {'compat', 'runtime', 'ops', 'base'},
    'base': {'base'},
}
BASE = {'checks', 'options', 'config'}
FILES = sorted(PACKAGE.rglob('*.py'))


def _room(parts):
    if parts[0] in BASE:
        return 'base'
    return parts[0] if parts[0] in ALLOWED else 'entry'


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    room = _room(parts)
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path.name} imports relatively'
            names = [node.module] if node.module != 'jddb_plugin' else [f'jddb_plugin.{alias.name}' for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if not name.startswith('jddb_plugin.'):
                continue
            target = name.split('.')[1:]
            assert _room(target) in ALLOWED[room] or target[0] in ALLOWED[room], f'{path.name} ({room}) imports {name}'


@pytest.mark.parametrize('path', [p for p in FILES if p.parent.name == 'ops'], ids=lambda p: p.stem)
def test_ops_know_no_option_registry_or_file(path):
    imported = {alias.name.split('.')[0] for node in ast.walk(ast.parse(path.read_text()))
                for alias in (node.names if isinstance(node, ast.Import) else [])}
    imported |= {node.module.split('.')[0] for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
    # basicsr and mmcv are imported where their kernels are called.
    assert imported <= {'__future__', 'collections', 'dataclasses', 'importlib', 'math', 'typing', 'torch', 'torchvision',
                        'jddb_plugin', 'basicsr', 'mmcv'}
    assert 'open(' not in path.read_text()
    assert 'registry import' not in path.read_text()


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_small_and_do_not_assert(path):
    assert len(path.read_text().splitlines()) <= 400
    assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]


def test_one_import_registers_everything():
    code = ('import jddb_plugin; from basicsr.utils import registry as r; from jddb_plugin.hooks import HOOK_REGISTRY as h;'
            'print(*(n for g in (r.ARCH_REGISTRY, r.MODEL_REGISTRY, r.DATASET_REGISTRY, r.LOSS_REGISTRY, h) for n in g.keys()))')
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    expected = {'TwoStageJDDB', 'DPBM', 'CoarseAligned', 'JDDBModel', 'HookedVideoBaseModel', 'HookedSRModel',
                'UnprocessedBurstDataset', 'UnprocessedBurstTestDataset', 'ReconstructionLoss', 'InterpolationLoss',
                'OneHotLoss', 'BlockMatchingLoss', 'TemperatureHook', 'LossWeightHook', 'EDVR', 'VideoBaseModel'}
    assert expected <= set(result.stdout.split())


def test_doctor_finds_a_sound_environment():
    result = subprocess.run([sys.executable, '-m', 'jddb_plugin.doctor'], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count('\nok ') + result.stdout.startswith('ok ') == 6
    assert 'DCNv2 backends: torchvision, grid_sample' in result.stdout


def test_doctor_says_what_is_missing(tmp_path):
    # A package of that name that cannot be imported stands in for one that is not installed.
    (tmp_path / 'basicsr.py').write_text('raise ImportError("basicsr is not here")\n')
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path), str(ROOT)])}
    result = subprocess.run([sys.executable, '-m', 'jddb_plugin.doctor'], capture_output=True, text=True, env=environment)
    assert result.returncode == 1
    assert 'FAIL  host' in result.stdout and 'basicsr is not here' in result.stdout
    result = subprocess.run([sys.executable, '-c', 'import jddb_plugin'], capture_output=True, text=True, env=environment)
    assert 'run: python -m jddb_plugin.doctor' in result.stderr
