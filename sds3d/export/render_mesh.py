"""Renders of a mesh by a z-buffer in numpy, without lights: its colours come from renders, which are lit already."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.ndimage import map_coordinates

from sds3d.export.mesh import Mesh, Texture
from sds3d.export.views import SceneViews
from sds3d.types import Cameras

PAIRS_AT_ONCE = 2_000_000  # (triangle, pixel) pairs tested together; bounds memory to about 200 MB


@dataclass(frozen=True)
class MeshView:
    """A mesh as one camera sees it."""

    face: Int[ndarray, "H W"]  # -1 for none
    depth: Float[ndarray, "H W"]  # world units along the camera's z; inf without a face
    barycentric: Float[ndarray, "H W 3"]  # of the visible point in its face; perspective-correct


def render_mesh(mesh: Mesh, cameras: Cameras, background: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> SceneViews:
    """The mesh with its texture or vertex colours over one background colour; opacity is 0 or 1."""
    images, masks, depths = [], [], []
    for view in range(len(cameras)):
        seen = rasterize_mesh(mesh.vertices, mesh.faces, cameras, view)
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
        depths.append(seen.depth.astype(np.float32))
    return SceneViews(cameras, np.stack(images), np.stack(masks), np.stack(depths))


def sample_texture(texture: Texture, uvs: Float[ndarray, "Q 2"]) -> Float[ndarray, "Q 3"]:
    """sRGB in [0, 1] at points of the texture, bilinear."""
    height, width = texture.image.shape[:2]
    place = [uvs[:, 1] * height - 0.5, uvs[:, 0] * width - 0.5]
    channels = [map_coordinates(texture.image[..., c], place, np.float32, order=1, mode="nearest") for c in range(3)]
    return np.stack(channels, axis=-1) / 255.0


def rasterize_mesh(
    vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"], cameras: Cameras, view: int
) -> MeshView:
    """The nearest triangle at every pixel's centre, front or back face. Triangles that reach behind the camera are
    left out."""
    points, depth = project_points(vertices, cameras, view)
    return rasterize_triangles(points, depth, faces, cameras.height, cameras.width)


def project_points(
    points: Float[ndarray, "V 3"], cameras: Cameras, view: int
) -> tuple[Float[ndarray, "V 2"], Float[ndarray, " V"]]:
    """Pixel coordinates and depth along the camera's z of world points in one view; depth may be negative."""
    pose = cameras.camera_to_world[view].double().cpu().numpy()
    intrinsics = cameras.intrinsics[view].double().cpu().numpy()
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    depth = local[:, 2]
    safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
    image = local @ intrinsics.T
    return image[:, :2] / safe[:, None], depth


def rasterize_triangles(
    points: Float[ndarray, "V 2"], depth: Float[ndarray, " V"], faces: Int[ndarray, "F 3"], height: int, width: int
) -> MeshView:
    """The same for corners in pixels, with their depth."""
    seen_face = np.full(height * width, -1, dtype=np.int64)
    seen_depth = np.full(height * width, np.inf)
    seen_weights = np.zeros((height * width, 3))
    corners = points[faces]  # [F, 3, 2]
    low = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, [width, height]).astype(np.int64)
    high = np.clip(np.floor(corners.max(axis=1) - 0.5) + 1, 0, [width, height]).astype(np.int64)
    sides = np.maximum(high - low, 0)
    sides[(depth[faces] <= 1e-6).any(axis=1)] = 0
    in_box = sides[:, 0] * sides[:, 1]  # pixels to test
    tested = np.flatnonzero(in_box)
    group = np.cumsum(in_box[tested]) // PAIRS_AT_ONCE
    for batch in np.split(tested, np.flatnonzero(np.diff(group)) + 1):
        counts = in_box[batch]
        face = np.repeat(batch, counts)
        index = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)
        x, y = low[face, 0] + index % sides[face, 0], low[face, 1] + index // sides[face, 0]
        a, b, c = (corners[face, k] - np.stack([x + 0.5, y + 0.5], axis=-1) for k in range(3))
        areas = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=-1)  # opposite each corner, signed
        total = areas.sum(axis=-1)
        hit = ((areas >= 0).all(axis=-1) | (areas <= 0).all(axis=-1)) & (np.abs(total) > 1e-12)
        face, pixel = face[hit], (y * width + x)[hit]
        over_depth = areas[hit] / total[hit, None] * (1.0 / depth[faces[face]])  # 1/z is linear on the screen
        pair_depth = 1.0 / over_depth.sum(axis=-1)
        order = np.argsort(-pair_depth, kind="stable")  # the nearest is written last, and stays
        order = order[pair_depth[order] < seen_depth[pixel[order]]]
        pixel = pixel[order]
        seen_face[pixel], seen_depth[pixel] = face[order], pair_depth[order]
        seen_weights[pixel] = (over_depth * pair_depth[:, None])[order]
    return MeshView(
        seen_face.reshape(height, width), seen_depth.reshape(height, width), seen_weights.reshape(height, width, 3)
    )


def _cross(first: Float[ndarray, "Q 2"], second: Float[ndarray, "Q 2"]) -> Float[ndarray, " Q"]:
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
