"""Colours for points on a mesh: projected from renders of the scene, or from the scene's colour field.

A soft scene's silhouettes lie a little outside of its colours: the surface is shrunk to where both fit best.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from sds3d.export.mesh import Mesh, vertex_normals
from sds3d.export.render_mesh import rasterize_mesh, render_mesh
from sds3d.export.surface import Surface, separated
from sds3d.export.views import GOOD_DB, GOOD_IOU, POINTS_AT_ONCE, SceneViews, sample, scene_device
from sds3d.scenes.base import Scene

Source = Literal["projection", "field"]
MIN_COSINE = 0.15  # at flatter angles the surface mixes with what is behind it
SHARPNESS = 2  # exponent of the cosine in the weight of a view
SURFACE_SLACK = 0.01  # in object sizes: up to this far behind the mesh's z-buffer a point counts as visible
RENDER_SLACK = 0.08  # the same for the render's depth, a mean over splats in front of and behind the surface
FIELD_POINTS = 1 << 18  # at once
IOU_MARGIN, DB_MARGIN = 0.005, 0.3  # above the limits, because the last check uses other views
INSETS = (0.0, 0.003, 0.006, 0.009)  # in object sizes


class Projector:
    """Renders of the scene, and the depth of a surface in each of them."""

    def __init__(self, surface: Surface, views: SceneViews) -> None:
        self.views = views
        shown = np.concatenate([views.rgb, views.opacity[..., None]], axis=-1).transpose(0, 3, 1, 2)
        self.images = [  # of each view the depths, of the surface and as rendered, and colours with opacity
            (torch.from_numpy(np.stack([seen.depth, depth])).float(), torch.from_numpy(layers).float().contiguous())
            for seen, depth, layers in zip(rasterize_mesh(*surface, views.cameras), views.depth, shown, strict=True)
        ]
        self.size = float(np.ptp(surface[0], axis=0).max())

    def colors(
        self, points: Float[ndarray, "P 3"], normals: Float[ndarray, "P 3"]
    ) -> tuple[Float[ndarray, "P 3"], Float[ndarray, " P"]]:
        """sRGB colours of points from all renders that see them, and the sum of weights; 0 if no view sees the point.

        color_p = sum_k w_pk rgb_k(p) / sum_k w_pk opacity_k(p),   w = cosine^2 if view k sees p, else 0

        A view whose own depth at p is clearly smaller sees a floater there that the mesh left out.
        """
        parts = (torch.from_numpy(each).float().split(POINTS_AT_ONCE) for each in (points, normals))
        sums = torch.cat([torch.zeros(0, 4), *(self._sums(*part) for part in zip(*parts, strict=True))])
        weight = sums[:, 3]
        colors = torch.where(weight[:, None] > 1e-3, sums[:, :3] / weight[:, None].clamp_min(1e-3), 0.0)
        return colors.clamp(0, 1).numpy(), torch.where(weight > 1e-3, weight, 0.0).numpy()

    def _sums(self, places: Float[Tensor, "P 3"], normal: Float[Tensor, "P 3"]) -> Float[Tensor, "P 4"]:
        """Over the views: weights times premultiplied colours, and times opacities."""
        sums, eyes = torch.zeros(len(places), 4), self.views.cameras.camera_to_world[:, :3, 3].cpu()
        distances = eyes.square().sum(dim=-1)[:, None] - 2 * eyes @ places.T + places.square().sum(dim=-1)
        cosines = (eyes @ normal.T - (normal * places).sum(dim=-1)) / distances.sqrt()
        for view, (cosine, (depths, layers)) in enumerate(zip(cosines, self.images, strict=True)):
            facing = (cosine > MIN_COSINE).nonzero()[:, 0]
            pixels, depth = self.views.project(view, places[facing])
            nearest, rendered = sample(depths, pixels, "nearest").T
            visible = (depth < nearest + SURFACE_SLACK * self.size) & (depth < rendered + RENDER_SLACK * self.size)
            visible &= (pixels.abs() <= 1).all(dim=-1)
            shown, seen = sample(layers, pixels[visible], "bilinear"), facing[visible]
            sums[seen] += (cosine[seen] ** SHARPNESS * (shown[:, 3] > 0.5))[:, None] * shown
        return sums


@dataclass(frozen=True)
class Colored:
    """A surface, the renders projected onto it, and the colours of all its vertices."""

    surface: Surface
    projected: Projector
    at_vertices: Float[ndarray, "V 3"]
    source: Source
    # of renders with these colours against the scene's, see views.py
    error: float
    psnr: float
    silhouette_iou: float


def best_inset(scene: Scene, surface: Surface, views: SceneViews, reference: SceneViews) -> Colored:
    """The surface, moved inwards step by step as long as its renders become more like the reference views.

    On a surface too far outside, the colours of different views land on different places and their mean is blurred; one
    too far inside loses the outline. While the colours are below their limit, only the outline has to stay above its.
    """
    best = with_colors(scene, surface, views, reference)
    for inset in INSETS[1:]:
        inner = with_colors(scene, moved_inwards(surface, inset), views, reference)
        if not is_better(inner, best):
            break
        best = inner
    return best


def is_better(inner: Colored, outer: Colored) -> bool:
    """Whether the step inwards is an improvement."""
    needed = outer.psnr < GOOD_DB + DB_MARGIN and inner.silhouette_iou >= GOOD_IOU + IOU_MARGIN
    return inner.error < outer.error or needed


def moved_inwards(surface: Surface, share: float) -> Surface:
    """Every vertex moved back along its normal, by a share of the object's size."""
    vertices, faces = surface
    distance = share * float(np.ptp(vertices, axis=0).max())
    return separated((vertices - distance * vertex_normals(vertices, faces), faces))


def with_colors(scene: Scene, surface: Surface, views: SceneViews, reference: SceneViews) -> Colored:
    """Coloured by projection or by the field, whichever renders more like the reference views."""
    projected, field = Projector(surface, views), field_colors(scene, surface[0])
    choices: dict[Source, Float[ndarray, "V 3"]] = {
        "projection": vertex_colors(surface, projected, field),
        "field": field,
    }
    found = []
    for source, colors in choices.items():
        renders = render_mesh(Mesh(surface[0].astype(np.float32), surface[1], colors), reference.cameras)
        iou = float(renders.silhouette_ious(reference).mean())
        error, psnr = renders.error(reference), renders.color_psnr(reference)
        found.append(Colored(surface, projected, colors, source, error, psnr, iou))
    return max(found, key=lambda one: one.psnr)


def vertex_colors(surface: Surface, projected: Projector, hidden: Float[ndarray, "V 3"]) -> Float[ndarray, "V 3"]:
    """Projected colours of the vertices, and `hidden` for those that no view sees."""
    visible, weight = projected.colors(surface[0], vertex_normals(*surface))
    return np.where(weight[:, None] > 0, visible, hidden).astype(np.float32)


def field_colors(scene: Scene, points: Float[ndarray, "P 3"]) -> Float[ndarray, "P 3"]:
    """The scene's colour field at points, sRGB; defined everywhere."""
    device = scene_device(scene)
    with torch.no_grad():
        parts = torch.from_numpy(points).float().split(FIELD_POINTS)
        colors: list[Float[ndarray, ...]] = [scene.color(part.to(device)).clamp(0, 1).cpu().numpy() for part in parts]
    return np.concatenate([np.zeros((0, 3), dtype=np.float32), *colors])
