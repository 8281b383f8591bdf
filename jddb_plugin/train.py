"""Train: ``python -m jddb_plugin.train -opt options/train/demo.yml`` runs the toolbox's train_pipeline."""
from __future__ import annotations

import sys
from typing import Optional, Sequence

from basicsr.train import train_pipeline

from jddb_plugin.entry import run
from jddb_plugin.runtime import preemption


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Train by an option file; returns the exit status."""
    return run(train_pipeline, is_train=True, arguments=arguments)


if __name__ == '__main__':
    status = main()
    preemption.ignore()
    sys.exit(status)
