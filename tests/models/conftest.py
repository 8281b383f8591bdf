"""Fixtures."""
import pytest

from .pipeline_run import forget_logger


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """Every run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    forget_logger()
    yield
    forget_logger()
