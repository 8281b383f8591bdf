"""Train in child processes that are killed again and again; `python kill_driver.py FOLDER OPTION_FILE KILLS SEED`.

The plugin is imported once, before anything is computed, and every attempt is a fork: an attempt starts at once.
The last attempt is left alone, and trains five iterations further. Prints one JSON object: how many attempts were killed,
at which saved iterations, where the run ended, and the last exit status.
"""
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from jddb_plugin.runtime import checkpoints
from jddb_plugin.train import main

torch.set_num_threads(1)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def half_written(call):
    """Die in the middle of the ``call``-th file."""
    save, count = torch.save, [0]

    def torn(content, file):
        count[0] += 1
        save(content, file)
        if count[0] == call:
            file.flush()
            file.truncate(file.tell() // 2)
            die()

    checkpoints.torch.save = torn


def before_rename(call):
    """Die when the ``call``-th file is complete and not yet in its place."""
    replace, count = os.replace, [0]

    def counted(source, target):
        count[0] += 1
        if count[0] == call:
            die()
        replace(source, target)

    checkpoints.os.replace = counted


def saved():
    return max((int(p.stem) for p in Path('experiments').glob('*/training_states/*.state')), default=0)


def attempt(options, workers, trap=None, total=1000):
    """Start a training that goes on from where the last one came to."""
    pid = os.fork()
    if pid:
        return pid
    log = os.open('log.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if trap:
        trap()
    status = 99
    try:
        status = main(['-opt', options, '--auto_resume', '--set', f'datasets.train.num_worker_per_gpu={workers}',
                       f'train.total_iter={total}'])
    finally:
        os._exit(status)


def run(folder, options, kills, seed):
    os.chdir(folder)
    rng = random.Random(seed)
    found, count, killed = [], 0, 0
    # Every file of the first save, and of the next one: the network's and the state's.
    traps = [lambda c=c, t=t: t(c) for t in (half_written, before_rename) for c in (1, 2, 4)]
    for trap in traps:
        _, status = os.waitpid(attempt(options, 0, trap), 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            count += 1
    for _ in range(kills):
        pid = attempt(options, rng.choice((0, 0, 1)))
        time.sleep(rng.uniform(0.1, 1.6))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        killed += os.WIFSIGNALED(status)
        found.append(saved())
    total = saved() + 5
    _, status = os.waitpid(attempt(options, 0, total=total), 0)
    sys.stdout.write(json.dumps({'killed': killed, 'killed_writing': count, 'at': found, 'total': total,
                                 'status': os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1}) + '\n')


if __name__ == '__main__':
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
