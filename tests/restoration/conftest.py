"""Fixtures."""
import pytest

from tests.restoration.samples import (
    save_net,
    write_tiffs,
)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return save_net(tmp_path_factory.mktemp('net') / 'net.pth')


@pytest.fixture
def burst(tmp_path):
    return write_tiffs(tmp_path / 'burst')
