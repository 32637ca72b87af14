"""The command line of sds3d, installed as the package sds3d_app. Everything it can do, the library can do without it."""
