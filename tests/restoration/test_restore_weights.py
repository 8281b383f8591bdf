"""The restore command with checkpoints that it must refuse."""
import os
import pickle
import re

import pytest
import torch

from tests.restoration.samples import (
    listing,
)

from .restore_run import error_line, run_restore


class _Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(('make', 'message'), [
    (lambda state, path: {'epoch': 0, 'iter': '7\x1b[2J\n', 'optimizers': [], 'schedulers': []}, 'a training state'),
    (lambda state, path: {'params': {'pcd_align.x.weight': torch.ones(1)}}, 'a checkpoint of another network'),
    (lambda state, path: {'module.ConvBGRU.conv_1x1.weight': torch.ones(1), 'feature_up.bias': torch.ones(1)},
     'convert it with jddb convert'),
    (lambda state, path: {**state, 'refine.x': _Code(path)}, 'not a checkpoint that can be loaded safely'),
    (lambda state, path: {**state, 'refine.fuse.join.bias': torch.ones(8).to_sparse()}, 'not finite numbers'),
    (lambda state, path: {**state, 'refine.fuse.join.bias': torch.ones(8, device='meta')}, 'finite numbers|loaded safely'),
    (lambda state, path: {**state, 'refine.extract.0.0.weight': torch.ones(1).expand(10 ** 6, 8, 3, 3)}, 'num_feat up to 512'),
    (lambda state, path: [state], 'expected a checkpoint'), (lambda state, path: {'params': [1]}, 'expected a state dict')])
def test_wrong_checkpoints_are_told_and_run_nothing(tmp_path, weights, burst, capfd, make, message):
    state = torch.load(weights, weights_only=True)['params']
    torch.save(make(state, str(tmp_path / 'ran')), tmp_path / 'net.pth')
    assert run_restore(burst, '-o', tmp_path / 'out', weights=tmp_path / 'net.pth') == 2
    assert re.search(message, error_line(capfd))
    assert not (tmp_path / 'ran').exists() and not listing(tmp_path / 'out')


@pytest.mark.parametrize('content', [b'', b'PK\3\4', b'hello', pickle.dumps(_Code('ran')), None])
def test_checkpoints_that_are_none_are_told(tmp_path, monkeypatch, weights, burst, capfd, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'net.pth').write_bytes(weights.read_bytes()[:-1000] if content is None else content)
    assert run_restore(burst, '-o', tmp_path / 'out', weights=tmp_path / 'net.pth') == 2
    assert 'net.pth: truncated, or not a checkpoint' in error_line(capfd) and not (tmp_path / 'ran').exists()


def test_weights_that_give_no_numbers_are_told(tmp_path, weights, burst, capfd):
    state = torch.load(weights, weights_only=True)['params']
    state['refine.reconstruct.output.4.weight'] = torch.full_like(state['refine.reconstruct.output.4.weight'], 3e38)
    torch.save(state, tmp_path / 'net.pth')
    assert run_restore(burst, '-o', tmp_path / 'out', weights=tmp_path / 'net.pth') == 1
    assert 'values that are not finite' in capfd.readouterr().err and not listing(tmp_path / 'out')
