"""A validation that was interrupted is repeated by the run that goes on, and leaves the same scores as one that was not."""
import json
import logging
import os
import re
import signal
from pathlib import Path

import pytest
from basicsr.utils import logger as basicsr_logger

from jddb_plugin.data.burst_lmdb import BurstLmdbWriter
from jddb_plugin.runtime import history
from jddb_plugin.train import main

from ..small_run import equal, validation, weights, write_options


@pytest.fixture
def options(textures, texture_lmdb, tmp_path):
    """Six iterations, validations of two sets of three frames each at 3 and 6."""
    with BurstLmdbWriter(str(tmp_path / 'short.lmdb')) as writer:
        for name, frames in textures.items():
            for index, frame in enumerate(frames[:3]):
                writer.put_image(name, index, frame[:64, :64])
    data, val = validation(tmp_path / 'short.lmdb', val_freq=3)
    data['num_frame'] = 3
    return write_options(tmp_path, texture_lmdb, train={'total_iter': 6, 'warmup_iter': -1}, val=val, datasets={
        'train': {'dataroot_gt': str(texture_lmdb), 'gt_size': 48, 'dataset_enlarge_ratio': 1, 'num_worker_per_gpu': 0},
        'val': {**data, 'clips': ['a']}, 'val_2': {**data, 'name': 'second', 'clips': ['b']}})


def train(arguments):
    """With a log of its own: the toolbox keeps the first one that a process has opened."""
    for handler in list(logging.getLogger('basicsr').handlers):
        logging.getLogger('basicsr').removeHandler(handler)
    basicsr_logger.initialized_logger.clear()
    return main(arguments)


def _scores(folder):
    return [json.loads(line) for line in (folder / 'experiments/small' / history.FILE).read_text().splitlines()]


def _whole(tmp_path, monkeypatch, options):
    (tmp_path / 'whole').mkdir()
    monkeypatch.chdir(tmp_path / 'whole')
    assert train(['-opt', options]) == 0
    scores = _scores(tmp_path / 'whole')
    assert [(s['iter'], s['set']) for s in scores[::2]] == [(3, 'clips'), (3, 'second'), (6, 'clips'), (6, 'second')]
    return scores


@pytest.mark.parametrize(('frame', 'missing'), [(1, ['clips', 'second']), (4, ['second'])])
def test_a_signal_in_a_validation(options, tmp_path, monkeypatch, frame, missing):
    """In the second frame of the first set, and in that of the second: the first is not scored again."""
    from jddb_plugin.models.jddb_model import JDDBModel
    scores = _whole(tmp_path, monkeypatch, options)
    (tmp_path / 'stopped').mkdir()
    monkeypatch.chdir(tmp_path / 'stopped')
    restored, test = [], JDDBModel.test

    def counted(self):
        restored.append(None)
        if len(restored) == frame + 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        test(self)

    with monkeypatch.context() as context:
        context.setattr(JDDBModel, 'test', counted)
        assert train(['-opt', options, '--set', 'logger.save_checkpoint_freq=100']) == 75
    assert len(restored) == frame + 1
    assert Path('experiments/small', history.FILE).exists() == (frame == 4)
    assert train(['-opt', options, '--auto_resume']) == 0
    assert _scores(tmp_path / 'stopped') == scores
    log = max(Path('experiments/small').glob('*.log'), key=os.path.getmtime).read_text()
    assert re.findall(r'Iteration 3: validation on (\w+) was interrupted, and is repeated now', log) == missing
    first, second = (tmp_path / name / 'experiments/small' for name in ('whole', 'stopped'))
    assert equal(weights(first, 'net_g_6.pth'), weights(second, 'net_g_6.pth'))
    assert train(['-opt', options, '--auto_resume']) == 0  # finished already: nothing is scored twice
    assert _scores(tmp_path / 'stopped') == scores


def test_a_state_of_another_experiment_is_not_validated_first(options, tmp_path, monkeypatch):
    _whole(tmp_path, monkeypatch, options)
    Path('experiments/small', history.FILE).unlink()
    assert train(['-opt', options, '--set', 'name=other', 'path.resume_state=experiments/small/training_states/3.state']) == 0
    entries = [json.loads(line) for line in Path('experiments/other', history.FILE).read_text().splitlines()]
    assert {entry['iter'] for entry in entries} == {6}
