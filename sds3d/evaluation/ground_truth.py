"""The true object: how it is aligned with the result by silhouettes, and how a mesh compares with it as a solid body.

A prompt leaves the proportions open, so the truth is DRAWS objects, and a score is that of the best one.
"""

import math
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from jaxtyping import Bool, Float
from manifold3d import CrossSection, Manifold, OpType
from numpy import ndarray
from scipy.spatial import cKDTree
from torch import Tensor

from sds3d.cameras import orbit, turn_cameras
from sds3d.export.mesh import Mesh
from sds3d.metrics.image import mask_iou
from sds3d.metrics.mesh import as_manifold, triangles_of, volume_iou
from sds3d.priors.embedded.captions import Description, build
from sds3d.priors.embedded.render import render_solids
from sds3d.priors.embedded.solids import Solid
from sds3d.types import Cameras

DRAWS = 8
VIEWS, TURNS, SIZE = 8, 24, 96  # of the silhouettes
TIE = 0.01
MIN_SCALE, MAX_SCALE = 0.5, 2.0
SEGMENTS = 64  # around a circle, whose area is 0.2% too small
CUP_WALL = 0.12  # of the radius; the rendered wall has no thickness, which no closed mesh can have
QUERIES, TARGETS = 4_000, 40_000  # points whose distance is measured, and points that represent the other surface


def draw_truths(description: Description) -> list[list[Solid]]:
    """DRAWS true objects of different proportions; the same for each call."""
    return [build(description, Random(number)) for number in range(DRAWS)]


@dataclass(frozen=True)
class Alignment:
    """The rotation and scale of the truth at which its silhouettes overlap most with the result's."""

    silhouette_iou: float  # mean over the views, for the best draw
    draw: int  # the best one
    yaw_deg: float  # of the result against the truth, counter-clockwise from above
    scales: list[float]  # one for each draw


def silhouette_cameras(azimuth_deg: float = 0.0) -> Cameras:
    """The eight views in which silhouettes are compared, rotated around +z by `azimuth_deg`."""
    return turn_cameras(orbit(VIEWS, size=SIZE), math.radians(azimuth_deg))


def align(masks: Bool[Tensor, "B H W"], truths: list[list[Solid]]) -> Alignment:
    """The best fit of the draws `truths` to the result's silhouettes in the `silhouette_cameras`: yaw, scale and draw.

    1. The result is rendered from 8 sides, 45 degrees apart.
    2. The first draw is rendered from 24 azimuths, at its own size and at the size at which its silhouettes have the
       result's area. Each yaw is tried with both sizes.
    3. The smallest yaw within TIE of the best IoU is taken, so that an object that looks alike from two sides counts as
       not rotated.
    4. At that yaw, every other draw is tried at its own size and at the result's area.
    """
    assert len(truths) == DRAWS, f"{len(truths)} draws, not {DRAWS}"
    if not masks.any():
        return Alignment(0.0, 0, 0.0, [1.0] * DRAWS)
    all_around = _masks(truths[0], orbit(TURNS, size=SIZE))
    scale = _area_ratio(masks, all_around)
    ious = torch.stack([_iou_by_turn(masks, all_around), _iou_by_turn(masks, _masks(truths[0], scale=scale))])
    best = ious.amax(0)  # for each turn
    good = [turn for turn in range(TURNS) if float(best[turn]) >= float(best.max()) - TIE]
    turn = min(good, key=lambda k: (min(k, TURNS - k), k))
    yaw_deg = (turn * 360.0 / TURNS + 180.0) % 360.0 - 180.0
    first = max((float(ious[0, turn]), 1.0), (float(ious[1, turn]), scale))
    fits = [first, *(_fit(masks, solids, yaw_deg) for solids in truths[1:])]
    draw = max(range(DRAWS), key=lambda k: fits[k][0])
    return Alignment(fits[draw][0], draw, yaw_deg, [fitted_scale for _, fitted_scale in fits])


def _fit(masks: Tensor, solids: list[Solid], yaw_deg: float) -> tuple[float, float]:
    """(IoU, scale) at one yaw, the better of two scales."""
    cameras = silhouette_cameras(-yaw_deg)
    unscaled = _masks(solids, cameras)
    scale = _area_ratio(masks, unscaled)
    scaled = _masks(solids, cameras, scale)
    return max((float(_mean_iou(masks, unscaled)), 1.0), (float(_mean_iou(masks, scaled)), scale))


def _mean_iou(first: Bool[Tensor, "B H W"], second: Bool[Tensor, "B H W"]) -> Float[Tensor, ""]:
    return mask_iou(first, second).float().mean()


def _iou_by_turn(masks: Tensor, all_around: Tensor) -> Float[Tensor, " T"]:
    """Mean IoU with the truth for each turn of the result: its view at azimuth a shows the truth's at a - turn."""
    views = torch.arange(VIEWS) * (TURNS // VIEWS)
    return torch.stack([_mean_iou(masks, all_around[(views - turn) % TURNS]) for turn in range(TURNS)])


def _masks(solids: list[Solid], cameras: Cameras | None = None, scale: float = 1.0) -> Bool[Tensor, "B H W"]:
    """Pixels whose centres the scaled object covers; from all TURNS sides without `cameras`."""
    scaled = [solid.moved(scale, (0.0, 0.0, 0.0)) for solid in solids]
    return render_solids(scaled, cameras or orbit(TURNS, size=SIZE), samples=1)[..., 3] > 0.5


def _area_ratio(masks: Tensor, truth: Tensor) -> float:
    """The scale at which the truth covers as many pixels as the result, within [MIN_SCALE, MAX_SCALE]."""
    ratio = math.sqrt(float(masks.float().mean()) / float(truth.float().mean()))
    return min(max(ratio, MIN_SCALE), MAX_SCALE)


def solid_body(solids: list[Solid], yaw_deg: float = 0.0, scale: float = 1.0) -> Manifold:
    """The union of the solids, rotated about +z (degrees, counter-clockwise from above), scaled about the origin."""
    placed = []
    for solid in solids:
        rotation = solid.rotation() * np.array(solid.size)
        placed.append(_unit(solid).transform(np.column_stack([rotation, solid.center])))
    return Manifold.batch_boolean(placed, OpType.Add).rotate((0.0, 0.0, yaw_deg)).scale((scale, scale, scale))


def _unit(solid: Solid) -> Manifold:
    """The shape in its own frame, of about [-1, 1]^3."""
    if solid.shape == "ball":
        return Manifold.sphere(1.0, SEGMENTS)
    if solid.shape == "box":
        return Manifold.cube((2.0, 2.0, 2.0), True)
    if solid.shape == "ring":
        tube = CrossSection.circle(solid.tube, SEGMENTS // 2).translate((1.0, 0.0))
        return tube.revolve(SEGMENTS)
    if solid.shape in ("frustum", "cup"):
        outside = Manifold.cylinder(2.0, solid.bottom, solid.top, SEGMENTS, True)
        if solid.shape == "frustum":
            return outside
        inner = Manifold.cylinder(2.0, solid.bottom - CUP_WALL, solid.top - CUP_WALL, SEGMENTS, True)
        return outside - inner.translate((0.0, 0.0, CUP_WALL))
    corners = {  # above the base: a tip, or a ridge along y
        "pyramid": [(0, 0, 1)],
        "roof": [(0, -1, 1), (0, 1, 1)],
    }[solid.shape]
    base = [(x, y, -1) for x in (-1, 1) for y in (-1, 1)]
    return Manifold.hull_points(np.array([*base, *corners], dtype=np.float64))


def mesh_body(mesh: Mesh) -> Manifold | None:
    """The mesh as a solid; None if its surface is not closed."""
    body = as_manifold(mesh.vertices, mesh.faces)
    return None if body.is_empty() else body


def chamfer(first: Manifold, second: Manifold) -> float:
    """Chamfer distance, in radii of the first body: (mean_a min_b |a - b| + mean_b min_a |a - b|) / 2.

    Over points drawn uniformly by area. Two samples of the same surface are about 0.006 apart.
    """
    radius = float(np.linalg.norm(triangles_of(first)[0], axis=1).max())  # of the farthest point from the origin
    points = [surface_points(body, TARGETS) for body in (first, second)]
    to_second = cKDTree(points[1]).query(points[0][:QUERIES])[0].mean()
    to_first = cKDTree(points[0]).query(points[1][:QUERIES])[0].mean()
    return float(to_second + to_first) / 2.0 / radius


def normal_error(truth: Manifold, body: Manifold) -> float:
    """Mean angle in degrees between the body's surface and the truth's at its nearest point.

    It sees lumps, which neither volumes nor distances do. 90 where the two have nothing to do with each other.
    """
    places, normals = surface_samples(truth, TARGETS)
    own_places, own_normals = surface_samples(body, QUERIES, seed=1)
    nearest = cKDTree(places).query(own_places)[1]
    cosine = (own_normals * normals[nearest]).sum(axis=1).clip(-1.0, 1.0)
    return float(np.degrees(np.arccos(cosine)).mean())


def surface_points(body: Manifold, count: int, seed: int = 0) -> Float[ndarray, "P 3"]:
    """Points on the surface, uniform by area, in random order."""
    return surface_samples(body, count, seed)[0]


def surface_samples(body: Manifold, count: int, seed: int = 0) -> tuple[Float[ndarray, "P 3"], Float[ndarray, "P 3"]]:
    """Points on the surface, uniform by area, in random order, and the unit normals there."""
    vertices, faces = triangles_of(body)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    areas = np.linalg.norm(normals, axis=1)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(faces), count, p=areas / areas.sum())
    u, v = rng.random((2, count, 1))
    root = np.sqrt(u)  # uniform in a triangle (Osada et al. 2002, section 4.1)
    points = (1.0 - root) * a[chosen] + root * (1.0 - v) * b[chosen] + root * v * c[chosen]
    return points, normals[chosen] / areas[chosen, None]


def pieces(solids: list[Solid]) -> int:
    """Number of separate bodies: 2 for two things side by side."""
    return len(solid_body(solids).decompose())


def shape_scores(mesh: Mesh, truths: list[list[Solid]], yaw_deg: float, scales: list[float]) -> dict[str, float]:
    """The highest `volume_iou`, the lowest `chamfer` and `normal_error` over the aligned draws.

    Empty for a mesh that is not closed.
    """
    body = mesh_body(mesh)
    if body is None:
        return {}
    draws = [solid_body(solids, yaw_deg, scale) for solids, scale in zip(truths, scales, strict=True)]
    return {
        "volume_iou": max(volume_iou(draw, body) for draw in draws),
        "chamfer": min(chamfer(draw, body) for draw in draws),
        "normal_error": min(normal_error(draw, body) for draw in draws),
    }
