"""Meshes as OBJ, PLY and STL, formats that define no up axis.

OBJ is +Y up with the front along +Z, as importers assume. PLY and STL are +Z up with the front along -Y, as in Blender,
where all formats stand upright and face the front view. One unit is one metre.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sds3d.atomic import write_atomic
from sds3d.export.glb import WORLD_TO_GLTF
from sds3d.export.mesh import Mesh, Texture, vertex_normals
from sds3d.export.png import png_bytes, to_uint8
from sds3d.export.provenance import comment
from sds3d.export.read_mesh import read_with_trimesh

# Ours: +z up, +x front, +y the object's left. Here: +z up, -y front, +x the object's left.
WORLD_TO_Z_UP = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
STL_HEADER = 80  # bytes


def write_obj(mesh: Mesh, path: Path, metadata: Mapping[str, Any]) -> None:
    """.obj, and beside it .mtl and _color.png for the texture; without a texture, colours follow the vertices."""
    lines = [f"# {comment(metadata)}"]
    corners = mesh.vertices @ WORLD_TO_GLTF.T
    normals = vertex_normals(mesh.vertices, mesh.faces) @ WORLD_TO_GLTF.T
    faces = mesh.faces + 1
    if mesh.texture is None:
        lines += ["o object", *_rows("v", np.concatenate([corners, mesh.colors], axis=1))]
        indices, between = np.stack([faces, faces], axis=-1), "//"
    else:
        material = _write_material(mesh, mesh.texture, path)
        uvs = mesh.texture.uvs * [1, -1] + [0, 1]  # row 0 of the image is at v = 1
        lines += [f"mtllib {material}", "o object", *_rows("v", corners), *_rows("vt", uvs), "usemtl surface"]
        indices, between = np.stack([faces, mesh.texture.faces + 1, faces], axis=-1), "/"
    lines += [*_rows("vn", normals), "s 1"]
    lines += ["f " + " ".join(between.join(map(str, corner)) for corner in face) for face in indices.tolist()]
    write_atomic(path, ("\n".join(lines) + "\n").encode())


def _write_material(mesh: Mesh, texture: Texture, path: Path) -> str:
    material, image = path.with_suffix(".mtl"), path.with_name(f"{path.stem}_color.png")
    write_atomic(image, png_bytes(texture.image))
    parameters = f"Kd 1 1 1\nKs 0 0 0\nd 1\nillum 1\nPr {mesh.roughness:g}\nPm {mesh.metallic:g}\nmap_Kd {image.name}\n"
    write_atomic(material, f"newmtl surface\n{parameters}".encode())
    return material.name


def _rows(name: str, values: Float[ndarray, "V C"]) -> list[str]:
    return [f"{name} " + " ".join(f"{number:.7g}" for number in row) for row in values.tolist()]


def read_obj(path: Path) -> Mesh:
    """As written here, in world axes, through trimesh."""
    return read_with_trimesh(path, WORLD_TO_GLTF)


def write_mesh_ply(mesh: Mesh, path: Path, metadata: Mapping[str, Any]) -> None:
    """Little-endian, with normals and vertex colours in sRGB; PLY has no standard place for a texture."""
    data = _in_trimesh(mesh).export(file_type="ply")
    magic, style, rest = data.split(b"\n", 2)
    write_atomic(path, b"\n".join([magic, style, f"comment {comment(metadata)}".encode("ascii"), rest]))


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


def read_mesh_ply(path: Path) -> Mesh:
    """As written here, in world axes, through trimesh."""
    return read_with_trimesh(path, WORLD_TO_Z_UP)


def read_stl(path: Path) -> Mesh:
    """As written here, in world axes, through trimesh; grey."""
    return read_with_trimesh(path, WORLD_TO_Z_UP)


def without_texture(mesh: Mesh) -> Mesh:
    """The mesh with vertex colours only."""
    return replace(mesh, texture=None)
