"""Nothing outlives a training that was killed: not its data loader's workers, and not its temporary folder."""
import os
import signal
import subprocess
import sys
import time

import pytest

from ..small_run import environment

#: Workers that come to their loop only when their parent is gone: at the latest moment at which that can happen.
STARTING = '''
import os, signal, sys, time
import torch
from jddb_plugin.runtime import data_position, preemption

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return index

def wait_for_the_kill(worker):
    parent = os.getppid()
    os.write(1, f'worker {os.getpid()}\\n'.encode())  # whole lines, which print does not promise
    while os.getppid() == parent:
        time.sleep(0.01)
    data_position.start_worker(worker)

def main():
    data = torch.utils.data.DataLoader(Data(), num_workers=2, worker_init_fn=wait_for_the_kill,
                                       multiprocessing_context=sys.argv[1], persistent_workers=True)
    with preemption.shield_children():
        batches = iter(data)
    next(batches)

if __name__ == '__main__':
    main()
'''


def is_running(pid):
    try:
        return open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='there is no /proc')
@pytest.mark.parametrize('context', ['fork', 'spawn'])
def test_workers_end_when_their_training_is_killed_while_they_start(tmp_path, context):
    script = tmp_path / 'starting.py'
    script.write_text(STARTING)
    run = subprocess.Popen([sys.executable, str(script), context], env=environment(), stdout=subprocess.PIPE, text=True)
    workers = [int(run.stdout.readline().split()[1]) for _ in range(2)]
    run.kill()
    run.wait()
    try:
        end = time.monotonic() + 30
        while any(map(is_running, workers)) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(map(is_running, workers))
    finally:
        for pid in filter(is_running, workers):
            os.kill(pid, signal.SIGKILL)
