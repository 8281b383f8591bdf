"""Run pipelines in groups of processes that find each other as those of torchrun do; `python group_driver.py GROUPS [MODULE...]`.

GROUPS is JSON: a list of [number of processes, folder, 'train' or 'test', arguments]. They run one after another. The plugin is
imported once, then each MODULE, and every process is a fork, so that a group starts at once. The output of group K goes to
logK.txt in its folder. Prints the exit statuses, one JSON list for each group.
"""
import importlib
import json
import os
import socket
import sys
import traceback
from pathlib import Path

import torch

from jddb_plugin import test, train

torch.set_num_threads(1)
PIPELINES = {'train': train.main, 'test': test.main}


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as probe:
        return probe.getsockname()[1]


def start(folder, log, command, arguments, **environment):
    """Number of a forked process that runs a pipeline and ends with its status."""
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        os.chdir(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(environment)
        status = PIPELINES[command]([*arguments, '--launcher', 'pytorch'])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run(log, size, folder, command, arguments):
    Path(folder).mkdir(parents=True, exist_ok=True)
    port = str(free_port())
    started = [start(folder, log, command, arguments, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size),
                     MASTER_ADDR='127.0.0.1', MASTER_PORT=port) for rank in range(size)]
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in started]


if __name__ == '__main__':
    import basicsr  # noqa: F401  (and with it everything of ours, before the first fork)
    for module in sys.argv[2:]:
        importlib.import_module(module)
    for index, group in enumerate(json.loads(sys.argv[1])):
        sys.stdout.write(json.dumps(run(f'log{index}.txt', *group)) + '\n')
        sys.stdout.flush()
