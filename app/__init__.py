"""The command line of sds3d, installed as the package sds3d_app; it does nothing that the library cannot do."""
