"""Meshes as OBJ, PLY and STL, formats that define no up axis.

OBJ is +Y up with the front along +Z, as importers assume. PLY and STL are +Z up with the front along -Y, as in Blender,
where all formats stand upright and face the front view. One unit is one metre.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sds3d.atomic import write_atomic
from sds3d.export.glb import WORLD_TO_GLTF
from sds3d.export.info import PLY_COMMENT, comment
from sds3d.export.mesh import Mesh, corner_normals, images_of, vertex_normals
from sds3d.export.placement import WORLD_TO_Z_UP
from sds3d.export.png import to_uint8
from sds3d.types import Material

STL_HEADER = 80  # bytes
MAPS = {"color": ["map_Kd"], "normal": ["norm", "map_Bump"]}  # Blender looks for a normal map in map_Bump


def write_obj(mesh: Mesh, path: Path, metadata: Mapping[str, Any]) -> None:
    """.obj, and beside it .mtl and the texture's images; without a texture, colours follow the vertices."""
    lines = [f"# {comment(metadata)}"]
    corners = mesh.vertices @ WORLD_TO_GLTF.T
    normals, normal_of = corner_normals(mesh)
    faces, normal_of = mesh.faces + 1, normal_of + 1
    if mesh.texture is None:
        lines += ["o object", *_rows("v", np.concatenate([corners, mesh.colors], axis=1))]
        indices, between = np.stack([faces, normal_of], axis=-1), "//"
    else:
        material, looks = path.with_suffix(".mtl"), f"{obj_looks(mesh.material)}d 1\n"
        for name, image in images_of(mesh).items():
            write_atomic(path.with_name(f"{path.stem}_{name}.png"), image)
            looks += "".join(f"{key} {path.stem}_{name}.png\n" for key in MAPS[name])
        write_atomic(material, f"newmtl surface\n{looks}".encode())
        uvs = mesh.texture.uvs * [1, -1] + [0, 1]  # row 0 of the image is at v = 1
        lines += [f"mtllib {material.name}", "o object", *_rows("v", corners), *_rows("vt", uvs), "usemtl surface"]
        indices, between = np.stack([faces, mesh.texture.faces + 1, normal_of], axis=-1), "/"
    lines += [*_rows("vn", normals @ WORLD_TO_GLTF.T), "s 1"]
    lines += ["f " + " ".join(between.join(map(str, corner)) for corner in face) for face in indices.tolist()]
    write_atomic(path, ("\n".join(lines) + "\n").encode())


def obj_looks(material: Material) -> str:
    """Lines of an .mtl: the factors, and for programs that know neither Pr nor Pm a highlight as wide.

    Ns = 2 / roughness^4 - 2, in [0, 1000];   Ks = 0.04, what all but metals reflect of light from ahead
    """
    roughness, metallic = material
    shine = min(2 / max(roughness, 0.01) ** 4 - 2, 1000)
    return f"Kd 1 1 1\nKs 0.04 0.04 0.04\nNs {shine:.4g}\nillum 2\nPr {roughness:g}\nPm {metallic:g}\n"


def _rows(name: str, values: Float[ndarray, "V C"]) -> list[str]:
    return [f"{name} " + " ".join(f"{number:.7g}" for number in row) for row in values.tolist()]


def write_mesh_ply(mesh: Mesh, path: Path, metadata: Mapping[str, Any]) -> None:
    """Little-endian, with normals and vertex colours in sRGB; PLY has no standard place for a texture."""
    data = _in_trimesh(mesh).export(file_type="ply")
    magic, style, rest = data.split(b"\n", 2)
    write_atomic(path, b"\n".join([magic, style, f"comment {comment(metadata, PLY_COMMENT)}".encode("ascii"), rest]))


def write_stl(mesh: Mesh, path: Path, metadata: Mapping[str, Any]) -> None:
    """Binary, without colours; of the metadata, what fits into the header of 80 bytes."""
    data = _in_trimesh(mesh).export(file_type="stl")
    header = comment(metadata).encode("ascii")[:STL_HEADER]
    write_atomic(path, header.ljust(STL_HEADER) + data[STL_HEADER:])


def _in_trimesh(mesh: Mesh) -> Any:
    import trimesh  # here: `import sds3d` stays quick

    normals = vertex_normals(mesh.vertices, mesh.faces) @ WORLD_TO_Z_UP.T
    colors = np.pad(to_uint8(mesh.colors), ((0, 0), (0, 1)), constant_values=255)
    return trimesh.Trimesh(
        mesh.vertices @ WORLD_TO_Z_UP.T, mesh.faces, vertex_normals=normals, vertex_colors=colors, process=False
    )
