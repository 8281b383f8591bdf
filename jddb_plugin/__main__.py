"""``python -m jddb_plugin COMMAND ...``, the same as ``jddb COMMAND ...``."""
from jddb_plugin.cli.main import console

if __name__ == '__main__':
    console()
