"""The triangle mesh of the exporters."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from sds3d.export.png import png_bytes
from sds3d.ops.creases import crease_normals
from sds3d.types import Material


@dataclass(frozen=True)
class Texture:
    """An image wrapped around a mesh: the same faces over corners of their own, for seams split vertices."""

    image: UInt8[ndarray, "h w 3"]  # sRGB; row 0 at the top
    uvs: Float[ndarray, "U 2"]  # (0, 0) is the upper left corner of the image, (1, 1) the lower right
    faces: Int[ndarray, "F 3"]  # the mesh's faces among uvs
    vertices: Int[ndarray, " U"]  # which of the mesh's vertices each of uvs belongs to
    used: float = 1.0  # share of the image that is on the mesh
    normals: UInt8[ndarray, "h w 3"] | None = None  # a normal map, see normal_map.py


@dataclass(frozen=True)
class Mesh:
    """An indexed triangle mesh in world axes (+z up); faces wind counter-clockwise seen from outside."""

    vertices: Float[ndarray, "V 3"]
    faces: Int[ndarray, "F 3"]
    colors: Float[ndarray, "V 3"]  # sRGB, [0, 1]
    texture: Texture | None = None  # used instead of `colors`
    crease_deg: float | None = None  # at edges that bend by more, both sides have their own normals; None: nowhere
    material: Material = field(default_factory=Material)
    surface: str = ""  # kind of surface, see surface_search.Choice
    level: float = 0.0
    colored_by: str = ""  # see colors.Source
    lost_deg: float = 0.0  # mean angle between its normals and those before decimation, without a normal map
    dropped_share: float = 0.0  # share of the scene's volume in floaters that were left out


def vertex_normals(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> Float[ndarray, "V 3"]:
    """Unit normals, faces weighted by area; +z for a vertex without a face of any area."""
    corners = vertices.astype(np.float64)[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = np.stack(
        [np.bincount(faces.ravel(), np.repeat(normals[:, axis], 3), len(vertices)) for axis in range(3)], axis=-1
    )
    length = np.linalg.norm(sums, axis=-1, keepdims=True)
    safe = np.where(length > 0, sums / np.maximum(length, 1e-300), [0.0, 0.0, 1.0])
    return safe.astype(np.float32)


def corner_normals(mesh: Mesh) -> tuple[Float[ndarray, "N 3"], Int[ndarray, "F 3"]]:
    """Unit normals, and which of them each corner has: one for each vertex, or several where creases meet."""
    if mesh.crease_deg is None:
        return vertex_normals(mesh.vertices, mesh.faces), mesh.faces
    normals, corners = crease_normals(
        torch.from_numpy(mesh.vertices.astype(np.float64)), torch.from_numpy(mesh.faces), mesh.crease_deg
    )
    return normals.numpy().astype(np.float32), corners.numpy()


def images_of(mesh: Mesh) -> dict[str, bytes]:
    """The texture's images as PNG, by what they show: color, and normal where there is a map."""
    if mesh.texture is None:
        return {}
    images = {"color": mesh.texture.image, "normal": mesh.texture.normals}
    return {name: png_bytes(image) for name, image in images.items() if image is not None}


@dataclass(frozen=True)
class SplitMesh:
    """A mesh for formats with one index for everything: vertices are doubled at the texture's seams and at creases."""

    vertices: Int[ndarray, " S"]  # which of the mesh's each is
    uvs: Int[ndarray, " S"]  # which of the texture's; without a texture, as vertices
    normals: Float[ndarray, "S 3"]
    faces: Int[ndarray, "F 3"]


def split(mesh: Mesh) -> SplitMesh:
    """Each combination of place, UV and normal once, in the order of the UVs, or without a texture of the vertices."""
    normals, normal_of = corner_normals(mesh)
    uv_of = mesh.faces if mesh.texture is None else mesh.texture.faces
    _, first, faces = np.unique(
        uv_of.ravel() * len(normals) + normal_of.ravel(), return_index=True, return_inverse=True
    )
    vertices, uvs, kept = (indices.ravel()[first] for indices in (mesh.faces, uv_of, normal_of))
    return SplitMesh(vertices, uvs, normals[kept], faces.reshape(-1, 3))


def without_unused_vertices(
    vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]
) -> tuple[Float[ndarray, "U 3"], Int[ndarray, "F 3"]]:
    """The same triangles over the vertices that they use, in their order."""
    used = np.zeros(len(vertices), dtype=bool)
    used[faces] = True
    return vertices[used], (np.cumsum(used) - 1)[faces]
