"""Reads meshes back with trimesh, which is not our writer."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from sds3d.errors import ExportError
from sds3d.export.mesh import Mesh, Texture
from sds3d.export.render_mesh import sample_texture
from sds3d.mesh_files.reading import srgb_from_linear

GREY = 0.5  # for formats without colours


def read_with_trimesh(path: Path, world_to_file: Float[ndarray, "3 3"], linear_colors: bool = False) -> Mesh:
    """The only mesh of a file, in world axes and sRGB; ExportError if it cannot be read."""
    import trimesh  # here: `import sds3d` stays quick

    try:
        loaded = trimesh.load_scene(path, process=False)
        (body,) = loaded.geometry.values()
        vertices, faces = np.asarray(body.vertices, dtype=np.float32), np.asarray(body.faces, dtype=np.int64)
        world = (vertices @ world_to_file).astype(np.float32)
        uvs, image, colors = _appearance(body.visual, len(vertices))
        if linear_colors:
            colors = srgb_from_linear(colors)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error, OSError) as error:
        raise ExportError(f"{path} cannot be read back as a mesh: {error}", hint="export again") from error
    return welded(world, faces, colors.astype(np.float32), uvs, image)


def _appearance(visual: Any, count: int) -> tuple[ndarray | None, ndarray | None, ndarray]:
    """UVs with their origin in the upper left corner, the texture, and vertex colours; trimesh's v points up."""
    grey = np.full((count, 3), GREY)
    material = getattr(visual, "material", None)
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if picture is not None:
        uvs = np.asarray(visual.uv, dtype=np.float32)
        return np.stack([uvs[:, 0], 1 - uvs[:, 1]], axis=-1), np.asarray(picture.convert("RGB")), grey
    attributes = getattr(visual, "vertex_attributes", {})
    if "color" in attributes:  # beside a material trimesh keeps COLOR_0 as an attribute of the visual
        return None, None, np.asarray(attributes["color"], dtype=np.float64)[:, :3]
    if visual.kind == "vertex":
        return None, None, np.asarray(visual.vertex_colors, dtype=np.float64)[:, :3] / 255.0
    return None, None, grey


def welded(
    vertices: Float[ndarray, "U 3"],
    faces: Int[ndarray, "F 3"],
    colors: Float[ndarray, "U 3"],
    uvs: Float[ndarray, "U 2"] | None = None,
    image: ndarray | None = None,
) -> Mesh:
    """A mesh whose vertices at one position are merged; their order is kept."""
    places, first, owner = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(places), dtype=np.int64)
    rank[order] = np.arange(len(places))
    owner, kept = rank[owner.reshape(-1)], first[order]
    mesh = Mesh(vertices[kept], owner[faces], colors[kept])
    if uvs is None or image is None:
        return mesh
    a, b, c = (uvs[faces[:, k]].astype(np.float64) for k in range(3))
    (ab_u, ab_v), (ac_u, ac_v) = (b - a).T, (c - a).T
    used = float(np.abs(ab_u * ac_v - ab_v * ac_u).sum() / 2)  # of the unit square, if no triangles overlap
    texture = Texture(image, uvs, faces, owner, used)
    return replace(mesh, texture=texture, colors=sample_texture(texture, uvs[kept]).astype(np.float32))
