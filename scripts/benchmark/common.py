"""What the benchmarks share: timing, peak memory, the machine's description, tables and JSON."""
from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import torch

from jddb_plugin.inference.memory import peak_bytes
from jddb_plugin.runtime.machine import machine
from jddb_plugin.tables.report import markdown as table

__all__ = ['machine', 'megabytes', 'peak_bytes', 'seconds', 'synchronize', 'table', 'write_json']


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], Any], device: torch.device, *, repeats: int, warmup: int = 1) -> list[float]:
    """Sorted wall-clock seconds of ``repeats`` calls after ``warmup`` others."""
    times = []
    for k in range(warmup + repeats):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
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
