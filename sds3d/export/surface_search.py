"""Chooses the surface to export: candidates are rendered and compared with the scene's own renders."""

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
LOWEST = 50.0  # the lowest level is the solid parts' density divided by this
COARSE, FINE = 8, 3  # levels over the whole range, then around the best one
OUTWARDS = (0.0, 0.01, 0.02, 0.03)  # in object sizes: mean depth lies below the surface by an unknown amount
TRUNCATION = 0.05  # of the depth fusion, in object sizes
EDGE = 2.0  # cells over which the carved field falls to 0
DEPTH_WEIGHT = 0.5  # of the mean depth error, in object sizes, against silhouette IoU
FAR_OFF = 0.2  # in object sizes: larger depth errors are holes or floaters, and count as this


@dataclass(frozen=True)
class Choice:
    """One surface: its kind and its level, which is a density, or for "depth" an offset outwards in object sizes."""

    kind: Kind
    level: float


@dataclass(frozen=True)
class Fit:
    """How similar a surface is to the scene, as means over the views."""

    silhouette_iou: float
    depth_error: float  # in object sizes, where both are seen

    @property
    def score(self) -> float:
        return self.silhouette_iou - DEPTH_WEIGHT * self.depth_error


@dataclass(frozen=True)
class Candidates:
    """The fields whose level sets are the candidates."""

    grid: Grid
    fused: Fused

    def surface(self, choice: Choice, nudge: float = 1.0) -> tuple[Surface, float] | None:
        """The main pieces and the volume share of the others, or None. `nudge` multiplies the level."""
        return self._field(choice).surface(nudge)

    def _field(self, choice: Choice) -> Grid:
        """The field: 1 on the surface, larger inside."""
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
    """The candidates of a density grid and renders of the scene."""
    return Candidates(grid, fuse(views, grid.points(), TRUNCATION * grid.spacing * max(grid.density.shape)))


def best_choices(fields: Candidates, views: SceneViews, kinds: tuple[Kind, ...], level: float | None) -> list[Choice]:
    """The best surface of each kind, if there is any.

    Levels are tried evenly on a log scale, then more finely around the best one: density has no unit, and what opacity
    it gives depends on the scene, so no fixed level is right. With `level`, only that one is tried.
    """

    def best_of(kind: Kind, levels: Float[ndarray, "K"]) -> tuple[float, float]:
        scored = []
        for value in levels.tolist():
            surface = fields.surface(Choice(kind, value))
            scored.append((fit_to(surface[0], views).score if surface else -np.inf, value))
        return max(scored)

    best: dict[Kind, tuple[float, float]] = {}
    for kind in kinds:
        if kind == "depth":
            best[kind] = best_of(kind, np.array(OUTWARDS))
        elif level is not None:
            best[kind] = best_of(kind, np.array([level]))
        else:
            top = solid_density(fields.grid)
            coarse = np.geomspace(top / LOWEST, top, COARSE)
            first, step = best_of(kind, coarse), coarse[1] / coarse[0]
            best[kind] = max(first, best_of(kind, first[1] * np.geomspace(1 / step, step, FINE + 2)[1:-1]))
    return [Choice(kind, value) for kind, (score, value) in best.items() if score > -np.inf]


def checked_level(grid: Grid, level: float | None) -> float | None:
    """`level`; ExportError if the scene is nowhere as dense."""
    if level is not None and grid.density.max() <= level:
        raise ExportError(
            f"export.level = {level:g} is above the scene's density everywhere",
            hint=f"it reaches {grid.density.max():.3g}; leave export.level out to have the best one found",
        )
    return level


def fit_to(surface: Surface, views: SceneViews) -> Fit:
    """How well the silhouettes and depths of a surface match those of the views.

    The renders' mean depth lies below the surface of a soft scene: the median offset is subtracted.
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
