"""An empty folder to work in, and quick processes in place of training and test."""
import os
from pathlib import Path

import pytest

from jddb_plugin.tables import running
from jddb_plugin.tables.planning import Evaluation

#: Stands in for training and test: notes that it was called, ends as behavior.json says, writes metrics.
FAKE = '''
import json, signal, sys, time
from pathlib import Path
import yaml
opt = yaml.safe_load(Path(sys.argv[sys.argv.index('-opt') + 1]).read_text())
name, phase = opt['name'], 'PHASE'
with open('calls.txt', 'a') as file:
    file.write(f'{name} {phase} {"--auto_resume" in sys.argv}\\n')
wanted = json.loads(Path('behavior.json').read_text()).get(f'{name} {phase}', 0) if Path('behavior.json').exists() else 0
if wanted == 'wait':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    Path('waiting').touch()
    time.sleep(60)
Path('experiments', name, 'models').mkdir(parents=True, exist_ok=True)
if phase == 'test' and not wanted:
    for section in opt['datasets'].values():
        table = {metric: {clip: {'all': 20.0, 'center': 30.0} for clip in ('average', 'a')} for metric in ('psnr', 'ssim')}
        Path('results', name).mkdir(parents=True, exist_ok=True)
        Path('results', name, f"metrics_{section['name']}.json").write_text(json.dumps(table))
print('first word')
print('broken here', end='\\r')
sys.exit(wanted)
'''


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """An empty folder with quick processes in place of training and test; returns what was called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')]))
    for phase in ('train', 'test'):
        Path(f'fake_{phase}.py').write_text(FAKE.replace('PHASE', phase))
    monkeypatch.setattr(running, 'MODULES', {'train': 'fake_train', 'test': 'fake_test'})
    monkeypatch.setattr(running, 'check_options', lambda options, is_train: {**options, 'path': options.get('path') or {}})
    monkeypatch.setattr(running, 'iterations_in', lambda options, seconds: int(seconds))
    monkeypatch.setattr(Evaluation, 'prepare', lambda test: None)

    def read():
        return Path('calls.txt').read_text().splitlines() if Path('calls.txt').exists() else []

    return read


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path
