"""A body that is known exactly: an L with a short arm, red above and blue below, with no symmetry at all."""

import numpy as np
import pytest
import trimesh

from sds3d.export.mesh import Mesh, Texture
from sds3d.export.texture import rasterize_uvs, unwrap
from sds3d.types import Material

RED, BLUE = (220, 40, 30), (30, 60, 200)
BOXES = [  # low and high corners in world axes; the first is the long arm, to the object's left
    ((-0.2, -0.3, -0.6), (0.2, 0.6, -0.3)),
    ((-0.2, -0.3, -0.6), (0.2, -0.05, 0.7)),
    ((-0.2, -0.3, 0.3), (0.5, -0.05, 0.5)),  # a nose to the front
]


def solid() -> trimesh.Trimesh:
    """The union of the boxes, outwards, cut into triangles small enough to carry colours at vertices."""
    bodies = [trimesh.creation.box(bounds=np.array(box)) for box in BOXES]
    body = trimesh.boolean.union(bodies, engine="manifold").subdivide_to_size(0.08)
    body.merge_vertices()
    return body


def paint(points: np.ndarray) -> np.ndarray:
    """Red above z = 0, blue below; sRGB in [0, 1]."""
    return np.where(points[:, 2:] > 0, RED, BLUE) / 255.0


@pytest.fixture(scope="session")
def textured_body() -> Mesh:
    body = solid()
    vertices, faces = np.asarray(body.vertices, dtype=np.float32), np.asarray(body.faces, dtype=np.int64)
    atlas = unwrap((vertices.astype(np.float64), faces), 200)
    height, width = atlas.image.shape[:2]
    seen = rasterize_uvs(atlas)
    points = (vertices[faces[seen.face.clip(0)]] * seen.barycentric[..., None]).sum(axis=2)
    image = (paint(points.reshape(-1, 3)) * 255).round().astype(np.uint8).reshape(height, width, 3)
    texture = Texture(image, atlas.uvs, atlas.faces, atlas.vertices, 0.5)
    colors, material = paint(vertices).astype(np.float32), Material(roughness=0.6, metallic=0.1)
    return Mesh(vertices, faces, colors, texture, material=material)
