"""The wheel, built and installed into an environment of its own outside the checkout, does the main jobs."""
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import cv2
import pytest

from jddb_plugin.config import shipped_options
from tests.restoration.samples import save_net, write_tiffs

from .conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform == 'win32', reason='paths of a venv on Unix')


def _check(command, **options):
    result = subprocess.run(list(map(str, command)), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    pytest.importorskip('hatchling')
    folder = tmp_path_factory.mktemp('dist')
    _check([sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--no-index', '-w', folder, ROOT])
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def jddb(wheel, tmp_path_factory):
    """Run the installed command in an empty folder.

    What the package requires comes from this environment, by a .pth file; the package itself does not, since .pth files of
    a folder that is added by one (those of an editable installation) are not read.
    """
    root = tmp_path_factory.mktemp('environment')
    _check([sys.executable, '-m', 'venv', '--without-pip', root / 'env'])
    python = root / 'env' / 'bin' / 'python'
    site = Path(_check([python, '-c', 'import sysconfig; print(sysconfig.get_paths()["purelib"])']).strip())
    _check([sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index', wheel])
    (site / 'requirements.pth').write_text(sysconfig.get_paths()['purelib'] + '\n')
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}

    def run(*arguments, cwd):
        return _check([root / 'env' / 'bin' / 'jddb', *arguments], cwd=cwd, env=environment)

    place = _check([python, '-c', 'import jddb_plugin; print(jddb_plugin.__file__)'], cwd=root, env=environment)
    assert place.startswith(str(site)), place
    return run


def test_it_holds_what_is_not_python(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    options = {f'jddb_plugin/option_files/{file.relative_to(shipped_options()).as_posix()}'
               for file in shipped_options().rglob('*.yml')}
    weights = {f'jddb_plugin/weights/{file.name}' for file in (ROOT / 'jddb_plugin' / 'weights').glob('*.pth')}
    assert len(options) > 10 and options | weights | {'jddb_plugin/py.typed', 'jddb_plugin/visual/report.html'} <= names
    assert not [name for name in names if not name.startswith(('jddb_plugin/', 'jddb_plugin-'))]


def test_a_training_by_the_name_of_a_shipped_file(jddb, texture_folder, tmp_path):
    jddb('lmdb', 'build', texture_folder, 'datasets/demo/train.lmdb', '--workers', 0, cwd=tmp_path)
    assert 'sound' in jddb('lmdb', 'verify', 'datasets/demo/train.lmdb', '--workers', 1, cwd=tmp_path)
    jddb('train', '-opt', 'demo_two_stage', '--set', 'train.total_iter=2', 'num_gpu=0', 'network_g.num_feat=8',
         'network_g.deformable_groups=2', 'datasets.train.gt_size=48', 'datasets.train.num_worker_per_gpu=0',
         'logger.print_freq=1', 'logger.use_tb_logger=false', cwd=tmp_path)
    assert (tmp_path / 'experiments' / 'demo_two_stage' / 'models' / 'net_g_latest.pth').is_file()
    jddb('plot', 'experiments/demo_two_stage', '-o', 'curves.png', cwd=tmp_path)
    assert (tmp_path / 'curves.png').is_file()


def test_a_burst_is_restored(jddb, tmp_path):
    write_tiffs(tmp_path / 'burst')
    save_net(tmp_path / 'net.pth')
    jddb('restore', 'burst', '-o', 'out.png', '--report', 'report.html', '--weights', 'net.pth', '--tile', 16, '--overlap', 4,
         '--radius', 2, cwd=tmp_path)
    assert cv2.imread(str(tmp_path / 'out.png')).shape == (64, 80, 3) and (tmp_path / 'report.html').stat().st_size > 10000
