"""Bursts on disk and as data sets."""
from jddb_plugin.registration import load_toolbox

load_toolbox()
