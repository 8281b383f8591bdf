"""Test by an option file: jddb test -opt FILE, by the toolbox's test_pipeline."""
from __future__ import annotations

import argparse

from jddb_plugin.cli import pipeline
from jddb_plugin.cli.pipeline import add_arguments

__all__ = ['add_arguments', 'run']


def run(args: argparse.Namespace) -> int:
    """Test; returns the exit status, see :func:`jddb_plugin.cli.pipeline.run`."""
    return pipeline.run(args, is_train=False)
