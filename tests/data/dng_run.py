"""What the tests of the DNG reader share."""
from jddb_plugin.data.raw_reader import read_raw


def read(path, **options):
    return read_raw(path, log_notes=False, **options)
