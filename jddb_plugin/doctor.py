"""``python -m jddb_plugin.doctor ...``, the same as ``jddb doctor ...``."""
from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Optional

from jddb_plugin.cli.main import console
from jddb_plugin.cli.main import main as jddb


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the sub-command; returns the exit status."""
    return jddb(['doctor', *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == '__main__':
    sys.argv.insert(1, 'doctor')
    console()
