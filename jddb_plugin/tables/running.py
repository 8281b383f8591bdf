"""Trainings and tests of a study, one after the other, each in a process of its own; resumable."""
from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

from jddb_plugin.checks import OptionError, TrainingError
from jddb_plugin.compat.options import check_options
from jddb_plugin.config import load_options
from jddb_plugin.files import take_lock
from jddb_plugin.runtime import preemption
from jddb_plugin.tables.budget import iterations_in
from jddb_plugin.tables.planning import Evaluation, Training, keep_options
from jddb_plugin.tables.systems import Study, System

MODULES = {'train': 'jddb_plugin.train', 'test': 'jddb_plugin.test'}


class Stopped(Exception):
    """A signal, or a training that was preempted, ends the command; ``status`` is its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(f'stopped with status {status}')
        self.status = status


def trainings_of(study: Study, systems: Sequence[System], seeds: Sequence[int]) -> list[Training]:
    """All trainings that these systems need, those that others start from first."""
    parts: dict[str, None] = {}
    for part in dict.fromkeys(part for system in systems for part in system.parts):
        start = study.start_of(part)
        if start is not None:
            parts[start] = None
        parts[part] = None
    ordered = sorted(parts, key=lambda part: study.start_of(part) is not None)
    return [Training(study, part, seed) for part in ordered for seed in seeds]


def evaluations_of(study: Study, systems: Sequence[System], seeds: Sequence[int]) -> list[Evaluation]:
    """All tests of these systems."""
    return [Evaluation(study, system, seed, source) for system in systems for seed in seeds for source in study.tests]


def plan(trainings: Sequence[Training], overrides: Sequence[str]) -> None:
    """Resolve, check and keep the options of trainings; those that are kept already must be the same.

    Raises:
        OptionError: see :func:`keep_options`; or the study gives no seconds for a training that needs them.
    """
    for training in trainings:
        iterations = None
        if training.study.timed:
            if training.file.is_file():
                iterations = load_options(str(training.file))['train']['total_iter']
            elif training.study.seconds is None:
                raise OptionError(f'--seconds: {training.name} needs the CPU seconds of its training, e.g. --seconds 600.')
            else:
                iterations = iterations_in(training.options(overrides, None), training.study.seconds)
        options = training.options(overrides, iterations)
        if not training.marker.exists():
            check_options(copy.deepcopy(options), is_train=True)
        keep_options(training.file, options, training.name)


def run_training(training: Training) -> None:
    """Train, or resume an interrupted training.

    Raises:
        Stopped: by a signal; the state is saved.
        TrainingError: it failed.
    """
    if training.marker.exists():
        return
    start = training.study.start_of(training.part)
    if start is not None and not Training(training.study, start, training.seed).marker.exists():
        raise TrainingError(f'{training.name} starts from {Training(training.study, start, training.seed).name}, which is not '
                            'trained yet; run that first.')
    before, began = _cpu_seconds(), time.perf_counter()
    try:
        _call('train', training.file, training.name, '--auto_resume')
    finally:
        _add_time(training, _cpu_seconds() - before, time.perf_counter() - began)
    training.marker.touch()


def run_test(test: Evaluation, overrides: Sequence[str]) -> bool:
    """Test a system whose trainings are complete; returns whether it is tested now.

    Raises:
        Stopped: by a signal.
        TrainingError: the test failed.
    """
    if not all(training.marker.exists() for training in test.trainings):
        return False
    test.file.parent.mkdir(parents=True, exist_ok=True)
    lock = take_lock(test.file.with_suffix('.lock'), wait=False)
    if lock is None:
        return False  # another task of the array is at it
    try:
        if not test.marker.exists():
            keep_options(test.file, test.options(overrides), test.name)
            test.prepare()
            _call('test', test.file, test.name)
            missing = [str(file) for file in test.metrics().values() if not file.is_file()]
            scored = load_options(str(test.file)).get('val', {}).get('metrics')
            if missing and scored:
                raise TrainingError(f'{test.name}: the test wrote no {missing[0]}.')
            test.marker.touch()
    finally:
        lock.release()
    return True


def timing_of(training: Training) -> dict[str, float]:
    """CPU and wall seconds that went into a training, and the number of times it was started."""
    file = _time_file(training)
    return json.loads(file.read_text()) if file.is_file() else {'cpu': 0.0, 'wall': 0.0, 'starts': 0}


def _time_file(training: Training) -> Path:
    return training.file.with_suffix('.time.json')


def _add_time(training: Training, cpu: float, wall: float) -> None:
    seconds = timing_of(training)
    seconds = {'cpu': seconds['cpu'] + cpu, 'wall': seconds['wall'] + wall, 'starts': seconds['starts'] + 1}
    _time_file(training).write_text(json.dumps(seconds) + '\n')


def _cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _call(phase: str, file: Path, name: str, *flags: str) -> None:
    log = file.parents[1] / 'logs' / f'{name}_{phase}.log'
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, '-m', MODULES[phase], '-opt', str(file), *flags]
    with open(log, 'ab') as output:
        # A session of its own: a terminal's Ctrl-C reaches it once, through us.
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=dict(os.environ))
        with _forwarding(process) as received:
            status = process.wait()
    # A scheduler's signal may have killed it while it was starting.
    if status in (preemption.EXIT_STATUS, *(-number for number in preemption.SIGNALS)) or received:
        number = received[0] if received else signal.SIGTERM
        raise Stopped(preemption.EXIT_STATUS if number in preemption.SIGNALS else 128 + number)
    if status:
        raise TrainingError(f'{name}: {phase} exited with status {status}: {_last_line(log)} ({log})')


@contextlib.contextmanager
def _forwarding(process: subprocess.Popen) -> Iterator[list[int]]:
    """Hand signals that would end this process on to the other, so that it can save its state; lists what came."""
    received: list[int] = []

    def forward(number: int, _: Any) -> None:
        received.append(number)
        process.send_signal(signal.SIGTERM if number == signal.SIGINT else number)

    numbers = (signal.SIGINT, *preemption.SIGNALS)
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors='replace').replace('\r', '\n').splitlines()]
    return next((line for line in reversed(lines) if line), 'it said nothing')


def job(trainings: Sequence[Training], index: Optional[int]) -> list[Training]:
    """The training of an array's task, or all.

    Raises:
        OptionError: there is no such number.
    """
    if index is None:
        return list(trainings)
    if not 0 <= index < len(trainings):
        raise OptionError(f'--index: expected 0 .. {len(trainings) - 1} for {len(trainings)} trainings, got {index}.')
    return [trainings[index]]
