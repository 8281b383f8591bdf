import pytest
import torch

from jddb_plugin import TwoStageJDDB
from jddb_plugin.archs.released import convert_released
from jddb_plugin.checks import CheckpointError
from jddb_plugin.cli.main import main


def test_released_names_are_translated_one_to_one(shared):
    state = torch.load(shared('golden/network_nf8.pt'), weights_only=True)['state_dict']
    down = torch.load(shared('weights/released_downsampler_600000.pth'), weights_only=True)
    state = {f'module.{key}': value for key, value in state.items()}
    converted = convert_released(state, down)
    net = TwoStageJDDB(num_feat=8, deformable_groups=2)
    net.load_state_dict(converted, strict=True)
    assert len(converted) == len(state) + len(down)


def test_unknown_keys_are_refused():
    with pytest.raises(CheckpointError, match="'conv_first.weight' is not a key of the released main network"):
        convert_released({'conv_first.weight': torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="'simple_block.2.weight' is not a key of the released downsampler"):
        convert_released({}, {'simple_block.2.weight': torch.zeros(1)})


def test_the_command_converts_and_refuses(shared, tmp_path, capsys):
    def convert(*arguments):
        return main(['convert', *map(str, arguments)])

    down = shared('weights/released_downsampler_600000.pth')
    golden = torch.load(shared('golden/network_nf8.pt'), weights_only=True)
    torch.save(golden['state_dict'], tmp_path / 'main.pth')
    status = convert('--main', tmp_path / 'main.pth', '--downsampler', down, '--output', tmp_path / 'out.pth')
    assert status == 0 and capsys.readouterr().out.endswith(' parameters, num_feat 8\n')
    content = torch.load(tmp_path / 'out.pth', weights_only=True)
    net = TwoStageJDDB(num_feat=8, deformable_groups=2)
    net.load_state_dict(content['params'], strict=True)

    truncated = tmp_path / 'truncated.pth'
    truncated.write_bytes((tmp_path / 'main.pth').read_bytes()[:5000])
    incomplete = dict(list(golden['state_dict'].items())[:-1])
    torch.save(incomplete, tmp_path / 'incomplete.pth')
    for first, message in ((truncated, 'truncated'), (tmp_path / 'incomplete.pth', 'conv_block_s5'), (down, 'not a key'),
                          (tmp_path / 'nowhere.pth', 'no such checkpoint')):
        assert convert('--main', first, '--downsampler', down, '--output', tmp_path / 'bad.pth') == 2
        error = capsys.readouterr().err
        assert message in error and error.count('\n') == 1
        assert not (tmp_path / 'bad.pth').exists()
