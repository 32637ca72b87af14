"""Exports: meshes, splats, images and videos. One writer for each format; files are whole or absent."""

from sds3d.export.contact_sheet import arrange, azimuth_label, draw_comparison, render_sheet
from sds3d.export.extract import ExportConfig, extract_mesh
from sds3d.export.formats import MESH_FORMATS, check_geometry, verification_views, write_verified
from sds3d.export.glb import read_glb, write_glb, write_gltf
from sds3d.export.info import read_info
from sds3d.export.mesh import Mesh
from sds3d.export.png import to_uint8, write_png
from sds3d.export.splat_files import write_splat, write_splats_ply
from sds3d.export.video import write_orbit, write_turntable
from sds3d.export.views import SceneViews

__all__ = [
    "MESH_FORMATS",
    "ExportConfig",
    "Mesh",
    "SceneViews",
    "arrange",
    "azimuth_label",
    "check_geometry",
    "draw_comparison",
    "extract_mesh",
    "read_glb",
    "read_info",
    "render_sheet",
    "to_uint8",
    "verification_views",
    "write_glb",
    "write_gltf",
    "write_orbit",
    "write_png",
    "write_splat",
    "write_splats_ply",
    "write_turntable",
    "write_verified",
]
