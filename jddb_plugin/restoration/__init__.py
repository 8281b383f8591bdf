"""Restoration of bursts: from files to pictures.

    from jddb_plugin.restoration import Restorer, Settings
    restorer = Restorer('net_g.pth', Settings(noise='estimate'))
    restorer.restore('folder_of_raw_files', 'picture.png')
"""
from __future__ import annotations

import importlib
from typing import Any

_NAMES = {'Burst': 'bursts', 'Restored': 'restorer', 'Restorer': 'restorer', 'Settings': 'settings', 'burst_of_files': 'bursts',
          'find_bursts': 'bursts'}
__all__ = ['Burst', 'Restored', 'Restorer', 'Settings', 'burst_of_files', 'find_bursts']


def __getattr__(name: str) -> Any:
    """Imported when asked for: the settings need no torch."""
    if name not in _NAMES:
        raise AttributeError(f"module 'jddb_plugin.restoration' has no attribute '{name}'")
    return getattr(importlib.import_module(f'jddb_plugin.restoration.{_NAMES[name]}'), name)
