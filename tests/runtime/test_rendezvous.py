"""Processes of a Slurm step meet, whoever else listens there, and do not wait long for one that has crashed."""
import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jddb_plugin.checks import JDDBError, OptionError
from jddb_plugin.runtime import preemption, processes, rendezvous
from jddb_plugin.runtime.rendezvous import meet


def _free_ports(count):
    probes = [socket.create_server(('127.0.0.1', 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture
def mute():
    """A port that somebody else listens at, who never says anything."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(rendezvous, '_ANSWER', 1.0)


def _together(*calls):
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.exception() or future.result() for future in [pool.submit(meet, *call) for call in calls]]


def test_processes_meet_at_the_first_free_port(mute):
    free, = _free_ports(1)
    stores = _together(*(('127.0.0.1', [mute, free], 'job', rank, 3, 60) for rank in (2, 1, 0)))
    assert len({store.port for store in stores}) == 1
    stores[0].set('x', 'said by rank 2')
    assert stores[2].get('x') == b'said by rank 2'


def test_two_steps_with_the_same_ports_do_not_mix():
    ports = _free_ports(2)
    stores = _together(*(('127.0.0.1', ports, step, rank, 2, 60) for step in ('one', 'two') for rank in (0, 1)))
    for index, step in enumerate(('one', 'two')):
        stores[2 * index].set('whose', step)
    assert [store.get('whose') for store in stores] == [b'one', b'one', b'two', b'two']
    assert len({store.port for store in stores}) == 2


def test_a_taken_port_that_was_asked_for_is_named(mute):
    with pytest.raises(JDDBError, match=f'cannot listen at 127.0.0.1, port {mute} .*set dist_params.port'):
        meet('127.0.0.1', [mute], 'job', 0, 2, 60)


def test_nobody_waits_long_for_a_process_that_has_crashed(mute):
    begin = time.monotonic()
    free, = _free_ports(1)
    errors = _together(('127.0.0.1', [free], 'job', 0, 4, 2), ('127.0.0.1', [free], 'job', 2, 4, 2))
    for error in errors:
        assert re.fullmatch(r'of 4 processes these did not arrive at 127.0.0.1 within 0.033\d* minutes: 1, 3; .*', str(error))
    with pytest.raises(JDDBError, match=f'process 0 was not found at 127.0.0.1, port {mute}, {free}, within'):
        meet('127.0.0.1', [mute, free], 'job', 1, 2, 2)
    assert time.monotonic() - begin < 60  # and not the hour of dist_params.timeout_minutes


@pytest.mark.parametrize('size', [2, 3])
def test_a_signal_ends_the_waiting_of_all(monkeypatch, size):
    """The third process died of the signal while it was importing, or rank 0 did."""
    free, = _free_ports(1)
    monkeypatch.setattr(preemption, '_received', 'SIGUSR1')
    ranks = range(2) if size == 3 else [1]
    for error in _together(*(('127.0.0.1', [free], 'job', rank, size, 60) for rank in ranks)):
        assert isinstance(error, preemption.Preempted) and 'SIGUSR1: stopped before the processes had met' in str(error)


def test_one_node_needs_no_name():
    assert processes.slurm_address({'SLURM_STEP_NUM_NODES': '1', 'SLURM_JOB_NODELIST': 'unknown[1-2]'}) == '127.0.0.1'
    assert processes.slurm_address({'SLURM_NNODES': '1', 'SLURM_JOB_NODELIST': 'unknown1'}) == '127.0.0.1'
    assert processes.slurm_address({'SLURM_STEP_NUM_NODES': '2', 'SLURM_JOB_NODELIST': 'localhost'}) == 'localhost'


def test_a_name_that_nobody_knows_is_named_before_anybody_waits():
    with pytest.raises(OptionError, match=r"the first node's name 'gpu1.invalid' is unknown on \S+ \(.*set MASTER_ADDR"):
        processes.slurm_address({'SLURM_NNODES': '2', 'SLURM_JOB_NODELIST': 'gpu1.invalid'})


def test_a_port_is_a_number(monkeypatch):
    for name, value in {'SLURM_PROCID': '0', 'SLURM_NTASKS': '1', 'SLURM_LOCALID': '0', 'MASTER_PORT': 'x'}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match="MASTER_PORT: expected the number of a port, got 'x'"):
        processes.start_slurm()
    assert 'RANK' not in os.environ
