import pytest

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.runtime.preflight import check_folders, check_seed, check_wandb


@pytest.mark.parametrize('seed', [20261125123456, -1, 2 ** 32, 0.5, '7', True])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(OptionError, match=r'manual_seed: expected a whole number in 0 \.\. '):
        check_seed({'manual_seed': seed})


@pytest.mark.parametrize('seed', [None, 0, 2 ** 31])
def test_other_seeds_are_taken(seed):
    check_seed({'manual_seed': seed})


def test_wandb_that_cannot_be_used_is_refused(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    for logger, message in (({'wandb': {'project': 'x'}, 'use_tb_logger': True}, "'wandb' is not installed; run: pip install"),
                            ({'wandb': {'project': 'x'}}, 'use_tb_logger: true'), ({'wandb': 'x'}, 'expected a mapping')):
        with pytest.raises(OptionError, match=message):
            check_wandb({'logger': logger})
    for logger in ({}, {'wandb': None}, {'wandb': {'project': None}}):
        check_wandb({'logger': logger})
    monkeypatch.setattr('importlib.util.find_spec', lambda name: object())
    check_wandb({'logger': {'wandb': {'project': 'x'}, 'use_tb_logger': True}})


def test_folders_of_stock_data_sets_are_looked_into(tmp_path):
    (tmp_path / 'empty' / 'inner').mkdir(parents=True)
    (tmp_path / 'x.lmdb').mkdir()
    (tmp_path / 'x.lmdb' / 'data.mdb').touch()
    (tmp_path / 'list.txt').touch()
    for section, message in (({'dataroot_gt': 'empty'}, 'dataroot_gt: .*empty: an empty folder'),
                             ({'dataroot_lq': 'nowhere'}, 'dataroot_lq: .*no such file or folder'),
                             ({'dataroot_gt': 'x.lmdb'}, 'no meta_info.txt'), ({'meta_info_file': 'list.txt'}, 'an empty file'),
                             ({'meta_info_file': 'none.txt'}, 'no such file')):
        with pytest.raises(DataError, match=message):
            check_folders({key: str(tmp_path / value) for key, value in section.items()}, 'datasets.train')
    (tmp_path / 'empty' / 'inner' / '0.png').touch()
    check_folders({'dataroot_gt': str(tmp_path / 'empty'), 'type': 'PairedImageDataset', 'gt_size': 3}, 'datasets.train')
