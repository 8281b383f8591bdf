"""The step that builds basicsr where its own build fails."""
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch

from jddb_plugin import install_toolbox

#: What the setup.py of basicsr 1.4.2 does.
CODE = 'def version():\n    exec(compile("__version__ = 3", "x", "exec"))\n    return locals()["__version__"]\nprint(version())'


def _run(folder):
    environment = {**os.environ, 'PYTHONPATH': str(folder)}
    return subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True, env=environment)


def test_exec_defines_variables_of_its_caller(tmp_path):
    if sys.version_info >= (3, 13):
        assert 'KeyError' in _run(tmp_path).stderr
    (tmp_path / 'sitecustomize.py').write_text(install_toolbox._SITECUSTOMIZE)
    result = _run(tmp_path)
    assert result.stdout == '3\n', result.stderr


def test_pip_is_asked_for_the_pinned_distribution(monkeypatch):
    calls = []

    def run(command, env, check):
        requirement = command[command.index('--requirement') + 1] if '--requirement' in command else None
        calls.append((command[3:], env, requirement and Path(requirement).read_text()))
        assert requirement is None or os.path.exists(os.path.join(env['PYTHONPATH'], 'sitecustomize.py'))

    monkeypatch.setattr(install_toolbox.subprocess, 'run', run)
    monkeypatch.setattr(install_toolbox.importlib.metadata, 'requires', lambda name: ['addict', 'x; extra == "y"'])
    install_toolbox.install(['--quiet'])
    packages, toolbox, required = (call[0][1:3] for call in calls)
    assert packages == ['setuptools', 'wheel'] and toolbox == ['--no-deps', '--no-build-isolation']
    assert required == ['addict', '--quiet']
    assert calls[1][2] == f'basicsr==1.4.2 --hash=sha256:{install_toolbox.SHA256}\n' and '--require-hashes' in calls[1][0]


def test_nothing_is_done_twice_and_failures_are_said(monkeypatch, capsys):
    assert install_toolbox.main([]) == 0 and capsys.readouterr().out == 'basicsr 1.4.2 is installed\n'
    monkeypatch.setattr(install_toolbox, 'is_installed', lambda: False)

    def fail(_):
        raise subprocess.CalledProcessError(3, 'pip')

    monkeypatch.setattr(install_toolbox, 'install', fail)
    assert install_toolbox.main([]) == 3 and 'could not be installed' in capsys.readouterr().err


@pytest.mark.skipif(install_toolbox.is_installed() is False, reason='basicsr was installed in another way')
def test_the_version_is_that_of_the_workarounds():
    import basicsr
    assert basicsr.__version__ == install_toolbox.VERSION


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('nvcc') is None or torch.version.cuda is None, reason='no nvcc, or a torch without CUDA')
def test_the_toolboxs_cuda_extension_compiles(tmp_path):
    """For one architecture; it is not run here."""
    compiler = subprocess.run(['nvcc', '--version'], capture_output=True, text=True, check=True).stdout
    if f'release {torch.version.cuda.split(".")[0]}.' not in compiler:
        pytest.skip(f'nvcc is of another CUDA than {torch.version.cuda}, that of torch')
    packages = Path(sysconfig.get_paths()['purelib']) / 'nvidia' / f'cu{torch.version.cuda.split(".")[0]}'
    for library in (packages / 'lib').glob('libcudart.so.*'):
        (tmp_path / 'libcudart.so').symlink_to(library)
    environment = {**os.environ, 'BASICSR_EXT': 'True', 'FORCE_CUDA': '1', 'TORCH_CUDA_ARCH_LIST': '8.0',
                   'CPATH': str(packages / 'include'), 'LIBRARY_PATH': str(tmp_path)}
    (tmp_path / 'sitecustomize.py').write_text(install_toolbox._SITECUSTOMIZE)
    environment['PYTHONPATH'] = str(tmp_path)
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--no-cache-dir', '-w', tmp_path,
                    f'basicsr=={install_toolbox.VERSION}'], env=environment, check=True)
    wheel, = tmp_path.glob('*.whl')
    extensions = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith('.so')]
    assert sorted(name.split('/')[2] for name in extensions) == ['dcn', 'fused_act', 'upfirdn2d']
