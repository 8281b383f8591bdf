"""Types of the whole package, as mypy reads them."""
import subprocess
import sys

import pytest
import torch

from .conftest import ROOT

#: Annotations of torch and numpy change; ours agree with those of this torch and later, on Pythons that get today's numpy.
LEAST_TORCH = (2, 14)
LEAST_PYTHON = (3, 11)


@pytest.mark.skipif(sys.version_info < LEAST_PYTHON, reason='checked against the numpy of newer Pythons')
@pytest.mark.skipif(tuple(map(int, torch.__version__.split('.')[:2])) < LEAST_TORCH, reason='checked against newer torch')
def test_mypy_finds_nothing():
    run = subprocess.run([sys.executable, '-m', 'mypy'], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
