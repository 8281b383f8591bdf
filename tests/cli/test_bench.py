"""jddb bench, on little."""
import json

import pytest

from jddb_plugin.cli.bench import table
from jddb_plugin.cli.main import main


def test_it_prints_numbers_as_data(capsys):
    assert main(['bench', '--device', 'cpu', '--size', 'small', '--only', 'matching', '--repeats', '1', '--json', '-']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['device'] == 'cpu' and found['size'] == 'small'
    assert [result['name'] for result in found['results']] == ['block matching'] and found['results'][0]['seconds'] > 0


def test_targets_stand_beside_their_numbers():
    results = [{'name': 'training, bf16', 'batch': 4, 'seconds': 0.05, 'data_wait': 0.5}]
    lines = table(results, with_targets=True).splitlines()
    assert len(lines) == 3 and lines[1].split()[-2:] == ['0.05', '0.06'] and lines[2].split()[-1] == '0.5'
    assert '0.06' not in table(results, with_targets=False)


def test_a_device_that_is_not_there_is_an_error(capsys):
    assert main(['bench', '--device', 'cuda:99']) == 2
    assert capsys.readouterr().err.startswith("error: --device: 'cuda:99' does not exist")


@pytest.mark.slow
def test_all_measurements_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['bench', '--device', 'cpu', '--size', 'small', '--repeats', '1', '--json', 'x.json']) == 0
    out = capsys.readouterr().out
    names = [result['name'] for result in json.loads((tmp_path / 'x.json').read_text())['results']]
    assert names == ['block matching', 'restored burst, float32', 'training, float32'] and all(name in out for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ['x.json']
