"""Where the processes of a Slurm step meet: a store that rank 0 opens, and the others find.

No launcher announces a free port, so both sides try the same few. At the first free one, rank 0 answers every connection with the
name of the step and the port of its store. Anything else that listens there (another program, rank 0 of another step) answers
something else. torch's own client cannot be used to find out: it waits forever for an answer from a server that is not a store.
"""
from __future__ import annotations

import contextlib
import datetime
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Optional, Sequence

import torch.distributed as dist

from jddb_plugin.checks import JDDBError
from jddb_plugin.runtime import preemption

#: Seconds that whoever listens at a port has to answer.
_ANSWER = 5.0
_PAUSE = 0.2


def meet(address: str, ports: Sequence[int], step: str, rank: int, size: int, seconds: float) -> dist.TCPStore:
    """The store that all processes of a step share.

    Args:
        address: of the node of rank 0.
        ports: to try, in this order; rank 0 takes the first that is free.
        step: name of the step, which no other one has.
        rank, size: of this process, and number of processes.
        seconds: how long to wait for the others.

    Raises:
        JDDBError: no port is free, rank 0 is not found, or a process does not arrive; in all processes that did.
        Preempted: a process has received a signal meanwhile.
    """
    deadline = time.monotonic() + seconds
    if rank == 0:
        store = dist.TCPStore(address, 0, is_master=True, wait_for_workers=False)
        with _listening(address, ports) as server:
            threading.Thread(target=_answer, args=(server, step, store.port), daemon=True).start()
            store.set('0', 'here')
            missing = _missing(store, size, deadline)
        store.set('missing', missing)
    else:
        store = dist.TCPStore(address, _find(address, ports, step, deadline, seconds), is_master=False, wait_for_workers=False,
                              timeout=datetime.timedelta(seconds=_ANSWER))
        try:
            store.set(str(rank), 'here')
            while not store.check(['missing']):
                _stop_together(store)
            missing = store.get('missing').decode()
        except RuntimeError as error:
            raise JDDBError(f'process 0 ended at {address} before all processes had arrived; see its own message.') from error
    if missing:
        raise JDDBError(f'of {size} processes these did not arrive at {address} within {seconds / 60:g} minutes: {missing}; see '
                        'their own messages. dist_params.start_minutes sets how long the others wait.')
    return store


def _stop_together(store: dist.TCPStore) -> None:
    """Wait a moment. A signal to one process ends the waiting of all: one of them may have died of it."""
    signal = preemption.received()
    if signal is not None:
        store.set('stop', signal)
    if store.check(['stop']):
        raise _stopped(store.get('stop').decode())
    time.sleep(_PAUSE)


def _stopped(signal: str) -> preemption.Preempted:
    return preemption.Preempted(f'{signal}: stopped before the processes had met; there is nothing to save.')


@contextlib.contextmanager
def _listening(address: str, ports: Sequence[int]) -> Iterator[socket.socket]:
    """Rank 0: a server at the first port that is free."""
    reason: Optional[OSError] = None
    for port in ports:
        try:
            server = _serve(port)
        except OSError as error:
            reason = error
            continue
        server.settimeout(_PAUSE)  # a close does not wake who waits for a connection
        with server:
            yield server
        return
    raise JDDBError(f'process 0 cannot listen at {address}, port {", ".join(map(str, ports))} ({reason}); set '
                    'dist_params.port to a port that is free there.')


def _serve(port: int) -> socket.socket:
    """A server on all interfaces, by IPv6 as well where there is one: a node's name may have either address."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(('', port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(('', port))


def _answer(server: socket.socket, step: str, port: int) -> None:
    """Rank 0: answer with the name of the step and the port of its store, until the server is closed."""
    content = json.dumps({'step': step, 'port': port}).encode()
    while server.fileno() >= 0:
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            with connection:
                connection.sendall(content)


def _ask(address: str, port: int, step: str) -> Optional[int]:
    """The store's port, if rank 0 of this step listens at ``port``."""
    try:
        with socket.create_connection((address, port), timeout=_ANSWER) as connection, connection.makefile('rb') as answer:
            content = json.loads(answer.read(1000))
    except (OSError, ValueError):  # nobody, or somebody else
        return None
    return content['port'] if isinstance(content, dict) and content.get('step') == step else None


def _find(address: str, ports: Sequence[int], step: str, deadline: float, seconds: float) -> int:
    while True:
        for port in ports:
            found = _ask(address, port, step)
            if found is not None:
                return found
        if time.monotonic() > deadline:
            raise JDDBError(f'process 0 was not found at {address}, port {", ".join(map(str, ports))}, within {seconds / 60:g} '
                            'minutes; see its own message, or set MASTER_ADDR to an address that all nodes can reach.')
        signal = preemption.received()
        if signal is not None:
            raise _stopped(signal)
        time.sleep(_PAUSE)


def _missing(store: dist.TCPStore, size: int, deadline: float) -> str:
    """Ranks that have not arrived at the deadline, as text; empty as soon as all have."""
    while True:
        missing = [str(rank) for rank in range(size) if not store.check([str(rank)])]
        if not missing or time.monotonic() > deadline:
            return ', '.join(missing[:16]) + (' ...' if len(missing) > 16 else '')
        _stop_together(store)
