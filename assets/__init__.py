"""Data that travels with sds3d, installed as the package sds3d_assets: the weights of the embedded prior."""
