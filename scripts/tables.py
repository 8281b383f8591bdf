"""The systems of the paper's tables: train, test and print them; see --help and docs/tables.md."""
import sys

from jddb_plugin.checks import one_line_errors


@one_line_errors
def main() -> int:
    """Run a command; returns the exit status."""
    from jddb_plugin.tables.command import main as run  # here, so that what is missing in the environment is told in one line
    return run()


if __name__ == '__main__':
    sys.exit(main())
