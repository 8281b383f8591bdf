"""Loss classes of equations (5) to (9), registered in the toolbox."""
