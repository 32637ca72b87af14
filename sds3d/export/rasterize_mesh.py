"""A z-buffer for meshes in numpy: the triangle that each pixel sees, for silhouettes, visibility and checks."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from sds3d.types import Cameras

PAIRS_AT_ONCE = 2_000_000  # (triangle, pixel) pairs tested together; bounds memory to about 200 MB


@dataclass(frozen=True)
class MeshView:
    """A mesh as one camera sees it."""

    face: Int[ndarray, "H W"]  # -1 for none
    depth: Float[ndarray, "H W"]  # world units along the camera's z; inf without a face
    barycentric: Float[ndarray, "H W 3"]  # of the visible point in its face; perspective-correct


def project_points(
    points: Float[ndarray, "V 3"], cameras: Cameras, view: int
) -> tuple[Float[ndarray, "V 2"], Float[ndarray, "V"]]:
    """Pixel coordinates and depth along the camera's z of world points in one view; depth may be negative."""
    pose = cameras.camera_to_world[view].double().cpu().numpy()
    intrinsics = cameras.intrinsics[view].double().cpu().numpy()
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    depth = local[:, 2]
    safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
    image = local @ intrinsics.T
    return image[:, :2] / safe[:, None], depth


def rasterize_mesh(
    vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"], cameras: Cameras, view: int
) -> MeshView:
    """The nearest triangle at every pixel's centre, front or back face. Triangles that reach behind the camera are
    left out."""
    points, depth = project_points(vertices, cameras, view)
    return rasterize_triangles(points, depth, faces, cameras.height, cameras.width)


def rasterize_triangles(
    points: Float[ndarray, "V 2"], depth: Float[ndarray, "V"], faces: Int[ndarray, "F 3"], height: int, width: int
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
    for chosen in _batches(sides[:, 0] * sides[:, 1]):
        face, pixel, weights, pair_depth = _covered_pixels(chosen, corners, 1.0 / depth[faces], low, sides, width)
        order = np.argsort(-pair_depth, kind="stable")  # the nearest is written last, and stays
        face, pixel, weights, pair_depth = face[order], pixel[order], weights[order], pair_depth[order]
        nearer = pair_depth < seen_depth[pixel]
        pixel = pixel[nearer]
        seen_face[pixel], seen_depth[pixel], seen_weights[pixel] = face[nearer], pair_depth[nearer], weights[nearer]
    return MeshView(
        seen_face.reshape(height, width), seen_depth.reshape(height, width), seen_weights.reshape(height, width, 3)
    )


def _batches(pairs: Int[ndarray, "F"]) -> list[Int[ndarray, "K"]]:
    """Indices of the triangles with any pixel to test, in groups of about PAIRS_AT_ONCE pairs."""
    chosen = np.flatnonzero(pairs)
    if len(chosen) == 0:
        return []
    group = np.cumsum(pairs[chosen]) // PAIRS_AT_ONCE
    return np.split(chosen, np.flatnonzero(np.diff(group)) + 1)


def _covered_pixels(
    chosen: Int[ndarray, "K"],
    corners: Float[ndarray, "F 3 2"],
    inverse_depth: Float[ndarray, "F 3"],
    low: Int[ndarray, "F 2"],
    sides: Int[ndarray, "F 2"],
    width: int,
) -> tuple[Int[ndarray, "Q"], Int[ndarray, "Q"], Float[ndarray, "Q 3"], Float[ndarray, "Q"]]:
    """All (triangle, pixel) pairs where the pixel's centre is inside: face, flat pixel, barycentric, depth."""
    counts = sides[chosen, 0] * sides[chosen, 1]
    face = np.repeat(chosen, counts)
    inside_box = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)
    x = low[face, 0] + inside_box % sides[face, 0]
    y = low[face, 1] + inside_box // sides[face, 0]
    a, b, c = (corners[face, k] - np.stack([x + 0.5, y + 0.5], axis=-1) for k in range(3))
    areas = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=-1)  # opposite each corner, signed
    total = areas.sum(axis=-1)
    hit = ((areas >= 0).all(axis=-1) | (areas <= 0).all(axis=-1)) & (np.abs(total) > 1e-12)
    face, x, y = face[hit], x[hit], y[hit]
    over_depth = areas[hit] / total[hit, None] * inverse_depth[face]  # 1/z is linear on the screen
    depth = 1.0 / over_depth.sum(axis=-1)
    return face, y * width + x, over_depth * depth[:, None], depth


def _cross(first: Float[ndarray, "Q 2"], second: Float[ndarray, "Q 2"]) -> Float[ndarray, "Q"]:
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
