"""Where a run is in its data, speed and memory."""
import random
import time

import numpy as np
import torch
from basicsr.data.data_sampler import EnlargedSampler

from jddb_plugin.runtime import meter
from jddb_plugin.runtime.data_position import EpochIndex, RunState, SeededSamples, make_sampler_class, seed_step


class Drawing(torch.utils.data.Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return int(index), random.random(), float(np.random.rand()), float(torch.rand(()))


def _order(epoch, start=(0, 0), ranks=1, rank=0, ratio=2):
    sampler = make_sampler_class(EnlargedSampler)(Drawing(), ranks, rank, ratio)
    sampler.set_epoch(epoch)
    sampler.start_at(*start)
    return [(int(i), i.epoch, i.draw) for i in sampler]


def test_an_epoch_starts_where_it_was_left():
    whole = _order(3)
    assert len(whole) == 10 and sorted(whole) == [(i, 3, d) for i in range(5) for d in (0, 1)]
    assert _order(3, start=(3, 4)) == whole[4:] and _order(4, start=(3, 4)) == _order(4) != whole
    shared = [_order(3, ranks=2, rank=r) for r in (0, 1)]
    assert [index for pair in zip(*shared) for index in pair] == whole
    assert _order(3, start=(3, 3), ranks=2, rank=1) == shared[1][3:]


def test_samples_depend_on_seed_epoch_and_index_alone():
    data = SeededSamples(Drawing(), seed=7)
    first = data[EpochIndex.of(2, 1, 0)]
    assert first == data[EpochIndex.of(2, 1, 0)]
    others = [data[EpochIndex.of(2, 2, 0)], data[EpochIndex.of(2, 1, 1)], data[EpochIndex.of(3, 1, 0)],
              SeededSamples(Drawing(), seed=8)[EpochIndex.of(2, 1, 0)]]
    assert len({value[1:] for value in (first, *others)}) == 5
    order = [EpochIndex.of(i, 1, 0) for i in range(5)]
    workers = torch.utils.data.DataLoader(data, sampler=order, num_workers=2, batch_size=None)
    assert tuple(list(workers)[2]) == first


def test_drawing_a_sample_leaves_the_training_steps_generators_alone():
    seed_step(0, 0, 5)
    expected = random.random(), np.random.rand(), torch.rand(())
    seed_step(0, 0, 5)
    SeededSamples(Drawing(), seed=0)[EpochIndex.of(0, 0, 0)]
    assert (random.random(), np.random.rand(), torch.rand(())) == expected
    seeds = []
    for where in ((0, 0, 5), (0, 1, 5), (1, 0, 5), (0, 0, 6)):
        seed_step(*where)
        seeds.append(float(torch.rand(())))
    assert len(set(seeds)) == 4


def test_epochs_are_counted_in_this_runs_batches():
    state = RunState()
    assert state.epoch_of(10) == 0
    state.batches = 3
    assert [state.epoch_of(i) for i in (0, 2, 3, 7)] == [0, 0, 1, 2]


def test_the_meter_counts_training_and_not_validation():
    watch = meter.Meter(4, torch.device('cpu'))
    assert watch.read() == {}
    with meter.waiting():
        time.sleep(0.05)
    time.sleep(0.05)
    watch.count()
    watch.count()
    begin = time.perf_counter()
    time.sleep(0.3)
    watch.pause(time.perf_counter() - begin)
    values = watch.read()
    assert 5 < values['iterations_per_second'] <= 20 and values['samples_per_second'] == 4 * values['iterations_per_second']
    assert 0.2 < values['data_wait'] < 0.8
    assert 0.05 < values['peak_memory_gb'] < 100
    assert watch.read() == {}
