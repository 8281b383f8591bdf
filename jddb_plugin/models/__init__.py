"""Models (training and validation loops), registered in the toolbox."""
from jddb_plugin.registration import load_toolbox

load_toolbox()
