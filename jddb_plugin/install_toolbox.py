"""Install the toolbox, basicsr 1.4.2, on any Python: ``python -m jddb_plugin.install_toolbox``.

basicsr comes as a source distribution whose setup.py reads a variable that ``exec`` defined from ``locals()``. Python 3.13
gives every call of ``locals()`` in a function a dictionary of its own (PEP 667), so that the build ends by KeyError. Here pip
builds the unchanged, hash-checked distribution while a ``sitecustomize`` module lets ``exec`` define variables of the calling
function again, as it did up to Python 3.12. There is no build isolation: setup.py would have a second torch downloaded for it.

This file needs the standard library and pip alone, and can be run before the package is installed. What is given on the
command line is passed on to pip, e.g. ``--index-url``. With BASICSR_EXT=True in the environment the toolbox compiles its CUDA
extensions.
"""
from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

VERSION = '1.4.2'
#: Of basicsr-1.4.2.tar.gz.
SHA256 = 'b89b595a87ef964cda9913b4d99380ddb6554c965577c0c10cb7b78e31301e87'

_SITECUSTOMIZE = '''\
import builtins
import sys

_exec = builtins.exec


def _exec_in_caller(source, *scopes, **closure):
    if scopes:
        return _exec(source, *scopes, **closure)
    caller = sys._getframe(1)
    return _exec(source, caller.f_globals, caller.f_locals, **closure)


if sys.version_info >= (3, 13):
    builtins.exec = _exec_in_caller
'''


def is_installed() -> bool:
    """Whether this version of basicsr is in the environment."""
    try:
        return importlib.metadata.version('basicsr') == VERSION
    except importlib.metadata.PackageNotFoundError:
        return False


def _pip(arguments: Sequence[str], **variables: str) -> None:
    subprocess.run([sys.executable, '-m', 'pip', 'install', *arguments], env={**os.environ, **variables}, check=True)


def install(arguments: Sequence[str] = ()) -> None:
    """Build and install basicsr, then what it requires, into the environment of this Python.

    Args:
        arguments: for pip.

    Raises:
        subprocess.CalledProcessError: pip failed, and has said why.
    """
    _pip(['setuptools', 'wheel', *arguments])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / 'sitecustomize.py').write_text(_SITECUSTOMIZE, encoding='utf-8')
        requirement = Path(folder) / 'requirement.txt'
        requirement.write_text(f'basicsr=={VERSION} --hash=sha256:{SHA256}\n', encoding='utf-8')
        # --no-deps: pip wants a hash of everything, or of nothing.
        _pip(['--no-deps', '--no-build-isolation', '--require-hashes', '--requirement', str(requirement), *arguments],
             PYTHONPATH=folder)
    importlib.invalidate_caches()
    required = [text for text in importlib.metadata.requires('basicsr') or () if 'extra ==' not in text]
    _pip([*required, *arguments])


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Install unless it is done; returns the exit status."""
    if is_installed():
        sys.stdout.write(f'basicsr {VERSION} is installed\n')
        return 0
    try:
        install(sys.argv[1:] if arguments is None else arguments)
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f'error: basicsr {VERSION} could not be installed; see the messages of pip above\n')
        return error.returncode or 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
