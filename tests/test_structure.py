"""What the folders promise: imports in one direction, small files, nothing printed or asserted."""
import ast
import os
import subprocess
import sys

import pytest

import jddb_plugin
from jddb_plugin.cli import doctor
from jddb_plugin.cli.main import main
from jddb_plugin.registration import CLASSES

from .conftest import ROOT

PACKAGE = ROOT / 'jddb_plugin'
# Each room may import from those below it.
ALLOWED = {
    'entry': {'entry', 'cli', 'base'},
    'cli': {'cli', 'restoration', 'inference', 'weights', 'models', 'data', 'archs', 'losses', 'hooks', 'visual', 'ops', 'compat',
            'runtime', 'tables', 'base'},
    'tables': {'tables', 'inference', 'weights', 'models', 'data', 'archs', 'losses', 'hooks', 'visual', 'ops', 'compat',
               'runtime', 'base'},
    'restoration': {'restoration', 'inference', 'weights', 'archs', 'data', 'visual', 'ops', 'runtime', 'base'},
    'models': {'models', 'inference', 'archs', 'losses', 'hooks', 'visual', 'ops', 'runtime', 'base'},
    'inference': {'inference', 'archs', 'ops', 'base'},
    'weights': {'weights', 'archs', 'runtime', 'base'},
    'data': {'data', 'ops', 'base'},
    'archs': {'archs', 'ops', 'base'},
    'losses': {'losses', 'ops', 'base'},
    'hooks': {'hooks', 'base'},
    'visual': {'visual', 'ops', 'base'},
    'ops': {'ops', 'checks', 'noise_option'},
    'runtime': {'runtime', 'base'},
    'compat': {'compat', 'runtime', 'ops', 'base'},
    'base': {'base'},
}
BASE = {'checks', 'children', 'options', 'config', 'files', 'noise_option', 'registration'}
FILES = sorted(PACKAGE.rglob('*.py'))


def _room(parts):
    if parts[0] in BASE:
        return 'base'
    return parts[0] if parts[0] in ALLOWED else 'entry'


def _tree(path):
    return ast.parse(path.read_text())


def _imported(path):
    """Names of the modules that a file imports, wherever in it."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path.name} imports relatively'
            yield from [node.module] if node.module != 'jddb_plugin' else [f'jddb_plugin.{alias.name}' for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_imports_run_one_way():
    for path in FILES:
        room = _room(path.relative_to(PACKAGE).with_suffix('').parts)
        for name in _imported(path):
            if name.startswith('jddb_plugin.'):
                target = name.split('.')[1:]
                assert _room(target) in ALLOWED[room] or target[0] in ALLOWED[room], f'{path.name} ({room}) imports {name}'


def test_ops_know_no_option_registry_or_file():
    # basicsr, mmcv, OpenCV and Triton are imported where their kernels are called.
    allowed = {'__future__', 'collections', 'dataclasses', 'functools', 'importlib', 'math', 'typing', 'warnings', 'torch',
               'torchvision', 'jddb_plugin', 'basicsr', 'mmcv', 'cv2', 'numpy', 'triton'}
    for path in (PACKAGE / 'ops').glob('*.py'):
        assert {name.split('.')[0] for name in _imported(path)} <= allowed, path.name
        assert 'open(' not in path.read_text() and 'registry import' not in path.read_text(), path.name


def test_files_are_small_and_do_not_assert():
    for path in (*FILES, *(ROOT / 'scripts').rglob('*.py'), *(ROOT / 'tests').rglob('*.py')):
        assert len(path.read_text().splitlines()) <= 350, path.name
    for path in FILES:
        assert not [node for node in ast.walk(_tree(path)) if isinstance(node, ast.Assert)], path.name


def _run(code, **environment):
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, **environment})


def test_ops_need_neither_the_toolbox_nor_its_packages():
    hidden = ('basicsr', 'cv2', 'lmdb', 'mmengine', 'mmcv', 'matplotlib', 'skimage', 'scipy', 'yaml', 'tqdm', 'triton')
    code = (f'import sys; sys.modules.update(dict.fromkeys({hidden})); import jddb_plugin.ops, pkgutil, importlib;'
            '[importlib.import_module("jddb_plugin.ops." + m.name) for m in pkgutil.iter_modules(jddb_plugin.ops.__path__)]')
    result = _run(code)
    assert result.returncode == 0, result.stderr


def test_the_import_alone_is_cheap():
    result = _run('import jddb_plugin, sys; print(sorted({"torch", "basicsr", "numpy"} & set(sys.modules)))')
    assert result.stdout == '[]\n', result.stderr


def test_one_import_registers_everything():
    code = ('import jddb_plugin; from basicsr.utils import registry as r; from jddb_plugin.hooks import HOOK_REGISTRY as h;'
            'print(*(n for g in (r.ARCH_REGISTRY, r.MODEL_REGISTRY, r.DATASET_REGISTRY, r.LOSS_REGISTRY, h) for n in g.keys()))')
    result = _run(code)
    expected = {'TwoStageJDDB', 'DPBM', 'CoarseAligned', 'JDDBModel', 'HookedVideoBaseModel', 'HookedSRModel',
                'UnprocessedBurstDataset', 'UnprocessedBurstTestDataset', 'ReconstructionLoss', 'InterpolationLoss',
                'OneHotLoss', 'BlockMatchingLoss', 'TemperatureHook', 'LossWeightHook', 'EDVR', 'VideoBaseModel'}
    assert expected <= set(result.stdout.split()), result.stderr


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='forks')
def test_whatever_is_imported_first_registers_everything():
    """As in a spawned worker, which unpickles a data set before anything else; forked from a process
    that has imported torch and nothing of ours."""
    others = 'jddb_plugin.hooks', 'jddb_plugin.runtime.lifecycle', 'jddb_plugin.restoration.restorer'
    modules = list(dict.fromkeys((*CLASSES.values(), *others)))
    code = f'modules = {modules}' + '''
import importlib, os, traceback
import torch, torchvision
for first in modules:
    if os.fork():
        print(first, os.wait()[1], flush=True)
        continue
    status = 1
    try:
        importlib.import_module(first)
        import jddb_plugin
        from basicsr.utils.registry import MODEL_REGISTRY
        classes = jddb_plugin.registration.CLASSES
        status = not ('JDDBModel' in MODEL_REGISTRY and all(getattr(jddb_plugin, n).__name__ == n for n in classes))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
'''
    result = _run(code)
    lines = result.stdout.splitlines()
    assert len(lines) == len(modules) and all(line.endswith(' 0') for line in lines), result.stdout + result.stderr


def test_the_toolbox_may_be_imported_before():
    code = ('import sys, types; from torchvision.transforms import functional;'
            'missing = types.SimpleNamespace(rgb_to_grayscale=functional.rgb_to_grayscale);'
            'sys.modules["torchvision.transforms.functional_tensor"] = missing; import basicsr, jddb_plugin;'
            'from basicsr.utils.registry import MODEL_REGISTRY as m; print("JDDBModel" in m)')
    result = _run(code)
    assert result.stdout == 'True\n', result.stderr


def test_names_that_are_not_there_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'TwoStage'"):
        jddb_plugin.TwoStage  # noqa: B018
    assert {'TwoStageJDDB', '__version__'} <= set(dir(jddb_plugin))


def test_doctor_finds_a_sound_environment(capsys):
    assert main(['doctor']) == 0
    out = capsys.readouterr().out
    assert out.count('\nok ') + out.startswith('ok ') == 6
    assert 'DCNv2 backends: torchvision, grid_sample' in out


def test_doctor_says_how_to_install_what_is_missing(monkeypatch, capsys):
    def version(name):
        return None if name in ('basicsr', 'lmdb', 'rawpy') else '1'

    monkeypatch.setattr(doctor, '_version', version)
    with pytest.raises(RuntimeError, match='basicsr, lmdb; run: python -m jddb_plugin.install_toolbox and pip install lmdb$'):
        doctor._versions()
    same = ('mmcv', 'opencv-python-headless')  # hold what mmcv-lite and opencv-python do
    monkeypatch.setattr(doctor, '_version', lambda name: None if name in ('rawpy', 'mmcv-lite', 'opencv-python') else
                        '1' if name in same or 'cv' not in name else None)
    assert doctor._versions().endswith('; optional, not installed: rawpy (raw files)')


def test_doctor_says_what_is_missing(tmp_path):
    # A package of that name that cannot be imported stands in for one that is broken.
    (tmp_path / 'basicsr.py').write_text('raise ImportError("basicsr is not here")\n')
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path), str(ROOT)])}
    result = subprocess.run([sys.executable, '-m', 'jddb_plugin', 'doctor'], capture_output=True, text=True, env=environment)
    assert result.returncode == 1
    assert 'FAIL  host' in result.stdout and 'basicsr is not here' in result.stdout
    result = _run('from jddb_plugin import DPBM', PYTHONPATH=environment['PYTHONPATH'])
    assert 'basicsr is not here' in result.stderr and 'run: jddb doctor' in result.stderr
