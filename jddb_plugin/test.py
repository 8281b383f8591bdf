"""Test: ``python -m jddb_plugin.test -opt options/test/demo.yml`` runs the toolbox's test_pipeline."""
from __future__ import annotations

import sys
from typing import Optional, Sequence

from basicsr.test import test_pipeline

from jddb_plugin.entry import run


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Test by an option file; returns the exit status."""
    return run(test_pipeline, is_train=False, arguments=arguments)


if __name__ == '__main__':
    sys.exit(main())
