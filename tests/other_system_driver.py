"""Run the command where what this project uses of Unix is hidden: modules, signals, forked processes. Arguments as of jddb.

Workers of data loaders are spawned, and import this file again, so that everything is hidden from them, too.
"""
import multiprocessing
import os
import signal
import sys

sys.modules.update(dict.fromkeys(('fcntl', 'resource')))
for module, names in ((signal, ('SIGUSR1', 'SIGUSR2', 'pthread_sigmask', 'sigwaitinfo', 'SIGHUP')),
                      (os, ('sched_getaffinity', 'mkfifo'))):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

from jddb_plugin.cli.main import main  # noqa: E402 - on the reduced system

if __name__ == '__main__':
    multiprocessing.set_start_method('spawn', force=True)
    sys.exit(main())
