"""The option ``noise``: the same words mean the same for data sets, settings and the command line."""
import subprocess
import sys

import pytest

from jddb_plugin.checks import OptionError
from jddb_plugin.noise_option import TEST_LEVELS, parse_level, parse_noise
from jddb_plugin.ops.noise import NoiseModel
from jddb_plugin.restoration.settings import Settings


@pytest.mark.parametrize(('value', 'expected'), [
    ('low', (2.5e-3, 1e-2)), ('high', TEST_LEVELS['high']), ('0.001,0.02', (1e-3, 0.02)), ([0, 1], (0.0, 1.0)),
    ((0.1, 0.2), (0.1, 0.2))])
def test_levels(value, expected):
    assert parse_level(value) == parse_noise(value) == parse_noise(value, 'random', 'metadata') == expected
    assert tuple(float(level) for level in NoiseModel.parse(value)) == expected
    assert Settings(noise=value).noise == expected
    text = value if isinstance(value, str) else ','.join(map(str, value))
    assert Settings.parse({'noise': text}).noise == expected


@pytest.mark.parametrize(('value', 'message'), [
    ('lo', "noise: expected 'metadata', 'estimate', 'low', 'high', or SHOT,READ such as 0.0025,0.01; got 'lo'"),
    ('random', "got 'random'"), ('0.1', "got '0.1'"), ('a,b', "got 'a,b'"), ('0.1,0.2,0.3', 'expected'), ([0.1], r'got \[0.1\]'),
    ([0.1, 2], 'noise: shot and read must be in 0 .. 1, got 0.1 and 2'), ('-1,0', 'got -1 and 0'), ('nan,0', 'got nan and 0'),
    (None, 'got None'), (3, 'got 3'), ([None, 1], 'expected')])
def test_what_is_no_noise_is_refused_alike(value, message):
    with pytest.raises(OptionError, match=message):
        parse_noise(value, 'metadata', 'estimate')
    with pytest.raises(OptionError, match=message):
        Settings(noise=value)


def test_sources_count_only_where_they_are_named():
    assert parse_noise('estimate', 'metadata', 'estimate') == Settings(noise='estimate').noise == 'estimate'
    with pytest.raises(OptionError, match="got 'estimate'"):
        parse_noise('estimate', 'random')
    with pytest.raises(OptionError, match="expected 'low', 'high'"):
        NoiseModel.parse('estimate')


def test_settings_need_no_torch():
    code = ("import sys; from jddb_plugin.restoration.settings import Settings; Settings(noise='low');"
            "print('torch' in sys.modules)")
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout == 'False\n'
