"""The systems of the paper's tables: train, test and print them; see --help and docs/tables.md."""
import sys

from jddb_plugin.tables.command import main

if __name__ == '__main__':
    sys.exit(main())
