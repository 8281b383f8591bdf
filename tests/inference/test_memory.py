import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from jddb_plugin.archs.burst_network import BurstNetwork
from jddb_plugin.checks import DataError, OptionError
from jddb_plugin.inference import memory as plan
from jddb_plugin.inference.engine import TiledInference, make_alignment
from jddb_plugin.inference.memory import Plan, make_plan, tile_bytes
from jddb_plugin.inference.tiling import TilingOptions, cover_grid
from jddb_plugin.options import parse_memory
from jddb_plugin.restoration import Restorer, Settings
from tests.restoration.samples import TILES, command, listing, make_burst, make_net, save_net, write_tiffs

_CPU = torch.device('cpu')


_TILING = TilingOptions(16, 4)


class _Sizes:
    """A source of which only its size is asked."""

    def __init__(self, size, count, ref_idx=1):
        self.size, self.count, self.ref_idx = size, count, ref_idx


def _plan(net, size, free, align, tiling=_TILING):
    alignment = make_alignment(net, _Sizes(size, 3), align, tiling)
    return make_plan(net, alignment, tiling, free=free, where='here'), alignment


@pytest.mark.parametrize(('text', 'size'), [
    ('2G', 2 << 30), ('1500M', 1500 << 20), (' 1.5 GB ', 3 << 29), ('64k', 65536), ('7', 7), ('1TiB', 1 << 40),
    ('9' * 400 + 'T', 1 << 60)])
def test_sizes_are_read(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize('text', ['', 'G', '0', '0.0G', '-1G', '1e9', '2X', 'nan', 'inf', '1,5G', '2 G B', '1\n\n2'])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(OptionError, match='^memory: expected a size such as 2G or 1500M, got'):
        parse_memory(text)


@pytest.mark.parametrize('align', ['tiles', 'smooth', 'flow', 'none'])
@pytest.mark.parametrize('tile', [16, None])
def test_more_memory_means_more_at_once_and_never_more_than_there_is(align, tile):
    net = make_net()
    budgets = range((40 + 64 * (align == 'flow')) << 20, 264 << 20, 5 << 20)
    found = [_plan(net, (500, 300), free, align, TilingOptions(tile, 4))[0] for free in budgets]
    assert all(0 < one.bytes <= free for one, free in zip(found, budgets))
    areas = [one.grid.size[0] * one.grid.size[1] for one in found]
    steps = [(area, one.tile_batch, one.step) for area, one in zip(areas, found)]
    _, alignment = _plan(net, (500, 300), 1 << 40, align, TilingOptions(tile, 4))
    assert areas == sorted(areas) and steps[-1][2] == alignment.steps
    if tile is not None:
        assert steps == sorted(steps) and steps[-1][1] == 4 and len(set(areas)) == 1
    elif align != 'tiles':
        assert len(set(areas)) > 3 and all(one.tile_batch == 1 for one in found)


@pytest.mark.parametrize('size', [(500, 300), (8000, 300)])
def test_too_little_for_a_tile_names_numbers_and_what_helps(size):
    net = make_net()
    with pytest.raises(OptionError) as error:
        _plan(net, size, 1 << 20, 'tiles')
    message = str(error.value)
    assert message.startswith(f'here: not enough memory for a single tile: 3 frames of {size[1] * 2} x {size[0] * 2} in tiles '
                              'of 24 x 24 take about ')
    assert '--memory leaves 1 MB' in message and '\n' not in message
    more = int(message.split('give at least ')[1].split(' MB')[0])
    assert _plan(net, size, (1 + more) << 20, 'tiles')[0].bytes <= (1 + more) << 20  # what it says is enough is


def test_flow_is_planned_by_the_memory_of_the_host():
    net = make_net()
    plenty = 1 << 40
    alignment = make_alignment(net, _Sizes((3000, 2000), 3), 'flow', _TILING)
    most, least = (alignment.estimation_bytes(step) for step in (alignment.steps, 1))
    assert make_plan(net, alignment, _TILING, free=plenty, host=most).step == alignment.steps
    assert make_plan(net, alignment, _TILING, free=plenty, host=least).step == 1
    needed = rf'^here: not enough memory to estimate the motion: 3 frames of 4000 x 6000 take about {least // 2 ** 20 + 1} MB, '
    with pytest.raises(OptionError, match=needed) as error:
        make_plan(net, alignment, _TILING, free=plenty, host=least - 1, where='here')
    assert '--tile' not in str(error.value) and '--frames' in str(error.value)
    searching = make_alignment(net, _Sizes((3000, 2000), 3), 'smooth', _TILING)
    assert make_plan(net, searching, _TILING, free=plenty, host=1).step == searching.steps  # it takes memory of the device


def test_a_search_too_large_for_the_memory_is_refused_before_it_starts():
    net = make_net(dpbm={'radius': 4096})
    with pytest.raises(OptionError, match='not enough memory for a single tile'):
        _plan(net, (500, 300), 1 << 30, 'tiles')


def test_the_memory_of_a_tile_is_measured():
    class Doubling(BurstNetwork):
        def restore(self, tiles, ref_idx):
            first = tiles.repeat(1, 10, 1, 1, 1)  # 10 times the tiles
            second = first + 1  # twice as much
            del first
            third = second + 1
            del second
            return third[:, 0, :3].repeat_interleave(2, -1).repeat_interleave(2, -2)

    net = Doubling()
    # 2 x 10 x 3 frames x 8 planes x 4 bytes at once, and the tiles themselves.
    assert tile_bytes(net, 3, _CPU) == pytest.approx(1.35 * (2 * 10 + 1) * 3 * 8 * 4, rel=0.01)


def test_a_memory_below_what_python_holds_is_refused(tmp_path):
    weights = save_net(tmp_path / 'net.pth')
    with pytest.raises(OptionError, match='^memory: 1 MB is less than Python and the libraries use already'):
        Restorer(weights, Settings(memory=1 << 20))


def test_without_a_system_that_tells_something_is_assumed(monkeypatch):
    monkeypatch.setattr(plan, '_number', lambda path, pattern: None)
    assert plan.resident_memory() == 900 << 20 and plan.available_memory() == 4 << 30


def test_a_control_group_counts(monkeypatch):
    numbers = {'/proc/meminfo': 8 << 20, '/sys/fs/cgroup/memory.max': 3 << 30, '/sys/fs/cgroup/memory.current': 1 << 30}
    monkeypatch.setattr(plan, '_number', lambda path, pattern: numbers.get(path))
    assert plan.available_memory() == 2 << 30
    numbers['/sys/fs/cgroup/memory.stat'] = 512 << 20  # of what is used, files that can be dropped
    assert plan.available_memory() == 5 << 29
    numbers['/sys/fs/cgroup/memory.max'] = None  # "max"
    assert plan.available_memory() == 8 << 30
    first = '/sys/fs/cgroup/memory/memory'
    numbers.update({f'{first}.limit_in_bytes': 2 << 30, f'{first}.usage_in_bytes': 1 << 30, f'{first}.stat': 0})
    assert plan.available_memory() == 1 << 30


def test_cache_of_a_control_group_is_read(tmp_path):
    (tmp_path / 'memory.stat').write_text('anon 7\ninactive_file 4096\nactive_file 5\n')
    assert plan._number(f'{tmp_path}/memory.stat', r'^inactive_file (\d+)$') == 4096


def _one_by_one(net, alignment, tiling, **_):
    grid = cover_grid(net, alignment.source.size, tiling, 0) if alignment.by_pixels else alignment.windows
    return Plan(grid, 1, 1, 0)


def test_little_memory_gives_the_same_picture(tmp_path, monkeypatch):
    weights, burst = save_net(tmp_path / 'net.pth'), write_tiffs(tmp_path / 'burst', size=(401, 145))
    (tmp_path / 'out').mkdir()
    pictures, plans = [], []
    for memory in (None, plan.resident_memory() + (1 << 30)):
        restorer = Restorer(weights, Settings(**TILES, memory=memory, device='cpu', format='png16'))
        if memory is not None:  # everything in files, and one row of tiles after another
            monkeypatch.setattr('jddb_plugin.restoration.restorer.make_plan', _one_by_one)
            monkeypatch.setattr(plan.Budget, 'mosaics', 0)
            monkeypatch.setattr(plan.Budget, 'picture', 0)
        result = restorer.restore(burst, tmp_path / 'out' / 'a.png', progress=False)
        pictures.append(cv2.imread(str(result.path), cv2.IMREAD_UNCHANGED).astype(int))
        plans.append(result.inference.plan)
        assert list(listing(tmp_path / 'out')) == ['a.png']
    assert (plans[0].step, plans[0].tile_batch) == (23, 4) and (plans[1].step, plans[1].tile_batch) == (1, 1)
    assert pictures[0].shape == (401, 145, 3) and np.abs(pictures[0] - pictures[1]).max() <= 2


def test_a_system_without_memory_is_told_in_one_line(tmp_path, monkeypatch):
    weights = save_net(tmp_path / 'net.pth')

    problems = []

    def fail(*_, **__):
        raise problems[-1]

    monkeypatch.setattr(TiledInference, 'restore', fail)
    for problem in (MemoryError(), torch.cuda.OutOfMemoryError('CUDA\nout of memory'),
                    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
                    cv2.error('OpenCV: alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes')):
        problems.append(problem)
        with pytest.raises(OptionError, match='^burst: out of memory; use a smaller memory'):
            Restorer(weights, Settings(**TILES)).restore(make_burst(), progress=False)
    problems.append(OSError(5, 'Input/output error'))
    with pytest.raises(DataError, match='burst: .*Input/output error'):
        Restorer(weights, Settings(**TILES)).restore(make_burst(), progress=False)
    for mistake in (RuntimeError('a mistake of ours'), cv2.error('a mistake of ours')):
        problems.append(mistake)
        with pytest.raises(type(mistake), match='a mistake of ours'):
            Restorer(weights, Settings(**TILES)).restore(make_burst(), progress=False)


_MEASURE = '''
import json, sys
import numpy as np
import torch
torch.set_num_threads(1)
from jddb_plugin.restoration import Burst, Restorer, Settings
from jddb_plugin.inference.memory import resident_memory
from tests.restoration.samples import CAMERA
extra, height, width = map(int, sys.argv[3:6])
align = sys.argv[6]
mosaics = [np.random.default_rng(k).integers(200, 3900, (height, width)).astype(np.uint16) for k in range(3)]
burst = Burst.from_arrays(mosaics, CAMERA)
memory = resident_memory() + (extra << 20)
radius = None if align == 'flow' else 6
settings = Settings(memory=memory, device='cpu', tile=64, overlap=4, radius=radius, format='png16', align=align)
restorer = Restorer(sys.argv[1], settings)
open('/proc/self/clear_refs', 'w').write('5')  # the peak of loading does not count
held = resident_memory()
result = restorer.restore(burst, sys.argv[2], progress=False)
peak = int([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1]) << 10
print(json.dumps({'memory': memory, 'peak': peak, 'held': held, 'planned': result.inference.plan.bytes,
                  'step': result.inference.plan.step, 'steps': result.inference.alignment.steps,
                  'batch': result.inference.plan.tile_batch, 'slack': memory - restorer.budget.held - restorer.budget.free}))
'''


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads /proc')
@pytest.mark.parametrize('align', ['smooth', 'tiles', 'flow'])
def test_the_process_stays_within_its_memory(tmp_path, align):
    weights, picture = save_net(tmp_path / 'net.pth'), tmp_path / 'a.png'
    _, environment = command()
    arguments = [weights, picture, 267 if align == 'flow' else 198, 1000, 800, align]
    result = subprocess.run([sys.executable, '-c', _MEASURE, *map(str, arguments)], env=environment, capture_output=True,
                            text=True)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found['batch'] < 4 or found['step'] < found['steps']) and picture.is_file(), found  # not all at once
    assert found['peak'] < found['memory'], found
    assert found['peak'] - found['held'] < found['planned'] + found['slack'], found
    assert found['peak'] - found['held'] > 0.2 * found['planned'], found  # and the estimate is of this world
