"""The triangle mesh that the exporters pass around."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


@dataclass(frozen=True)
class Mesh:
    """An indexed triangle mesh in world axes (+z up); faces wind counter-clockwise seen from outside."""

    vertices: Float[ndarray, "V 3"]
    faces: Int[ndarray, "F 3"]
    colors: Float[ndarray, "V 3"]  # sRGB, [0, 1]
    dropped_share: float = 0.0  # of the scene's volume, in floaters that were left out
    silhouette_iou: float | None = None  # how well it covers what the scene's renders cover


def vertex_normals(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> Float[ndarray, "V 3"]:
    """Unit normals, faces weighted by area; +z where a vertex has no face of any area."""
    corners = vertices.astype(np.float64)[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = np.stack(
        [np.bincount(faces.ravel(), np.repeat(normals[:, axis], 3), len(vertices)) for axis in range(3)], axis=-1
    )
    length = np.linalg.norm(sums, axis=-1, keepdims=True)
    safe = np.where(length > 0, sums / np.maximum(length, 1e-300), [0.0, 0.0, 1.0])
    return safe.astype(np.float32)


def without_unused_vertices(
    vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]
) -> tuple[Float[ndarray, "U 3"], Int[ndarray, "F 3"]]:
    """The same triangles over the vertices they use, in their old order."""
    used, flat = np.unique(faces, return_inverse=True)
    return vertices[used], flat.reshape(-1, 3)
