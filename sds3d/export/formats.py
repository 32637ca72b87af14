"""The mesh formats: the writer and the reader of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sds3d.atomic import atomic_folder
from sds3d.export.glb import WORLD_TO_GLTF, read_glb, write_glb, write_gltf
from sds3d.export.mesh import Mesh
from sds3d.export.obj_ply_stl import WORLD_TO_Z_UP, write_mesh_ply, write_obj, write_stl
from sds3d.export.read_mesh import read_with_trimesh
from sds3d.export.usd import read_usdz, write_usdz
from sds3d.export.verify_mesh import MeshFigures, verify_mesh
from sds3d.export.views import SceneViews
from sds3d.metrics.mesh import MeshStats


@dataclass(frozen=True)
class MeshFormat:
    """One way to store a mesh."""

    write: Callable[[Mesh, Path, Mapping[str, Any]], None]
    read: Callable[[Path], Mesh]  # in world axes and sRGB
    textured: bool = True
    colored: bool = True


read_z_up = partial(read_with_trimesh, world_to_file=WORLD_TO_Z_UP)
MESH_FORMATS = {
    "glb": MeshFormat(write_glb, read_glb),
    "gltf": MeshFormat(write_gltf, read_glb),
    "obj": MeshFormat(write_obj, partial(read_with_trimesh, world_to_file=WORLD_TO_GLTF)),
    "ply": MeshFormat(write_mesh_ply, read_z_up, textured=False),
    "stl": MeshFormat(write_stl, read_z_up, textured=False, colored=False),
    "usdz": MeshFormat(write_usdz, read_usdz),
}


def write_verified(
    mesh: Mesh, file_format: str, path: Path, metadata: Mapping[str, Any], truth: SceneViews
) -> tuple[MeshStats, MeshFigures]:
    """Write a mesh, read the file back and compare it with `truth`; only then does it get to `path`.

    ExportError as `check_geometry`. After any error, `path` is what it was before.
    """
    chosen = MESH_FORMATS[file_format]
    with atomic_folder(path) as draft:
        chosen.write(mesh if chosen.textured else replace(mesh, texture=None), draft, metadata)
        return verify_mesh(chosen.read(draft), truth, chosen.colored)
