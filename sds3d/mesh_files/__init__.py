"""Meshes that a person already has: read for a run, and written again with nothing changed but their colours."""

from sds3d.mesh_files.reading import MeshSource, Part, UserMesh, read_user_mesh

__all__ = ["MeshSource", "Part", "UserMesh", "read_user_mesh"]
