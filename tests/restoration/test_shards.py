"""A batch in parts: every burst once, repeatable, with an account of what failed."""
import json
import os

import pytest

from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.restoration import shards
from jddb_plugin.restoration.shards import Shard, summarize
from jddb_plugin.restore import main
from tests.restoration.samples import ARGUMENTS, save_net, write_tiffs


def test_shares_hold_every_item_once():
    items = list(range(10))
    for count in (1, 3, 10, 12):
        shares = [Shard(number, count).of(items) for number in range(1, count + 1)]
        assert sorted(sum(shares, [])) == items and max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize('text', ['0/3', '4/3', '3', '1/0', 'a/b', '1/2/3', '-1/3', '1/١', ''])
def test_wrong_shards_are_named(text, tmp_path, capsys):
    with pytest.raises(OptionError, match='expected K/N with K from 1 to N'):
        Shard.parse(text)
    assert main([str(tmp_path), '-o', str(tmp_path / 'out'), '--weights', 'x', f'--shard={text}']) == 2
    assert capsys.readouterr().err.startswith('error: --shard: expected K/N')


def test_a_batch_in_parts_goes_on_and_says_what_failed(tmp_path, capsys):
    weights = save_net(tmp_path / 'net.pth')
    for name in 'abcde':
        write_tiffs(tmp_path / 'bursts' / name)
    broken = sorted((tmp_path / 'bursts' / 'd').glob('*.tif*'))[0]
    content = broken.read_bytes()
    broken.write_bytes(content[:100])

    def shard(number):
        status = main([str(tmp_path / 'bursts'), '-o', str(tmp_path / 'out'), '--weights', str(weights), *ARGUMENTS,
                       '--shard', f'{number}/3'])
        return status, capsys.readouterr().out.splitlines()

    assert shard(1)[0] == 1  # a and d
    assert shards.main([str(tmp_path / 'out')]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ['1 of 3 shards are finished: 1 bursts are restored, 1 failed', 'not finished: --array=2-3']
    assert lines[2].startswith('d: ') and broken.name in lines[2]
    assert shard(2)[0] == shard(3)[0] == 0
    pictures = {p.stem: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / 'out').glob('*.png')}
    assert sorted(pictures) == ['a', 'b', 'c', 'e']
    broken.write_bytes(content)
    status, lines = shard(1)
    assert status == 0 and lines[-1] == 'shard 1/3: 2 of 2 bursts are restored, 0 failed'
    assert summarize(tmp_path / 'out') == ('3 of 3 shards are finished: 5 bursts are restored, 0 failed', True)
    assert shards.main([str(tmp_path / 'out')]) == 0
    capsys.readouterr()
    again = {p.stem: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / 'out').glob('*.png')}
    assert len(again) == 5 and {name: again[name] for name in pictures} == pictures  # what was there is left as it was
    assert shard(3) == (0, [f"{tmp_path / 'out' / 'c.png'}: exists, skipped",
                            'shard 3/3: 1 of 1 bursts are restored, 0 failed'])
    assert main([str(tmp_path / 'bursts'), '-o', str(tmp_path / 'x.png'), '--weights', str(weights), '--shard', '5/5']) == 2
    assert 'give a folder' in capsys.readouterr().err


def test_more_parts_than_bursts(tmp_path, capsys):
    weights = save_net(tmp_path / 'net.pth')
    write_tiffs(tmp_path / 'bursts' / 'a')
    assert main([str(tmp_path / 'bursts'), '-o', str(tmp_path / 'out'), '--weights', str(weights), *ARGUMENTS,
                 '--shard', '2/2']) == 0
    assert capsys.readouterr().out == 'shard 2/2: 0 of 0 bursts are restored, 0 failed\n'


def test_wrong_accounts_are_named(tmp_path):
    with pytest.raises(DataError, match='holds no records of parts'):
        summarize(tmp_path)
    Shard(1, 3).report(tmp_path, 1, {})
    Shard(3, 3).report(tmp_path, 1, {'x\n': 'bad\x1b[0m'})
    text, complete = summarize(tmp_path)
    assert not complete and text.splitlines()[1] == 'not finished: --array=2'
    assert len(text.splitlines()) == 3 and '\x1b' not in text
    (tmp_path / 'shards' / '00002-of-00003.json').write_text('{"done": 1')
    with pytest.raises(DataError, match='00002-of-00003.json: is not the record of a part'):
        summarize(tmp_path)
    (tmp_path / 'shards' / '00002-of-00003.json').write_text(json.dumps({'done': 1, 'failed': {}}))
    Shard(1, 4).report(tmp_path, 1, {})
    with pytest.raises(DataError, match=r'records of several divisions \(into 3, 4\)'):
        summarize(tmp_path)
    (tmp_path / 'file').write_text('')
    with pytest.raises(DataError, match='cannot be written'):
        Shard(1, 1).report(tmp_path / 'file', 1, {})


def test_ten_thousand_bursts_are_found_in_seconds(tmp_path):
    """Each job of an array looks at all folders, and opens no file of bursts that are not its own."""
    for index in range(10000):
        folder = tmp_path / f'{index // 100}_{index}'
        os.mkdir(folder)
        for frame in range(2):
            (folder / f'{frame}.dng').touch()
    from jddb_plugin.restoration.bursts import find_bursts, with_unique_names
    bursts = Shard(7, 100).of(with_unique_names(find_bursts(tmp_path)))
    assert len(bursts) == 100
