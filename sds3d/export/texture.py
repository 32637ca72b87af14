"""The scene's colours as an image around the mesh."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.ndimage import distance_transform_edt

from sds3d.export.colors import Projector, Source, field_colors, projected_colors
from sds3d.export.mesh import Mesh, Texture, vertex_normals
from sds3d.export.png import to_uint8
from sds3d.export.rasterize_mesh import rasterize_triangles
from sds3d.export.unwrap import unwrap
from sds3d.scenes.base import Scene


def textured(mesh: Mesh, scene: Scene, projected: Projector, source: Source, size: int) -> Mesh:
    """The mesh with a texture of at most `size` texels a side; texels that no view sees get the vertices' colours."""
    flat = unwrap((mesh.vertices, mesh.faces), size)
    places = (flat.uvs * [flat.width, flat.height]).astype(np.float64)
    seen = rasterize_triangles(places, np.ones(len(places)), flat.faces, flat.height, flat.width)
    covered = seen.face >= 0
    corners, weights = mesh.faces[seen.face[covered]], seen.barycentric[covered][..., None]
    points = (mesh.vertices[corners] * weights).sum(axis=1)
    if source == "field":
        found = field_colors(scene, points)
    else:
        normals = (vertex_normals(mesh.vertices, mesh.faces)[corners] * weights).sum(axis=1)
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
        found, weight = projected_colors(projected, points, normals)
        hidden = weight == 0
        found[hidden] = (mesh.colors[corners[hidden]] * weights[hidden]).sum(axis=1)
    image = np.zeros((flat.height, flat.width, 3), dtype=np.float32)
    image[covered] = found
    picture = to_uint8(fill_gutter(image, covered))
    return replace(mesh, texture=Texture(picture, flat.uvs, flat.faces, flat.vertices, float(covered.mean())))


def fill_gutter(image: Float[ndarray, "h w 3"], covered: Bool[ndarray, "h w"]) -> Float[ndarray, "h w 3"]:
    """Every texel between the charts like the nearest one on them, so that no seam shows in smaller mip maps."""
    nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    filled: Float[ndarray, "h w 3"] = image[tuple(nearest)]
    return filled
