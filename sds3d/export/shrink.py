"""A soft scene has its silhouettes a little outside of where its colours are: the surface lies where both do best."""

from dataclasses import dataclass

import numpy as np

from sds3d.export.colors import Colors, Projector, best_colors, projector
from sds3d.export.mesh import vertex_normals
from sds3d.export.similarity import GOOD_DB, GOOD_IOU
from sds3d.export.surface import Surface, separated
from sds3d.export.views import SceneViews
from sds3d.scenes.base import Scene

IOU_MARGIN, DB_MARGIN = 0.005, 0.3  # to what is good: the last check looks from other sides
INSETS = (0.0, 0.003, 0.006, 0.009)  # in object sizes


@dataclass(frozen=True)
class Colored:
    """A surface, what sees it, and its colours."""

    surface: Surface
    projected: Projector
    colors: Colors


def best_inset(scene: Scene, surface: Surface, views: SceneViews, judged: SceneViews) -> Colored:
    """The surface as it is or moved inwards, as long as it renders more like the judged views.

    On a surface outside of what is seen, the colours of different views lie at different places, and their mean is
    blurred; one too far inside loses the outline. Where the colours are not good yet, it goes on as long as the outline
    is.
    """
    best = colored(scene, surface, views, judged)
    for inset in INSETS[1:]:
        found = colored(scene, moved_inwards(surface, inset), views, judged)
        if not is_better(found.colors, best.colors):
            break
        best = found
    return best


def is_better(inner: Colors, outer: Colors) -> bool:
    """Whether the step inwards was worth it."""
    closer = inner.error < outer.error
    needed = outer.psnr < GOOD_DB + DB_MARGIN and inner.silhouette_iou >= GOOD_IOU + IOU_MARGIN
    return closer or needed


def moved_inwards(surface: Surface, share: float) -> Surface:
    """Every vertex back along its normal, by a share of the object's size."""
    vertices, faces = surface
    way = share * float(np.ptp(vertices, axis=0).max())
    return separated((vertices - way * vertex_normals(vertices, faces), faces))


def colored(scene: Scene, surface: Surface, views: SceneViews, judged: SceneViews) -> Colored:
    """The surface as it is with its best colours."""
    projected = projector(surface, views)
    return Colored(surface, projected, best_colors(scene, surface, projected, judged))
