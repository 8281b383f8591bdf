"""What ``precision: auto`` is, and that pictures say it."""
import pytest
import torch

from jddb_plugin.restoration import Restorer, Settings
from jddb_plugin.runtime import machine
from tests.restoration.samples import write_tiffs


@pytest.mark.parametrize(('capable', 'network', 'given', 'expected'), [
    (True, 'small', 'auto', 'bf16'),
    (False, 'small', 'auto', 'float32'),
    (True, 'small', 'float32', 'float32'),
    (False, 'small', 'bf16', 'bf16'),
    (True, 'two_stage', 'auto', 'float32')])
def test_bf16_where_cpu_and_network_have_it(monkeypatch, weights, capable, network, given, expected):
    monkeypatch.setattr('jddb_plugin.restoration.restorer.computes_in_bf16', lambda: capable)
    file = weights if network == 'two_stage' else network
    assert Restorer(file, Settings(device='cpu', precision=given)).precision == expected


def test_capabilities_of_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: {'avx512_bf16': False, 'amx_bf16': True}, raising=False)
    assert machine.computes_in_bf16()
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: {'architecture': 'x86_64'})
    assert not machine.computes_in_bf16()
    monkeypatch.delattr(torch.cpu, 'get_capabilities')
    assert not machine.computes_in_bf16()


def test_precisions_differ_by_less_than_can_be_seen(tmp_path):
    burst = write_tiffs(tmp_path / 'burst', size=(96, 112), shift=(8, 8))
    pictures = {}
    for precision in ('float32', 'bf16'):
        settings = Settings(device='cpu', precision=precision, format='linear32')
        restored = Restorer('tiny', settings).restore(burst)
        pictures[precision] = torch.from_numpy(restored.picture)
        assert restored.inference.precision == precision
    error = (pictures['bf16'] - pictures['float32']).square().mean().sqrt()
    assert 0 < error < 2e-3
