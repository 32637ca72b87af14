"""Renders of a mesh by sds3d.ops.rasterize_triangles, without lights: viewers bring their own."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.ndimage import map_coordinates

from sds3d.cameras import project
from sds3d.export.mesh import Mesh, Texture
from sds3d.export.views import SceneViews, batches
from sds3d.ops.rasterize_triangles import rasterize_triangles
from sds3d.types import Cameras

VIEWS_AT_ONCE = 8  # bounds memory: 20 bytes a pixel


@dataclass(frozen=True)
class MeshView:
    """A mesh as one camera sees it."""

    face: Int[ndarray, "H W"]  # -1 for none
    barycentric: Float[ndarray, "H W 3"]  # of the visible point in its face, perspective-correct; 0 without a face
    depth: Float[ndarray, "H W"]  # world units along the camera's z; inf without a face


def render_mesh(mesh: Mesh, cameras: Cameras, background: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> SceneViews:
    """The mesh with its texture or vertex colours over one background colour; opacity is 0 or 1."""
    images, masks, depths = [], [], []
    for seen in rasterize_mesh(mesh.vertices, mesh.faces, cameras):
        hit = seen.face >= 0
        face, weights = seen.face[hit], seen.barycentric[hit][..., None]
        image = np.empty((cameras.height, cameras.width, 3), dtype=np.float32)
        image[:] = background
        if mesh.texture is None:
            image[hit] = (mesh.colors[mesh.faces[face]] * weights).sum(axis=1)
        else:
            uvs = (mesh.texture.uvs[mesh.texture.faces[face]] * weights).sum(axis=1)
            image[hit] = sample_texture(mesh.texture, uvs)
        images.append(image)
        masks.append(hit.astype(np.float32))
        depths.append(seen.depth)
    return SceneViews(cameras, np.stack(images), np.stack(masks), np.stack(depths))


def sample_texture(texture: Texture, uvs: Float[ndarray, "Q 2"]) -> Float[ndarray, "Q 3"]:
    """sRGB in [0, 1] at points of the texture, bilinear."""
    height, width = texture.image.shape[:2]
    place = [uvs[:, 1] * height - 0.5, uvs[:, 0] * width - 0.5]
    channels = [map_coordinates(texture.image[..., c], place, np.float32, order=1, mode="nearest") for c in range(3)]
    return np.stack(channels, axis=-1) / 255.0


def rasterize_mesh(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"], cameras: Cameras) -> Iterator[MeshView]:
    """View by view, the nearest triangle at every pixel's centre, front or back; those behind the camera are left out.

    Where the kernels are missing, the op's reference takes 16 times as long, which an export can bear; it warns once.
    """
    points, corners = torch.from_numpy(vertices).float(), torch.from_numpy(faces).int()
    for part in batches(cameras.to("cpu"), VIEWS_AT_ONCE):
        image = rasterize_triangles(project(points, part), corners, cameras.height, cameras.width)
        yield from (MeshView(*view) for view in zip(*(t.numpy() for t in image), strict=True))
