"""jddb train and test, in this process: what they share."""
import sys

import pytest

from jddb_plugin.cli.main import main
from jddb_plugin.compat import datasets
from jddb_plugin.data.unprocessed_burst_dataset import UnprocessedBurstDataset, UnprocessedBurstTestDataset
from tests.small_run import validation, write_options


@pytest.fixture
def count(monkeypatch):
    """How often data sets are built, by class."""
    built = {}
    for cls in (UnprocessedBurstDataset, UnprocessedBurstTestDataset):
        def init(self, opt, _make=cls.__init__):
            built[type(self).__name__] = built.get(type(self).__name__, 0) + 1
            _make(self, opt)

        monkeypatch.setattr(cls, '__init__', init)
    return built


def test_data_sets_are_built_once_and_numbers_kept(texture_lmdb, tmp_path, monkeypatch, count):
    monkeypatch.chdir(tmp_path)
    data, val = validation(texture_lmdb, val_freq=2)
    options = write_options(tmp_path, texture_lmdb, val=val)
    given = ['num_gpu=0', 'train.total_iter=2', 'train.scheduler.periods=[2]']
    given += [f'datasets.val.{key}={value}' for key, value in data.items()]
    arguments = list(sys.argv)
    assert main(['train', '-opt', options, '--set', *given]) == 0
    assert count == {'UnprocessedBurstDataset': 1, 'UnprocessedBurstTestDataset': 1} and not datasets._checked
    assert sys.argv == arguments
    folder = tmp_path / 'experiments' / 'small'
    assert len((folder / 'metrics.jsonl').read_text().splitlines()) == 2
    assert '# by: jddb train -opt' in (folder / 'small.yml').read_text()
    assert main(['plot', str(folder), '-o', 'curves.png']) == 0 and (tmp_path / 'curves.png').is_file()


def test_data_sets_that_no_pipeline_took_are_forgotten(texture_lmdb, tmp_path, monkeypatch, count):
    monkeypatch.chdir(tmp_path)
    options = write_options(tmp_path, texture_lmdb)

    def fail(_):
        raise KeyError('x')

    monkeypatch.setattr('basicsr.train.train_pipeline', fail)
    with pytest.raises(KeyError):
        main(['train', '-opt', options, '--set', 'num_gpu=0'])
    assert count == {'UnprocessedBurstDataset': 1} and not datasets._checked
