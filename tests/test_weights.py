"""Weights by name, packed from checkpoints, and what is said of those that cannot be used."""
import contextlib
import re

import numpy as np
import pytest
import torch

from jddb_plugin import GatedUNet, TwoStageJDDB, weights
from jddb_plugin.checks import CheckpointError, OptionError
from jddb_plugin.weights import load_weights, pack_weights, read_weights
from tests.restoration.samples import MATCHING, make_net


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, 'FOLDER', tmp_path / 'package')
    return tmp_path / 'package'


def _save(path, net):
    torch.save({'params': {key: value + 1 for key, value in net.state_dict().items()}, 'params_ema': net.state_dict()}, path)
    return str(path)


@pytest.mark.parametrize(('net', 'options'), [
    (GatedUNet([8, 12, 16], [1, 0, 2]), {}), (GatedUNet(), {}), (make_net(), {}),
    (make_net(coarse='none', refined='none'), {'coarse': 'none'})])
def test_packed_weights_are_loaded_by_their_name(folder, tmp_path, net, options):
    source = _save(tmp_path / 'net_g_5.pth', net)
    path = pack_weights(source, 'little', '1', folder, **options)
    assert path == folder / 'little.pth' and weights.available() == ['little']
    content = torch.load(path, weights_only=True)
    assert set(content) == {'params', 'name', 'version', 'arch', 'options'} and content['arch'] == type(net).__name__
    again = load_weights('little')
    assert type(again) is type(net) and not again.training
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())
    assert read_weights('little').about == {'name': 'little', 'version': '1'}
    other = load_weights(source, **options)  # the bare checkpoint tells its options, too
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in net.state_dict().items())
    pack_weights(source, 'more', '2', folder, **options)
    assert weights.available() == ['little', 'more']


def test_half_of_the_size_is_the_same_to_float16(folder, tmp_path):
    net = GatedUNet([8, 12, 16], [1, 0, 2])
    source = _save(tmp_path / 'x.pth', net)
    files = [pack_weights(source, name, '1', folder, half=name == 'half') for name in ('whole', 'half')]
    sizes = [file.stat().st_size for file in files]
    loaded = load_weights('half')
    assert sizes[1] < 0.8 * sizes[0] and {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert all(torch.equal(value.half().float(), loaded.state_dict()[key]) for key, value in net.state_dict().items())


def test_a_networks_options_go_along(folder, tmp_path):
    pack_weights(_save(tmp_path / 'x.pth', make_net()), 'two', '1', folder, dpbm={'radius': 3, 'stride': 1})
    assert load_weights('two').coarse.window.radius == 3
    assert load_weights('two', dpbm=MATCHING).coarse.window.radius == 2


def test_what_cannot_be_used_is_named(folder, tmp_path):
    with pytest.raises(CheckpointError, match="'small': no weights come with this version of the package"):
        load_weights('small')
    path = pack_weights(_save(tmp_path / 'x.pth', GatedUNet([4, 4, 4], [0, 0, 0])), 'little', '1', folder)
    with pytest.raises(CheckpointError, match=r"'litle': neither a file nor the name of weights; did you mean 'little'"):
        load_weights('litle')
    with pytest.raises(CheckpointError, match=re.escape(f'{tmp_path}/y.pth: no such checkpoint')):
        load_weights(tmp_path / 'y.pth')
    with pytest.raises(OptionError, match="name: expected letters"):
        pack_weights(str(tmp_path / 'x.pth'), '../x', '1', folder)
    with pytest.raises(OptionError, match="little: GatedUNet has no option 'channel'; did you mean 'channels'"):
        load_weights('little', channel=3)
    content = torch.load(path, weights_only=True)
    for change, message in (({'arch': 'Unknown'}, "of a network 'Unknown' that this version does not have"),
                            ({'options': {'channels': [4, 4, 8], 'blocks': [0, 0, 0]}}, r'is \[.*\], expected \['),
                            ({'params': {}}, 'expected a state dict')):
        torch.save({**content, **change}, tmp_path / 'changed.pth')
        with pytest.raises(CheckpointError, match=message):
            load_weights(tmp_path / 'changed.pth')
    path.write_bytes(path.read_bytes()[:-1] + b'x')
    with pytest.raises(CheckpointError, match='damaged, its SHA-256 is not that of index.json'):
        load_weights('little')
    path.unlink()
    with pytest.raises(CheckpointError, match='is missing; reinstall the package'):
        load_weights('little')


def test_every_network_knows_its_own():
    small, two = GatedUNet([4, 4, 4], [1, 1, 1]).state_dict(), TwoStageJDDB(8, 2).state_dict()
    assert GatedUNet.detect(small) and not GatedUNet.detect(two)
    assert TwoStageJDDB.detect(two) and not TwoStageJDDB.detect(small)
    with pytest.raises(CheckpointError, match=r'GatedUNet of \[4, 4, 5000\] channels'):
        GatedUNet.options_of({**small, 'to3.weight': torch.zeros(5000, 1)}, 'x')


def test_a_file_whose_bytes_were_changed_is_not_used(tmp_path):
    path = tmp_path / 'x.pth'
    _save(path, GatedUNet([8, 12, 16], [1, 0, 2]))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle:middle + 3] = bytes(255 - value for value in content[middle:middle + 3])
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r'x.pth: damaged \(x/data/\d+ differs from its checksum\); copy it again'):
        load_weights(path)


def test_any_changed_bytes_are_one_error(tmp_path):
    """Those of headers and of the directory, too."""
    path = tmp_path / 'x.pth'
    _save(path, GatedUNet([4, 4, 4], [0, 0, 0]))
    sound = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(sound)
        place = random.integers(len(content))
        content[place:place + 8] = random.bytes(8)
        path.write_bytes(content)
        net = None
        with contextlib.suppress(CheckpointError):
            net = load_weights(path)
        if net is not None:  # they were padding
            path.write_bytes(sound)
            assert all(torch.equal(value, load_weights(path).state_dict()[key]) for key, value in net.state_dict().items())
