"""The command ``jddb``: one module per sub-command, and :mod:`jddb_plugin.cli.main`, which finds them.

Modules of sub-commands import torch and the toolbox where they run, not at their top, so that ``--help`` answers at once.
"""
