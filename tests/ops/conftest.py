"""Every test of this folder runs on the CPU, and on a GPU where there is one."""
import pytest


@pytest.fixture(autouse=True)
def _on_device(on_device):
    """Tensors are made on the device that is tested, unless a test says where."""
