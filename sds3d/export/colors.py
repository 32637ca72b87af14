"""Colours for points on a mesh: projected from renders of the scene, or from the scene's colour field."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import grid_sample

from sds3d.export.mesh import Mesh, vertex_normals
from sds3d.export.rasterize_mesh import rasterize_mesh
from sds3d.export.render_mesh import render_mesh
from sds3d.export.similarity import color_psnr, render_error, silhouette_ious
from sds3d.export.surface import Surface
from sds3d.export.views import SceneViews, scene_device
from sds3d.scenes.base import Scene

Source = Literal["projection", "field"]
MIN_COSINE = 0.15  # at flatter angles the surface mixes with what is behind it
SHARPNESS = 2  # exponent of the cosine in the weight of a view
SURFACE_SLACK = 0.01  # in object sizes: up to this far behind the mesh's z-buffer a point counts as visible
RENDER_SLACK = 0.08  # the same for the render's depth, a mean over splats in front of and behind the surface
POINTS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Projector:
    """Renders of the scene, and the mesh's depth in each of them."""

    views: SceneViews
    depth: Float[ndarray, "B H W"]  # of the mesh; inf beside it
    size: float  # of the object, in world units


@dataclass(frozen=True)
class Colors:
    """Colours of all vertices and their source."""

    at_vertices: Float[ndarray, "V 3"]
    source: Source
    # of renders with these colours against the scene's, see similarity.py
    error: float
    psnr: float
    silhouette_iou: float


def projector(surface: Surface, views: SceneViews) -> Projector:
    """The views with the depth of this surface, for projection onto it."""
    depth = [rasterize_mesh(*surface, views.cameras, view).depth for view in range(len(views.cameras))]
    return Projector(views, np.stack(depth), float(np.ptp(surface[0], axis=0).max()))


def best_colors(scene: Scene, surface: Surface, projected: Projector, reference: SceneViews) -> Colors:
    """Vertex colours by projection or by the field, whichever renders more like the reference views."""
    field = field_colors(scene, surface[0])
    choices: dict[Source, Float[ndarray, "V 3"]] = {
        "projection": vertex_colors(surface, projected, field),
        "field": field,
    }
    renders = {
        source: render_mesh(Mesh(surface[0].astype(np.float32), surface[1], colors), reference.cameras)
        for source, colors in choices.items()
    }
    psnr = {source: color_psnr(views, reference) for source, views in renders.items()}
    best = max(choices, key=lambda source: psnr[source])
    iou = float(silhouette_ious(renders[best], reference).mean())
    return Colors(choices[best], best, render_error(renders[best], reference), psnr[best], iou)


def vertex_colors(surface: Surface, projected: Projector, hidden: Float[ndarray, "V 3"]) -> Float[ndarray, "V 3"]:
    """Projected colours of the vertices, and `hidden` for those that no view sees."""
    visible, weight = projected_colors(projected, surface[0], vertex_normals(*surface))
    return np.where(weight[:, None] > 0, visible, hidden).astype(np.float32)


def field_colors(scene: Scene, points: Float[ndarray, "P 3"]) -> Float[ndarray, "P 3"]:
    """The scene's colour field at points, sRGB; defined everywhere."""
    device = scene_device(scene)
    with torch.no_grad():
        parts = torch.from_numpy(points).float().split(POINTS_AT_ONCE)
        colors: list[Float[ndarray, ...]] = [scene.color(part.to(device)).clamp(0, 1).cpu().numpy() for part in parts]
    return np.concatenate([np.zeros((0, 3), dtype=np.float32), *colors])


def projected_colors(
    projected: Projector, points: Float[ndarray, "P 3"], normals: Float[ndarray, "P 3"]
) -> tuple[Float[ndarray, "P 3"], Float[ndarray, "P"]]:
    """sRGB colours of points from all renders that see them, and the sum of weights; 0 if no view sees the point.

    color_p = sum_k w_pk rgb_k(p) / sum_k w_pk opacity_k(p),   w = cosine^2 if view k sees p, else 0

    A view whose own depth at p is clearly smaller sees a floater there that the mesh left out.
    """
    places, facing = torch.from_numpy(points).float(), torch.from_numpy(normals).float()
    sums = torch.zeros(len(places), 4)
    for view in range(len(projected.views.cameras)):
        seen, weight, sample = _seen_from(projected, view, places, facing)
        sums[seen] += weight[:, None] * sample
    weight = sums[:, 3]
    colors = torch.where(weight[:, None] > 1e-3, sums[:, :3] / weight[:, None].clamp_min(1e-3), 0.0)
    return colors.clamp(0, 1).numpy(), torch.where(weight > 1e-3, weight, 0.0).numpy()


def _seen_from(
    projected: Projector, view: int, points: Float[Tensor, "P 3"], normals: Float[Tensor, "P 3"]
) -> tuple[Tensor, Float[Tensor, "Q"], Float[Tensor, "Q 4"]]:
    """The points that one view sees, their weights, and the render there: premultiplied colour and opacity."""
    views, size = projected.views, projected.size
    pose, intrinsics = (m[view].cpu() for m in (views.cameras.camera_to_world, views.cameras.intrinsics))
    towards = pose[:3, 3] - points
    cosine = (normals * towards).sum(dim=-1) / towards.norm(dim=-1)
    facing = (cosine > MIN_COSINE).nonzero()[:, 0]
    local = -towards[facing] @ pose[:3, :3]
    depth = local[:, 2]
    sides = torch.tensor([views.cameras.width, views.cameras.height])
    place = 2.0 * (local @ intrinsics.T)[:, :2] / depth[:, None] / sides - 1.0
    layers = [views.rgb[view].transpose(2, 0, 1), views.opacity[view][None]]
    image = torch.from_numpy(np.concatenate(layers)).float()
    buffers = torch.from_numpy(np.stack([projected.depth[view], views.depth[view]])).float()
    surface_depth, render_depth = _sampled(buffers, place, "nearest").T
    visible = (depth < surface_depth + SURFACE_SLACK * size) & (depth < render_depth + RENDER_SLACK * size)
    visible &= (place.abs() <= 1).all(dim=-1)
    sample = _sampled(image, place[visible], "bilinear")
    weight = cosine[facing[visible]] ** SHARPNESS * (sample[:, 3] > 0.5)
    return facing[visible], weight, sample


def _sampled(layers: Float[Tensor, "C H W"], place: Float[Tensor, "P 2"], mode: str) -> Float[Tensor, "P C"]:
    """Values of images at points in [-1, 1]^2; beyond, those of the border."""
    values = grid_sample(layers[None], place[None, None], mode=mode, padding_mode="border", align_corners=False)
    return values[0, :, 0].T
