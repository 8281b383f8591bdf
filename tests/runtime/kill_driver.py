"""Train in child processes that die at drawn places; `python kill_driver.py FOLDER OPTION_FILE ROUNDS SEED`.

The plugin is imported once, before anything is computed, and every attempt is a fork: an attempt starts at once. It goes on
from the state that it finds, and dies at a place of the one or two iterations that follow; each round visits all places. The last
attempt is left alone. Prints one JSON object: where each attempt was to die and what it came to, and where the run ended.
"""
import json
import os
import random
import signal
import sys
from pathlib import Path

import torch

from jddb_plugin import files
from jddb_plugin.compat import training
from jddb_plugin.data.unprocessed_burst_dataset import UnprocessedBurstDataset
from jddb_plugin.models.jddb_model import JDDBModel
from jddb_plugin.runtime import checkpoints, data_position
from jddb_plugin.runtime.lifecycle import TrainingLifecycleMixin
from jddb_plugin.train import main

torch.set_num_threads(1)
#: Iteration that the training is at, and the one to die in.
now, last = [0], [0]


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner, name, due=lambda *_: True):
    """Die at the beginning of a method in the chosen iteration."""
    method = getattr(owner, name)

    def dying(self, *given, **more):
        if now[0] >= last[0] and due(*given):
            die()
        return method(self, *given, **more)

    setattr(owner, name, dying)


def after(owner, name):
    method = getattr(owner, name)

    def dying(self, *given, **more):
        result = method(self, *given, **more)
        if now[0] >= last[0]:
            die()
        return result

    setattr(owner, name, dying)


def half_written(call):
    """Die in the middle of the ``call``-th file of the save: the network's, or the state's."""
    save, count = torch.save, [0]

    def torn(content, file):
        save(content, file)
        count[0] += now[0] >= last[0]
        if count[0] == call:
            file.flush()
            file.truncate(file.tell() // 2)
            die()

    checkpoints.torch.save = torn


def before_rename(call):
    """Die when the ``call``-th file is complete and not yet in its place."""
    replace, count = os.replace, [0]

    def counted(source, target):
        count[0] += now[0] >= last[0]
        if count[0] == call:
            die()
        replace(source, target)

    files.os.replace = counted


def in_a_worker():
    """A worker kills its training between two samples."""
    draw = UnprocessedBurstDataset.__getitem__
    drawn = [0]

    def killing(self, index):
        drawn[0] += 1
        if drawn[0] == 3:
            os.kill(os.getppid(), signal.SIGKILL)
        return draw(self, index)

    UnprocessedBurstDataset.__getitem__ = killing


def while_workers_start():
    def start_worker(worker):
        os.kill(os.getppid(), signal.SIGKILL)
        data_position.start_worker(worker)

    training.start_worker = start_worker


def between_two_scores():
    before(TrainingLifecycleMixin, '_update_best_metric_result', lambda name, metric, *_: metric == 'ssim')


#: Name -> (what sets the trap, number of workers).
PLACES = {
    'before the first iteration': (lambda: before(TrainingLifecycleMixin, 'update_learning_rate'), 0),
    'while a batch is fed': (lambda: before(JDDBModel, 'feed_data'), 1),
    'before the step': (lambda: before(JDDBModel, 'optimize_parameters'), 0),
    'after the step': (lambda: after(TrainingLifecycleMixin, 'optimize_parameters'), 1),
    'before the save': (lambda: before(TrainingLifecycleMixin, 'save'), 0),
    'after the save': (lambda: after(TrainingLifecycleMixin, 'save'), 2),
    'in the first file': (lambda: half_written(1), 0),
    'in the second file': (lambda: half_written(2), 0),
    'before the first file has its name': (lambda: before_rename(1), 0),
    'before the second file has its name': (lambda: before_rename(2), 0),
    'while scores are written': (between_two_scores, 0),
    'after a validation': (lambda: after(TrainingLifecycleMixin, 'validation'), 0),
    'in a worker': (in_a_worker, 1),
    'while workers start': (while_workers_start, 2),
}


def saved():
    return max((int(p.stem) for p in Path('experiments').glob('*/training_states/*.state')), default=0)


def follow_iterations():
    start = TrainingLifecycleMixin.update_learning_rate

    def counted(self, current_iter, *given, **more):
        now[0] = current_iter
        start(self, current_iter, *given, **more)

    TrainingLifecycleMixin.update_learning_rate = counted


def attempt(options, place, steps, total):
    """Train on; in a child that dies at ``place`` of the ``steps``-th iteration from now on. Its exit status as of waitpid."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    log = os.open('log.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    last[0] = saved() + steps
    workers = 0
    if place is not None:
        trap, workers = PLACES[place]
        trap()
    follow_iterations()
    status = 99
    try:
        status = main(['-opt', options, '--auto_resume', '--set', f'datasets.train.num_worker_per_gpu={workers}',
                       f'train.total_iter={total}'])
    finally:
        os._exit(status)


def run(folder, options, rounds, seed):
    os.chdir(folder)
    rng = random.Random(seed)
    deaths = []
    for _ in range(rounds):
        for place in rng.sample(sorted(PLACES), len(PLACES)):
            status = attempt(options, place, rng.choice((1, 2)), 1000)
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            deaths.append({'place': place, 'killed': killed, 'saved': saved()})
    total = saved() + 3
    status = attempt(options, None, 0, total)
    sys.stdout.write(json.dumps({'deaths': deaths, 'total': total,
                                 'status': os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1}) + '\n')


if __name__ == '__main__':
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
