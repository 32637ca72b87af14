"""Which surface of a scene to export: candidates are rendered and compared with the scene's own renders."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from sds3d.errors import ExportError
from sds3d.export.grid import Grid, solid_density
from sds3d.export.rasterize_mesh import rasterize_mesh
from sds3d.export.surface import Surface
from sds3d.export.tsdf import SOLID, Fused, fuse
from sds3d.export.views import SceneViews
from sds3d.metrics.image import mask_iou

Kind = Literal["density", "carved", "depth"]
KINDS: tuple[Kind, ...] = ("density", "carved", "depth")
LOWEST = 50.0  # the lowest level tried is the solid parts' density by this
COARSE, FINE = 8, 3  # levels tried over the whole range, then around the best one
OUTWARDS = (0.0, 0.01, 0.02, 0.03)  # in object sizes: mean depth is below the surface by an unknown bit
TRUNCATION = 0.05  # in object sizes: how deep a view sees
EDGE = 2.0  # cells over which carving acts
DEPTH_WEIGHT = 0.5  # of the mean depth error, in object sizes, against silhouette IoU
FAR_OFF = 0.2  # in object sizes: larger depth errors are holes or floaters, and count as this


@dataclass(frozen=True)
class Choice:
    """One surface: the kind of its making and its level, a density, or for "depth" the way outwards in object sizes."""

    kind: Kind
    level: float


@dataclass(frozen=True)
class Fit:
    """How well a surface looks like the scene, as means over the views."""

    silhouette_iou: float
    depth_error: float  # in object sizes, where both are seen

    @property
    def score(self) -> float:
        return self.silhouette_iou - DEPTH_WEIGHT * self.depth_error


@dataclass(frozen=True)
class Candidates:
    """All surfaces that one grid has."""

    grid: Grid
    fused: Fused

    def surface(self, choice: Choice, nudge: float = 1.0) -> tuple[Surface, float] | None:
        """The main pieces and the volume share of the others; None if there is nothing. `nudge` is a factor beside the
        level."""
        return self._field(choice).surface(nudge)

    def _field(self, choice: Choice) -> Grid:
        """1 on the surface, more inside."""
        shape, width = self.grid.density.shape, EDGE * self.grid.spacing
        if choice.kind == "depth":
            outwards = choice.level * self.grid.spacing * max(shape)
            distance = np.maximum(self.fused.depth - outwards, self.fused.hull).reshape(shape)
            return replace(self.grid, density=np.clip(1.0 - distance / width, 0.0, 2.0))
        field = self.grid.density / choice.level
        if choice.kind == "carved":
            field = np.clip(np.minimum(field, 1.0 - self.fused.hull.reshape(shape) / width), 0.0, None)
        return replace(self.grid, density=field)


def candidates(grid: Grid, views: SceneViews) -> Candidates:
    """All surfaces of a grid that these views can tell of."""
    return Candidates(grid, fuse(views, grid.points(), TRUNCATION * grid.spacing * max(grid.density.shape)))


def best_choices(found: Candidates, views: SceneViews, kinds: tuple[Kind, ...], level: float | None) -> list[Choice]:
    """Of each kind the surface that looks most like the views, those that there are.

    Levels are tried evenly on a log scale, then more finely around the best one: density has no unit and how it
    becomes opacity depends on the scene, so no fixed level can be right. `level` is one that was asked for.
    """

    def best_of(kind: Kind, levels: Float[ndarray, "K"]) -> tuple[float, float]:
        scored = []
        for value in levels.tolist():
            surface = found.surface(Choice(kind, value))
            scored.append((fit_to(surface[0], views).score if surface else -np.inf, value))
        return max(scored)

    best: dict[Kind, tuple[float, float]] = {}
    for kind in kinds:
        if kind == "depth":
            best[kind] = best_of(kind, np.array(OUTWARDS))
        elif level is not None:
            best[kind] = best_of(kind, np.array([level]))
        else:
            top = solid_density(found.grid)
            coarse = np.geomspace(top / LOWEST, top, COARSE)
            first, step = best_of(kind, coarse), coarse[1] / coarse[0]
            best[kind] = max(first, best_of(kind, first[1] * np.geomspace(1 / step, step, FINE + 2)[1:-1]))
    return [Choice(kind, value) for kind, (score, value) in best.items() if score > -np.inf]


def checked_level(grid: Grid, level: float | None) -> float | None:
    """The level that was asked for; ExportError where the scene is nowhere as dense."""
    if level is not None and grid.density.max() <= level:
        raise ExportError(
            f"export.level = {level:g} is above the scene's density everywhere",
            hint=f"it reaches {grid.density.max():.3g}; leave export.level out to have the best one found",
        )
    return level


def fit_to(surface: Surface, views: SceneViews) -> Fit:
    """How well a surface has the silhouettes and the depth of the views.

    The renders' mean depth lies below the surface by what the scene is soft: the median of that is taken out.
    """
    size = max(float(np.ptp(surface[0], axis=0).max()), 1e-9)
    ious, gaps = [], []
    for view in range(len(views.cameras)):
        seen = rasterize_mesh(*surface, views.cameras, view)
        mine, theirs = seen.face >= 0, views.opacity[view] > SOLID
        both = mine & theirs
        ious.append(float(mask_iou(torch.from_numpy(mine), torch.from_numpy(theirs))))
        gaps.append((views.depth[view][both] - seen.depth[both]) / size)
    gap = np.concatenate(gaps)
    error = float(np.minimum(np.abs(gap - np.median(gap)), FAR_OFF).mean()) if len(gap) else FAR_OFF
    return Fit(float(np.mean(ious)), error)
