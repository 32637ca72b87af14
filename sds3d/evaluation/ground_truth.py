"""The true object as a solid body, and how a mesh compares with its volume and surface.

A prompt leaves the proportions open, so the truth is DRAWS objects, and a score is that of the best one.
"""

from random import Random

import manifold3d
import numpy as np
from jaxtyping import Float, Int
from manifold3d import CrossSection, Manifold, OpType
from numpy import ndarray
from scipy.spatial import cKDTree

from sds3d.export import Mesh
from sds3d.metrics.mesh import volume_iou
from sds3d.priors.embedded.captions import Description, build
from sds3d.priors.embedded.solids import Solid

DRAWS = 8
SEGMENTS = 64  # around a circle, whose area is 0.2% too small
CUP_WALL = 0.12  # of the radius; the rendered wall has no thickness, which no closed mesh can have
QUERIES, TARGETS = 4_000, 40_000  # points whose distance is measured, and points that represent the other surface


def draw_truths(description: Description) -> list[list[Solid]]:
    """DRAWS true objects of different proportions; the same for each call."""
    return [build(description, Random(number)) for number in range(DRAWS)]


def solid_body(solids: list[Solid], yaw_deg: float = 0.0, scale: float = 1.0) -> Manifold:
    """The union of the solids, rotated about +z (degrees, counter-clockwise from above), scaled about the origin."""
    whole = Manifold.batch_boolean([_placed(solid) for solid in solids], OpType.Add)
    return whole.rotate((0.0, 0.0, yaw_deg)).scale((scale, scale, scale))


def _placed(solid: Solid) -> Manifold:
    affine = np.zeros((3, 4))
    affine[:, :3] = solid.rotation().double().numpy() * np.array(solid.size)
    affine[:, 3] = solid.center
    return _unit(solid).transform(affine)


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
    if len(mesh.faces) == 0:
        return None
    arrays = (np.ascontiguousarray(mesh.vertices, np.float32), np.ascontiguousarray(mesh.faces, np.uint32))
    body = Manifold(manifold3d.Mesh(*arrays))
    return None if body.is_empty() else body


def chamfer(first: Manifold, second: Manifold) -> float:
    """Chamfer distance, in radii of the first body: (mean_a min_b |a - b| + mean_b min_a |a - b|) / 2.

    Over points drawn uniformly by area. Two samples of the same surface are about 0.006 apart.
    """
    points = [surface_points(body, TARGETS) for body in (first, second)]
    to_second = cKDTree(points[1]).query(points[0][:QUERIES])[0].mean()
    to_first = cKDTree(points[0]).query(points[1][:QUERIES])[0].mean()
    return float(to_second + to_first) / 2.0 / body_radius(first)


def body_radius(body: Manifold) -> float:
    """Distance of the farthest point from the origin."""
    return float(np.linalg.norm(_triangles(body)[0], axis=1).max())


def surface_points(body: Manifold, count: int, seed: int = 0) -> Float[ndarray, "P 3"]:
    """Points on the surface, uniform by area, in random order."""
    vertices, faces = _triangles(body)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(faces), count, p=areas / areas.sum())
    u, v = rng.random((2, count, 1))
    root = np.sqrt(u)  # uniform in a triangle (Osada et al. 2002, section 4.1)
    return (1.0 - root) * a[chosen] + root * (1.0 - v) * b[chosen] + root * v * c[chosen]


def _triangles(body: Manifold) -> tuple[Float[ndarray, "V 3"], Int[ndarray, "F 3"]]:
    mesh = body.to_mesh()
    return mesh.vert_properties[:, :3].astype(np.float64), mesh.tri_verts.astype(np.int64)


def pieces(solids: list[Solid]) -> int:
    """Number of separate bodies: 2 for two things side by side."""
    return len(solid_body(solids).decompose())


def shape_scores(mesh: Mesh, truths: list[list[Solid]], yaw_deg: float, scales: list[float]) -> dict[str, float]:
    """The highest `volume_iou` and the lowest `chamfer` over the aligned draws; empty for a mesh that is not closed."""
    body = mesh_body(mesh)
    if body is None:
        return {}
    draws = [solid_body(solids, yaw_deg, scale) for solids, scale in zip(truths, scales, strict=True)]
    return {
        "volume_iou": max(volume_iou(draw, body) for draw in draws),
        "chamfer": min(chamfer(draw, body) for draw in draws),
    }
