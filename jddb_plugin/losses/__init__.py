"""Loss classes of equations (5) to (9), registered in the toolbox."""
from jddb_plugin.registration import load_toolbox

load_toolbox()
