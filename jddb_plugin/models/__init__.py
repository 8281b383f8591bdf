"""Models (training and validation loops), registered in the toolbox."""
