"""One module for each command of sds3d."""
