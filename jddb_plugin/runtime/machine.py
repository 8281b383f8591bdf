"""What a measured figure belongs to: the device and the versions."""
from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch
import torchvision

import jddb_plugin


def machine(device: torch.device) -> dict[str, str]:
    """Device, its name (of the GPU, or of the processor), threads and versions."""
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else _processor()
    return {'device': str(device), 'name': name, 'threads': str(torch.get_num_threads()), 'python': platform.python_version(),
            'torch': torch.__version__, 'torchvision': torchvision.__version__, 'jddb_plugin': jddb_plugin.__version__}


def computes_in_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16; False where PyTorch cannot tell."""
    capabilities: dict[str, Any] = getattr(torch.cpu, 'get_capabilities', dict)()
    return bool(capabilities.get('avx512_bf16') or capabilities.get('amx_bf16'))


def _processor() -> str:
    info = Path('/proc/cpuinfo')
    if info.exists():
        for line in info.read_text(errors='replace').splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()
