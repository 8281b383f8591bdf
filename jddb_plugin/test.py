"""``python -m jddb_plugin.test ...``, the same as ``jddb test ...``."""
from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Optional

from jddb_plugin.cli.main import console
from jddb_plugin.cli.main import main as jddb


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the sub-command; returns the exit status."""
    return jddb(['test', *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == '__main__':
    sys.argv.insert(1, 'test')
    console()
