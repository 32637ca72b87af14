"""Files to take away: meshes, splats, pictures and videos. One writer per format; all writes are whole or absent."""

from sds3d.export.check import check_mesh
from sds3d.export.extract import ExportConfig, extract_mesh
from sds3d.export.glb import read_glb, write_glb
from sds3d.export.mesh import Mesh
from sds3d.export.ply import read_splats_ply, write_splats_ply
from sds3d.export.png import write_png
from sds3d.export.sheet import arrange, azimuth_label, render_sheet, to_uint8
from sds3d.export.video import write_orbit

__all__ = [
    "ExportConfig",
    "Mesh",
    "arrange",
    "azimuth_label",
    "check_mesh",
    "extract_mesh",
    "read_glb",
    "read_splats_ply",
    "render_sheet",
    "to_uint8",
    "write_glb",
    "write_orbit",
    "write_png",
    "write_splats_ply",
]
