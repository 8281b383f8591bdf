"""What the benchmarks share: timing, peak memory, the machine's description, tables and JSON."""
from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import torch
import torchvision

import jddb_plugin
from jddb_plugin.inference.memory import peak_bytes
from jddb_plugin.tables.report import markdown as table

__all__ = ['machine', 'megabytes', 'peak_bytes', 'seconds', 'synchronise', 'table', 'write_json']


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


def megabytes(value: Optional[int]) -> str:
    """Text of a number of bytes, in MB."""
    return 'unknown' if value is None else f'{value / 1e6:.0f} MB'


def write_json(path: Optional[Path], content: Any) -> None:
    """Write a report where the user asked for one."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + '\n')
