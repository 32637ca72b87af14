"""Colours for a mesh's vertices, taken from where they can be seen: the scene's own renders."""

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.ndimage import map_coordinates

from sds3d.export.mesh import vertex_normals
from sds3d.export.rasterize_mesh import project_points, rasterize_mesh
from sds3d.export.views import SceneViews, scene_device
from sds3d.scenes.base import Scene

MIN_COSINE = 0.15  # a surface seen at a flatter angle mixes with what is behind it
SURFACE_SLACK = 0.01  # in object sizes: how far behind the mesh's z-buffer a vertex is still its surface
RENDER_SLACK = 0.08  # the same for the render's depth, which averages over splats in front of and behind the surface


def vertex_colors(
    scene: Scene, vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"], views: SceneViews
) -> Float[ndarray, "V 3"]:
    """sRGB colours that show what the renders show.

    color_v = sum_k w_vk rgb_k(v) / sum_k w_vk opacity_k(v),   w = cosine^4 where view k sees v, else 0
    A view whose own depth at v is clearly nearer looks at a floater that the mesh left out. Vertices that no view sees
    get the scene's colour at their place.
    """
    normals = vertex_normals(vertices, faces)
    size = float(np.ptp(vertices, axis=0).max())
    sums, weights = np.zeros((len(vertices), 3)), np.zeros(len(vertices))
    for view in range(len(views.cameras)):
        image = np.concatenate([views.rgb[view], views.opacity[view, ..., None]], axis=-1)
        seen = rasterize_mesh(vertices, faces, views.cameras, view)
        pixels, depth = project_points(vertices, views.cameras, view)
        towards = views.cameras.camera_to_world[view, :3, 3].double().cpu().numpy() - vertices
        cosine = np.einsum("vi,vi->v", normals, towards) / np.linalg.norm(towards, axis=-1)
        column = np.clip(np.floor(pixels[:, 0]), 0, views.cameras.width - 1).astype(np.int64)
        row = np.clip(np.floor(pixels[:, 1]), 0, views.cameras.height - 1).astype(np.int64)
        visible = (cosine > MIN_COSINE) & (depth < seen.depth[row, column] + SURFACE_SLACK * size)
        visible &= depth < views.depth[view, row, column] + RENDER_SLACK * size
        place = [pixels[visible, 1] - 0.5, pixels[visible, 0] - 0.5]
        sample = np.stack([map_coordinates(image[..., c], place, order=1, mode="nearest") for c in range(4)], axis=-1)
        weight = cosine[visible] ** 4 * (sample[:, 3] > 0.5)
        sums[visible] += weight[:, None] * sample[:, :3]
        weights[visible] += weight * sample[:, 3]
    colors = np.zeros((len(vertices), 3), dtype=np.float32)
    shown = weights > 1e-3
    colors[shown] = np.clip(sums[shown] / weights[shown, None], 0, 1)
    hidden = torch.from_numpy(vertices[~shown]).float().to(scene_device(scene))
    colors[~shown] = scene.color(hidden).clamp(0, 1).cpu().numpy()
    return colors
