import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """As in the other processes, so that sums are added up in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
