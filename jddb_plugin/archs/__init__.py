"""Network architectures, registered in the toolbox."""
