"""A soft scene's silhouettes lie a little outside of its colours: shrinks the surface to where both fit best."""

from dataclasses import dataclass

import numpy as np

from sds3d.export.colors import Colors, Projector, best_colors, projector
from sds3d.export.mesh import vertex_normals
from sds3d.export.similarity import GOOD_DB, GOOD_IOU
from sds3d.export.surface import Surface, separated
from sds3d.export.views import SceneViews
from sds3d.scenes.base import Scene

IOU_MARGIN, DB_MARGIN = 0.005, 0.3  # above the limits, because the last check uses other views
INSETS = (0.0, 0.003, 0.006, 0.009)  # in object sizes


@dataclass(frozen=True)
class Colored:
    """A surface, the renders projected onto it, and its colours."""

    surface: Surface
    projected: Projector
    colors: Colors


def best_inset(scene: Scene, surface: Surface, views: SceneViews, reference: SceneViews) -> Colored:
    """The surface, moved inwards step by step as long as its renders become more like the reference views.

    On a surface too far outside, the colours of different views land on different places and their mean is blurred; one
    too far inside loses the outline. While the colours are below their limit, only the outline has to stay above its.
    """
    best = with_colors(scene, surface, views, reference)
    for inset in INSETS[1:]:
        inner = with_colors(scene, moved_inwards(surface, inset), views, reference)
        if not is_better(inner.colors, best.colors):
            break
        best = inner
    return best


def is_better(inner: Colors, outer: Colors) -> bool:
    """Whether the step inwards is an improvement."""
    closer = inner.error < outer.error
    needed = outer.psnr < GOOD_DB + DB_MARGIN and inner.silhouette_iou >= GOOD_IOU + IOU_MARGIN
    return closer or needed


def moved_inwards(surface: Surface, share: float) -> Surface:
    """Every vertex moved back along its normal, by a share of the object's size."""
    vertices, faces = surface
    distance = share * float(np.ptp(vertices, axis=0).max())
    return separated((vertices - distance * vertex_normals(vertices, faces), faces))


def with_colors(scene: Scene, surface: Surface, views: SceneViews, reference: SceneViews) -> Colored:
    """The surface with its best colours."""
    projected = projector(surface, views)
    return Colored(surface, projected, best_colors(scene, surface, projected, reference))
