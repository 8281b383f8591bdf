"""Where a run is in its data, and what every random draw is a function of.

An epoch passes once over the (enlarged) data set. The order of an epoch depends on its number alone, and what is
drawn for a sample on (seed, epoch, index), so that the place is known from the iteration: a resumed run sees the
batches that an uninterrupted one would have seen.
"""
from __future__ import annotations

import contextlib
import random
from typing import Any, Iterator, Optional, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from jddb_plugin.runtime import preemption


class EpochIndex(int):
    """Index of a sample that also says when it is drawn; to a stock data set it is a plain integer.

    Attributes:
        epoch: counted from 0.
        draw: how often the enlarged epoch has passed over the data set before.
    """

    epoch: int = 0
    draw: int = 0

    @classmethod
    def of(cls, index: int, epoch: int, draw: int) -> EpochIndex:
        """Index with its time."""
        result = cls(index)
        result.epoch, result.draw = epoch, draw
        return result


def make_sampler_class(base: type) -> type:
    """The toolbox's EnlargedSampler with indices that know their epoch, and with a place to start from."""

    class EpochSampler(base):
        """Order of the samples of one epoch for one process.

        data/__init__.py:87 seeds workers once, so random numbers repeat every epoch; a data set that derives them
        from the index's epoch has fresh ones, whatever the number of workers.
        """

        _start = (0, 0)

        def start_at(self, epoch: int, samples: int) -> None:
            """Leave out the first ``samples`` of this process in ``epoch``: they were trained on before."""
            self._start = (epoch, samples)

        def __iter__(self) -> Iterator[EpochIndex]:
            generator = torch.Generator().manual_seed(self.epoch)
            order = torch.randperm(self.total_size, generator=generator).tolist()
            size = len(self.dataset)
            mine = order[self.rank:self.total_size:self.num_replicas]
            epoch, samples = self._start
            return iter([EpochIndex.of(v % size, self.epoch, v // size)
                         for v in mine[samples if self.epoch == epoch else 0:]])

    return EpochSampler


def _seed_everything(*entropy: int) -> None:
    """Seed Python's, numpy's and torch's global generators."""
    words = np.random.SeedSequence([int(value) for value in entropy]).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]) << 32 | int(words[3]))


def seed_step(seed: int, rank: int, iteration: int) -> None:
    """Global generators of a training step: what it draws (dropout, say) depends on the iteration alone."""
    _seed_everything(seed, rank, iteration, 1)


@contextlib.contextmanager
def _restored_generators() -> Iterator[None]:
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])


class _Samples(Protocol):
    """A data set with a length."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class SeededSamples(Dataset):
    """A data set whose global random draws depend on (seed, epoch, index) alone.

    The toolbox's data sets draw crops and flips from the global generators of their worker.
    """

    def __init__(self, dataset: _Samples, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: EpochIndex) -> Any:
        """Sample ``index``, drawn at the epoch and pass of the index."""
        entropy = (self.seed, index.epoch, index.draw, int(index), 2)
        if get_worker_info() is not None:
            _seed_everything(*entropy)
            return self.dataset[index]
        with _restored_generators():  # those of the training step
            _seed_everything(*entropy)
            return self.dataset[index]


def start_worker(_: int) -> None:
    """``worker_init_fn`` of a training's loader; samples are seeded one by one."""
    preemption.obey_parent_only()


class RunState:
    """What the toolbox's pipeline knows of this run, and its model does not.

    Attributes:
        resumed: the training state that the run goes on from; None for a new run.
        batches: iterations per epoch, once the data is known.
        validation_loaders: of all validation sets, in their order.
        tb_logger: TensorBoard's, in rank 0, if there is one.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget an earlier run in this process."""
        self.resumed: Optional[dict[str, Any]] = None
        self.batches: Optional[int] = None
        self.validation_loaders: list[Any] = []
        self.tb_logger: Optional[Any] = None

    def epoch_of(self, iteration: int) -> int:
        """Epoch that follows ``iteration`` finished iterations."""
        return iteration // self.batches if self.batches else 0


#: Of the run in this process: the toolbox's pipeline has no place of its own for it.
RUN_STATE = RunState()
