"""Chooses the surface to export: candidates are rendered and compared with the scene's own renders."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from sds3d.export.grid import Grid, solid_density
from sds3d.export.render_mesh import rasterize_mesh
from sds3d.export.surface import Surface
from sds3d.export.views import POINTS_AT_ONCE, SceneViews, sample
from sds3d.metrics.image import mask_iou

Kind = Literal["density", "carved", "depth"]
KINDS: tuple[Kind, ...] = ("density", "carved", "depth")
LOWEST = 50.0  # the lowest level is the solid parts' density divided by this
COARSE, FINE = 8, 3  # levels over the whole range, then around the best one
OUTWARDS = (0.0, 0.01, 0.02, 0.03)  # in object sizes: mean depth lies below the surface by an unknown amount
TRUNCATION = 0.05  # of the depth fusion, in object sizes
EDGE = 2.0  # cells over which the carved field falls to 0
NEAR = 1.5  # cells of a coarse grid: no surface is closer where both of its distances are larger
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
    score: float  # silhouette_iou, less DEPTH_WEIGHT times the depth error, in object sizes, where both are seen


@dataclass(frozen=True)
class Candidates:
    """The fields whose level sets are the candidates: density, and two distances, positive outside, in world units."""

    grid: Grid
    # to the visual hull: the largest distance to a silhouette's edge over the views; from EDGE cells on, over some
    hull: Float[ndarray, "X Y Z"]
    depth: Float[ndarray, "X Y Z"]  # to the surface of the depth maps along the views; clipped at +-truncation

    def surface(self, choice: Choice, nudge: float = 1.0, close_tunnels: bool = False) -> tuple[Surface, float] | None:
        """The main pieces and the volume share of the others, or None. `nudge` multiplies the level.

        It is the level set of a field that is 1 on the surface, and larger inside. Tunnels that no silhouette shows
        to be open are closed on request.
        """
        width = EDGE * self.grid.spacing
        if choice.kind == "depth":
            outwards = choice.level * self.grid.spacing * max(self.depth.shape)
            field = np.clip(1.0 - np.maximum(self.depth - outwards, self.hull) / width, 0.0, 2.0)
        else:
            field = self.grid.density / choice.level
            if choice.kind == "carved":
                field = np.clip(np.minimum(field, 1.0 - self.hull / width), 0.0, None)
        hidden = self.hull <= 0 if close_tunnels else None
        return replace(self.grid, density=field).surface(nudge, hidden)


def candidates(grid: Grid, views: SceneViews, coarse: Candidates | None = None) -> Candidates:
    """The candidates of a density grid and renders of the scene: space carving and depth fusion of the same renders.

    hull(p) = max_k d_k(p),   d_k = signed distance of p's pixel to the edge of silhouette k, times its size at p
    depth(p) = mean_k clip(D_k(p) - z_k(p), -s, s)   over views in which p is no deeper than s below the surface D_k
    (Curless and Levoy 1996), with truncation s. What no view sees from near enough is inside: -s.

    Once some view has p so far outside of its silhouette that no surface can come near, the others are not asked. Of
    the same on a `coarse` grid in the same box, values are taken over where they say that no surface is near.
    """
    shape = grid.density.shape
    truncation, outside = TRUNCATION * grid.spacing * max(shape), EDGE * grid.spacing
    images = [
        (torch.from_numpy(distance)[None].float(), torch.from_numpy(np.where(solid, depth, np.inf))[None].float())
        for (solid, distance), depth in zip(views.outlines, views.depth, strict=True)
    ]
    focal = views.cameras.intrinsics[:, 0, 0].cpu()
    points, asked = grid.points(), torch.arange(grid.density.size)
    hull, depth = torch.full((len(points),), -torch.inf), torch.full((len(points),), -truncation)
    if coarse is not None:
        cells = [
            np.minimum(np.rint(np.arange(n) * grid.spacing / coarse.grid.spacing).astype(int), m - 1)
            for n, m in zip(shape, coarse.grid.density.shape, strict=True)
        ]
        hull, depth = (torch.from_numpy(each[np.ix_(*cells)].ravel()) for each in (coarse.hull, coarse.depth))
        reach = NEAR * coarse.grid.spacing
        asked = ((hull < outside + reach) & ((hull > -reach) | (depth > -reach))).nonzero()[:, 0]
    for part in asked.split(POINTS_AT_ONCE):
        near_hull, sums, counts = torch.full((len(part),), -torch.inf), torch.zeros(len(part)), torch.zeros(len(part))
        left, places = torch.arange(len(part)), points[part]
        for view, (distance, surface) in enumerate(images):
            left = left[near_hull[left] < outside]
            at, z = views.project(view, places[left])
            edge = sample(distance, at, "bilinear")[:, 0] * z / focal[view]
            near_hull[left] = torch.maximum(near_hull[left], edge)
            gap = sample(surface, at, "nearest")[:, 0] - z
            near = (gap > -truncation) & torch.isfinite(gap)  # outside the silhouette, the hull says so already
            sums[left] += torch.where(near, gap.clamp(-truncation, truncation), 0.0)
            counts[left] += near
        hull[part], depth[part] = near_hull, torch.where(counts > 0, sums / counts.clamp_min(1), -truncation)
    return Candidates(grid, hull.numpy().reshape(shape), depth.numpy().reshape(shape))


def best_choices(fields: Candidates, views: SceneViews, kinds: tuple[Kind, ...], level: float | None) -> list[Choice]:
    """The best surface of each kind, if there is any.

    Levels are tried evenly on a log scale, then more finely around the best one: density has no unit, and what opacity
    it gives depends on the scene, so no fixed level is right. With `level`, only that one is tried.
    """

    def best_of(kind: Kind, levels: Float[ndarray, " K"]) -> tuple[float, float]:
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


def fit_to(surface: Surface, views: SceneViews) -> Fit:
    """How well the silhouettes and depths of a surface match those of the views.

    The renders' mean depth lies below the surface of a soft scene: the median offset is subtracted.
    """
    size = max(float(np.ptp(surface[0], axis=0).max()), 1e-9)
    ious, gaps = [], []
    for seen, theirs, depth in zip(
        rasterize_mesh(*surface, views.cameras), views.silhouettes, views.depth, strict=True
    ):
        mine = seen.face >= 0
        both = mine & theirs
        ious.append(float(mask_iou(torch.from_numpy(mine), torch.from_numpy(theirs))))
        gaps.append((depth[both] - seen.depth[both]) / size)
    gap = np.concatenate(gaps)
    error = float(np.minimum(np.abs(gap - np.median(gap)), FAR_OFF).mean()) if len(gap) else FAR_OFF
    return Fit(float(np.mean(ious)), float(np.mean(ious)) - DEPTH_WEIGHT * error)
