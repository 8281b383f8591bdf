import subprocess
import sys

import pytest
import torch

from jddb_plugin import TwoStageJDDB
from jddb_plugin.archs.released import convert_released
from jddb_plugin.checks import CheckpointError

from ..conftest import ROOT

SCRIPT = ROOT / 'scripts' / 'convert_released_checkpoint.py'


def test_released_names_are_translated_one_to_one(shared):
    main = torch.load(shared('golden/network_nf8.pt'), weights_only=True)['state_dict']
    down = torch.load(shared('weights/released_downsampler_600000.pth'), weights_only=True)
    main = {f'module.{key}': value for key, value in main.items()}
    converted = convert_released(main, down)
    net = TwoStageJDDB(num_feat=8, deformable_groups=2)
    net.load_state_dict(converted, strict=True)
    assert len(converted) == len(main) + len(down)


def test_unknown_keys_are_refused():
    with pytest.raises(CheckpointError, match="'conv_first.weight' is not a key of the released main network"):
        convert_released({'conv_first.weight': torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="'simple_block.2.weight' is not a key of the released downsampler"):
        convert_released({}, {'simple_block.2.weight': torch.zeros(1)})


def _convert(*arguments):
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True)


def test_script_converts_and_refuses(shared, tmp_path):
    down = shared('weights/released_downsampler_600000.pth')
    golden = torch.load(shared('golden/network_nf8.pt'), weights_only=True)
    torch.save(golden['state_dict'], tmp_path / 'main.pth')
    result = _convert('--main', tmp_path / 'main.pth', '--downsampler', down, '--output', tmp_path / 'out.pth')
    assert result.returncode == 0, result.stderr
    content = torch.load(tmp_path / 'out.pth', weights_only=True)
    net = TwoStageJDDB(num_feat=8, deformable_groups=2)
    net.load_state_dict(content['params'], strict=True)

    truncated = tmp_path / 'truncated.pth'
    truncated.write_bytes((tmp_path / 'main.pth').read_bytes()[:5000])
    incomplete = dict(list(golden['state_dict'].items())[:-1])
    torch.save(incomplete, tmp_path / 'incomplete.pth')
    for main, message in ((truncated, 'truncated'), (tmp_path / 'incomplete.pth', 'conv_block_s5'), (down, 'not a key'),
                          (tmp_path / 'nowhere.pth', 'no such checkpoint')):
        result = _convert('--main', main, '--downsampler', down, '--output', tmp_path / 'bad.pth')
        assert result.returncode == 2
        assert message in result.stderr and result.stderr.count('\n') == 1
        assert not (tmp_path / 'bad.pth').exists()
