"""Data that travels with sds3d, installed as the package sds3d_assets: the embedded prior's weights, and recipes."""
