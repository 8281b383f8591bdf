"""Imports of basicsr 1.4.2 and torchvision that few runs need, put off until they are used: most of the time of a start."""
from __future__ import annotations

import builtins
import importlib
import importlib.util
from typing import Any, Optional


class _Deferred:
    """Stands for a module, or for something of a module, and imports it when it is used."""

    def __init__(self, module: str, name: Optional[str] = None) -> None:
        self._module, self._name = module, name

    def _load(self) -> Any:
        if self._module.startswith('distutils') and importlib.util.find_spec('distutils') is None:
            importlib.import_module('setuptools')  # provides its own where Python, from 3.12 on, has none
        module = importlib.import_module(self._module)
        return module if self._name is None else getattr(module, self._name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._load()(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):  # asked by copy, inspect and the like
            raise AttributeError(name)
        return getattr(self._load(), name)


class _Names:
    """What an import statement takes names from."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> _Deferred:
        return _Deferred(f'scipy.{name}') if self._module == 'scipy' else _Deferred(self._module, name)


_import = builtins.__import__
#: Packages that basicsr's modules import, and one module that one of torchvision's does.
_LATE = ('scipy', 'distutils')
_LATE_OF_TORCHVISION = ('torchvision.ops.roi_align', 'torch._dynamo.utils')


def _import_later(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    importer = (globals or {}).get('__name__', '')
    of_basicsr = importer.startswith('basicsr.') and name.partition('.')[0] in _LATE
    if level == 0 and fromlist and (of_basicsr or (importer, name) == _LATE_OF_TORCHVISION):
        # scipy deprecates ndimage.filters, which metrics/niqe.py:5 imports.
        return _Names(name.replace('scipy.ndimage.filters', 'scipy.ndimage'))
    return _import(name, globals, locals, fromlist, level)


def defer_imports() -> None:
    """Let basicsr's modules, and one of torchvision's, have names that are imported when they are called.

    metrics/fid.py:4, metrics/niqe.py:5 and data/degradations.py:6 import scipy.stats and more for NIQE, FID and the degradations
    of Real-ESRGAN; archs/arch_util.py:6 imports distutils, which is all of setuptools today, for one comparison.
    torchvision's ops/roi_align.py imports torch's compiler to ask it one thing: 1.2 of the 3 s in which a command
    starts, and 150 MB. Until :func:`import_at_once`.
    """
    builtins.__import__ = _import_later


def import_at_once() -> None:
    """End what :func:`defer_imports` began."""
    if builtins.__import__ is _import_later:
        builtins.__import__ = _import
