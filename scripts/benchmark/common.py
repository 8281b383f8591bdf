"""What the benchmarks share: timing, peak memory, the machine's description, tables and JSON."""
from __future__ import annotations

import ctypes
import gc
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

import torch
import torchvision

import jddb_plugin


def machine(device: torch.device) -> dict[str, Any]:
    """Versions and the processor that a figure belongs to."""
    cpu = platform.processor() or platform.machine()
    info = Path('/proc/cpuinfo')
    if info.exists():
        names = [line.partition(':')[2].strip() for line in info.read_text().splitlines() if line.startswith('model name')]
        cpu = names[0] if names else cpu
    result = {'jddb_plugin': jddb_plugin.__version__, 'python': platform.python_version(), 'torch': torch.__version__,
              'torchvision': torchvision.__version__, 'processor': cpu, 'threads': torch.get_num_threads()}
    if device.type == 'cuda':
        result['gpu'] = torch.cuda.get_device_name(device)
    return result


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], Any], device: torch.device, *, repeats: int, warmup: int = 1) -> list[float]:
    """Sorted wall-clock seconds of ``repeats`` calls after ``warmup`` others."""
    times = []
    for k in range(warmup + repeats):
        synchronise(device)
        start = time.perf_counter()
        function()
        synchronise(device)
        if k >= warmup:
            times.append(time.perf_counter() - start)
    return sorted(times)


def _status(key: str) -> int:
    """A line of /proc/self/status in bytes."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(key + ':'):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def peak_bytes(function: Callable[[], Any], device: torch.device) -> Optional[int]:
    """Most memory that a call holds beyond what was held before it, its result included; None where it can't be told.

    On a CPU this is the process's resident memory, so that what other libraries allocate counts too.
    """
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not sys.platform.startswith('linux'):
        return None
    ctypes.CDLL(None).malloc_trim(0)  # what is free already must not hide what the call takes
    Path('/proc/self/clear_refs').write_text('5')  # resets the peak
    before = _status('VmRSS')
    function()
    return _status('VmHWM') - before


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, aligned so that it reads well in a terminal too."""
    cells = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(headings))]
    lines = ['| ' + ' | '.join(cell.ljust(width) for cell, width in zip(row, widths)) + ' |' for row in cells]
    lines.insert(1, '|' + '|'.join('-' * (width + 2) for width in widths) + '|')
    return '\n'.join(lines) + '\n'


def megabytes(value: Optional[int]) -> str:
    """Text of a number of bytes, in MB."""
    return 'unknown' if value is None else f'{value / 1e6:.0f} MB'


def write_json(path: Optional[Path], content: Any) -> None:
    """Write a report where the user asked for one."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + '\n')
