"""Renders of a mesh without lights: its colours come from renders, which are lit already."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import map_coordinates

from sds3d.export.mesh import Mesh, Texture
from sds3d.export.rasterize_mesh import MeshView, rasterize_mesh
from sds3d.export.views import SceneViews
from sds3d.types import Cameras


def render_mesh(mesh: Mesh, cameras: Cameras, background: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> SceneViews:
    """The mesh with its texture or vertex colours over one background colour; opacity is 0 or 1."""
    images, masks, depths = [], [], []
    for view in range(len(cameras)):
        seen = rasterize_mesh(mesh.vertices, mesh.faces, cameras, view)
        hit = seen.face >= 0
        image = np.empty((cameras.height, cameras.width, 3), dtype=np.float32)
        image[:] = background
        image[hit] = _colors_seen(mesh, seen, hit)
        images.append(image)
        masks.append(hit.astype(np.float32))
        depths.append(seen.depth.astype(np.float32))
    return SceneViews(cameras, np.stack(images), np.stack(masks), np.stack(depths))


def _colors_seen(mesh: Mesh, seen: MeshView, hit: ndarray) -> Float[ndarray, "Q 3"]:
    face, weights = seen.face[hit], seen.barycentric[hit][..., None]
    if mesh.texture is None:
        return (mesh.colors[mesh.faces[face]] * weights).sum(axis=1)
    return sample_texture(mesh.texture, (mesh.texture.uvs[mesh.texture.faces[face]] * weights).sum(axis=1))


def sample_texture(texture: Texture, uvs: Float[ndarray, "Q 2"]) -> Float[ndarray, "Q 3"]:
    """sRGB in [0, 1] at points of the texture, bilinear."""
    height, width = texture.image.shape[:2]
    place = [uvs[:, 1] * height - 0.5, uvs[:, 0] * width - 0.5]
    channels = [map_coordinates(texture.image[..., c], place, np.float32, order=1, mode="nearest") for c in range(3)]
    return np.stack(channels, axis=-1) / 255.0
