"""The paper's tables: its systems trained and tested under one protocol, and printed beside the paper's own figures."""
from jddb_plugin.registration import load_toolbox

load_toolbox()
