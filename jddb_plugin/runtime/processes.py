"""Processes of a distributed run: how they find each other, and what they decide together.

Two launchers are supported. ``torchrun`` sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT for every process.
Slurm's ``srun`` sets SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, the nodes and the job; the rest is derived from these (see
:mod:`jddb_plugin.runtime.rendezvous`).
"""
from __future__ import annotations

import datetime
import os
import socket
import subprocess
from dataclasses import dataclass
from typing import Any, Mapping, Optional

import torch
import torch.distributed as dist

from jddb_plugin.checks import JDDBError, OptionError
from jddb_plugin.options import Options
from jddb_plugin.runtime import preemption
from jddb_plugin.runtime.rendezvous import meet

#: Where ports of Slurm jobs lie: above those of services, below those that systems hand out by themselves.
_FIRST_PORT, _PORTS = 10000, 20000
#: How many are tried if one is taken, and how far apart.
_TRIES, _STRIDE = 4, 4999


@dataclass(frozen=True)
class DistOptions(Options):
    """Section ``dist_params`` of an option file.

    Attributes:
        backend: 'nccl' or 'gloo'; without a GPU it is gloo in any case. Default: nccl with GPUs.
        port: where rank 0 listens, under Slurm. Default: $MASTER_PORT, or a free one of some derived from the job's number.
        timeout_minutes: how long a process waits for the others, e.g. while rank 0 validates alone.
        start_minutes: how long it waits for them at the start, under Slurm.
    """

    backend: Optional[str] = None
    port: Optional[int] = None
    timeout_minutes: float = 60
    start_minutes: float = 15

    def check(self) -> None:
        """Raise OptionError for a value that cannot be used."""
        if self.backend not in (None, 'nccl', 'gloo'):
            raise OptionError(f"expected nccl or gloo, got '{self.backend}'.", field='backend')
        if self.port is not None and not 1 <= self.port <= 65535:
            raise OptionError(f'expected 1 .. 65535, got {self.port}.', field='port')
        for name in ('timeout_minutes', 'start_minutes'):
            if getattr(self, name) <= 0:
                raise OptionError(f'must be positive, got {getattr(self, name)}.', field=name)


_options = DistOptions()
#: Group for decisions: on the CPU, so that asking does not wait for a GPU.
_control: Optional[Any] = None


def configure(section: Optional[Mapping[str, Any]]) -> None:
    """Take ``dist_params`` of the option file, before the toolbox starts the processes' group.

    Raises:
        OptionError: an unknown key, or a value that cannot be used.
    """
    global _options
    _options = DistOptions.read(section or {}, 'dist_params')


#: Variables by which a launcher passes rank, number of processes and rank on the node.
_ENVIRONMENT = {'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'), 'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID')}


def rank_info(launcher: str) -> tuple[int, int, int]:
    """Rank, number of processes, and rank on the node, as the launcher passed them to this process.

    Raises:
        OptionError: a variable is missing.
    """
    if launcher == 'none':
        return 0, 1, 0
    for name in _ENVIRONMENT[launcher]:
        if not os.environ.get(name, '').isdigit():
            start = 'torchrun ... -m jddb_plugin.train' if launcher == 'pytorch' else 'srun'
            raise OptionError(f'--launcher {launcher}: the environment has no {name}; start with {start}, or without a launcher.')
    rank, size, local_rank = (int(os.environ[name]) for name in _ENVIRONMENT[launcher])
    return rank, size, local_rank


def is_restart(launcher: str) -> bool:
    """Whether torchrun has started this process again after one has failed (--max-restarts)."""
    return launcher == 'pytorch' and os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') not in ('', '0')


def slurm_ports(environment: Mapping[str, str]) -> list[int]:
    """Ports to try for a job step: two jobs on one node try the same one first only if their numbers are 1250 apart."""
    job, step = environment.get('SLURM_JOB_ID', ''), environment.get('SLURM_STEP_ID', '')
    if not job.isdigit():
        raise OptionError('--launcher slurm: the environment has no SLURM_JOB_ID; start with srun inside a job, or set '
                          'dist_params.port.')
    first = int(job) * 16 + (int(step) % 16 if step.isdigit() else 0)
    return [_FIRST_PORT + (first + index * _STRIDE) % _PORTS for index in range(_TRIES)]


def first_host(nodes: str) -> str:
    """The first of Slurm's ``nodes``, e.g. gpu001 of gpu[001-004,007]."""
    if '[' not in nodes and ',' not in nodes:
        return nodes
    try:
        result = subprocess.run(['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, 'stderr', None) or str(error)
        raise OptionError(f"--launcher slurm: 'scontrol show hostnames {nodes}' failed ({reason.strip()}); set MASTER_ADDR to "
                          "the first node's name.") from error
    return result.stdout.split()[0]


def slurm_address(environment: Mapping[str, str]) -> str:
    """Where rank 0 listens: this machine, if the step has one node, or else the first node, whose name must be known here.

    Raises:
        OptionError: there is no list of nodes, or the name is unknown.
    """
    count = next((environment[name] for name in ('SLURM_STEP_NUM_NODES', 'SLURM_NNODES') if environment.get(name)), None)
    if count == '1':
        return '127.0.0.1'
    nodes = [environment[name] for name in ('SLURM_STEP_NODELIST', 'SLURM_JOB_NODELIST', 'SLURM_NODELIST')
             if environment.get(name)]
    if not nodes:
        raise OptionError('--launcher slurm: the environment has no SLURM_JOB_NODELIST; start with srun.')
    host = first_host(nodes[0])
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise OptionError(f"--launcher slurm: the first node's name '{host}' is unknown on {socket.gethostname()} "
                          f"({error.strerror or error}); set MASTER_ADDR to an address of that node.") from error
    return host


def start_pytorch(backend: str = 'nccl', **_: Any) -> None:
    """Join the group of processes that torchrun started."""
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        preemption.watch_launcher()
    _start(backend, rank_info('pytorch')[2])


def start_slurm(backend: str = 'nccl', port: Optional[int] = None, **_: Any) -> None:
    """Join the group of processes that srun started."""
    environment = os.environ
    rank, size, local_rank = rank_info('slurm')
    given = _options.port or port or environment.get('MASTER_PORT')
    if given is not None and not str(given).isdigit():
        raise OptionError(f"MASTER_PORT: expected the number of a port, got '{given}'.")
    ports = slurm_ports(environment) if given is None else [int(given)]
    address = environment.get('MASTER_ADDR') or slurm_address(environment)
    # A job that was put back into the queue starts its steps and their numbers again.
    step = 'jddb_plugin/' + '.'.join(environment.get(name, '') for name in (
        'SLURM_JOB_ID', 'SLURM_STEP_ID', 'SLURM_RESTART_COUNT'))
    store = meet(address, ports, step, rank, size, 60 * _options.start_minutes)
    environment.update(zip(_ENVIRONMENT['pytorch'], map(str, (rank, size, local_rank))))
    environment.update(MASTER_ADDR=address, MASTER_PORT=str(store.port))  # for messages
    _start(backend, local_rank, store=store, rank=rank, world_size=size)


def _start(backend: str, local_rank: int, **meeting: Any) -> None:
    global _control
    devices = torch.cuda.device_count()
    backend = (_options.backend or backend) if devices else 'gloo'
    if devices:
        # A task that was bound to one GPU sees that one only, whatever its number on the node is.
        if 1 < devices <= local_rank:
            raise OptionError(f'process {local_rank} of this node has no GPU of its own: {devices} are visible; start one '
                              'process per GPU.')
        torch.cuda.set_device(local_rank % devices)
    timeout = datetime.timedelta(minutes=_options.timeout_minutes)
    try:
        dist.init_process_group(backend=backend, timeout=timeout, **meeting)
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise JDDBError(f'the processes could not meet at {address} by {backend} ({str(error).splitlines()[0]}).') from error
    _control = None if backend == 'gloo' else dist.new_group(backend='gloo', timeout=timeout)


def is_distributed() -> bool:
    """Whether this process is one of a group."""
    return dist.is_available() and dist.is_initialized()


def stop() -> None:
    """Leave the group, if there is one."""
    global _control
    _control = None
    if is_distributed():
        dist.destroy_process_group()


def any_of(flag: bool) -> bool:
    """Whether ``flag`` is set in any process; every process must ask, and all get the same answer."""
    if not is_distributed():
        return flag
    value = torch.tensor([int(flag)], dtype=torch.int32)
    dist.all_reduce(value, op=dist.ReduceOp.MAX, group=_control)
    return bool(value.item())


def from_rank_0(value: Any) -> Any:
    """Rank 0's ``value`` (plain Python), in every process."""
    if not is_distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_control)
    return box[0]


def fail_together(error: Optional[JDDBError], what: str) -> None:
    """Raise in every process if one of them has met an error: none is left waiting for it.

    Also waits until every process has come here.
    """
    if any_of(error is not None):
        raise error or JDDBError(f'{what} failed in another process, which says why.')
