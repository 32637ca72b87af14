"""Seven ray-traced shapes, of which all procedural objects are made; all but the ring are intersected in closed form.

Each shape fills about [-1, 1]^3 in its local frame; a `Solid` places it by half sizes, rotation and centre. Rays are
transformed to the local frame without normalising their direction, so the ray parameter is the same in both frames and
hits of different solids compare directly.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from sds3d.priors.embedded.shading import Surface

Shape = Literal["ball", "box", "frustum", "cup", "ring", "pyramid", "roof"]
NEVER = math.inf
_TINY = 1e-9

# Normals n of the half-spaces n.p <= 1 of the convex shapes other than the box. The pyramid has its base at z = -1 and
# its tip at z = +1; the roof is a prism whose ridge runs along y.
_HALF_SPACES = {
    "pyramid": [(2, 0, 1), (-2, 0, 1), (0, 2, 1), (0, -2, 1), (0, 0, -1)],
    "roof": [(2, 0, 1), (-2, 0, 1), (0, 1, 0), (0, -1, 0), (0, 0, -1)],
}
_BASE = [(x, y, -1) for x in (-1, 1) for y in (-1, 1)]
_CORNERS = {
    "box": [*_BASE, *((x, y, 1) for x, y, _ in _BASE)],
    "pyramid": [*_BASE, (0, 0, 1)],
    "roof": [*_BASE, (0, -1, 1), (0, 1, 1)],
}


@dataclass(frozen=True)
class Solid:
    """One shape, placed in the world. Sizes are half extents in world units; `yaw, pitch, roll` turn it (radians)."""

    shape: Shape
    center: tuple[float, float, float]
    size: tuple[float, float, float]
    color: tuple[float, float, float]  # sRGB, [0, 1]
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    bottom: float = 1.0  # frustum and cup: radius at z = -1, in units of size
    top: float = 1.0  # frustum and cup: radius at z = +1
    tube: float = 0.3  # ring: tube radius over ring radius
    surface: Surface | None = None  # pattern and material; None: plain and matte

    def rotation(self) -> Float[ndarray, "3 3"]:
        """local_to_world = Rz(yaw) Ry(pitch) Rx(roll)."""
        cz, sz = math.cos(self.yaw), math.sin(self.yaw)
        cy, sy = math.cos(self.pitch), math.sin(self.pitch)
        cx, sx = math.cos(self.roll), math.sin(self.roll)
        x = (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx)
        y = (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx)
        return np.array((x, y, (-sy, cy * sx, cy * cx)))

    def moved(self, scale: float, shift: tuple[float, float, float]) -> "Solid":
        """The solid after p -> scale p + shift."""
        x, y, z = (scale * c + s for c, s in zip(self.center, shift, strict=True))
        a, b, c = (scale * s for s in self.size)
        surface = None if self.surface is None else self.surface.moved(scale, shift)
        return replace(self, center=(x, y, z), size=(a, b, c), surface=surface)

    def outline(self) -> Float[ndarray, "3 K"]:
        """World points (their x, y and z) whose convex hull is the solid's; of round shapes to within 2%."""
        local = _local_outline(self.shape, self.bottom, self.top, self.tube)
        return (self.rotation() * self.size) @ local + np.array(self.center)[:, None]


@lru_cache(maxsize=1000)  # most shapes have one; building an object asks several times for that of each solid
def _local_outline(shape: Shape, bottom: float, top: float, tube: float) -> Float[ndarray, "3 K"]:
    if shape in _CORNERS:
        return np.array(_CORNERS[shape], dtype=float).T.copy()
    if shape == "ball":
        rings = [(math.cos(e), math.sin(e)) for e in np.linspace(-math.pi / 2, math.pi / 2, 13)]
    elif shape == "ring":
        turns = [k * math.pi / 4 for k in range(-2, 3)]
        rings = [(1.0 + tube * math.cos(e), tube * math.sin(e)) for e in turns]
    else:
        rings = [(bottom, -1.0), (top, 1.0)]
    angles = [2 * math.pi * k / 24 for k in range(24)]
    return np.array([(r * math.cos(angle), r * math.sin(angle), z) for r, z in rings for angle in angles]).T.copy()


def box(solids: list[Solid]) -> tuple[Float[ndarray, "3"], Float[ndarray, "3"]]:
    """The lowest and the highest corner of their common bounding box."""
    points = np.concatenate([solid.outline() for solid in solids], axis=1)
    return points.min(1), points.max(1)


def fit(solids: list[Solid], radius: float) -> list[Solid]:
    """The same object, its bounding box centred on the origin and its farthest point at `radius`."""
    x, y, z, reach = frame(solids)
    scale = radius / reach
    return [solid.moved(scale, (-scale * x, -scale * y, -scale * z)) for solid in solids]


def frame(solids: list[Solid]) -> tuple[float, float, float, float]:
    """The centre of the bounding box (x, y, z), and the distance of the farthest point from it."""
    points = np.concatenate([solid.outline() for solid in solids], axis=1)
    x, y, z = center = (points.min(1) + points.max(1)) / 2.0
    away = points - center[:, None]
    return float(x), float(y), float(z), math.sqrt((away * away).sum(0).max())


def intersect(
    solid: Solid, rays_o: Float[Tensor, "R 3"], rays_d: Float[Tensor, "R 3"]
) -> tuple[Float[Tensor, " R"], Float[Tensor, "R 3"]]:
    """First hit of each ray with the solid: distance along rays_d (inf for a miss) and the outward world normal.

    The inner wall of a cup reports the normal that faces the ray.
    """
    rotation = torch.tensor(solid.rotation()).to(rays_o)
    size = torch.tensor(solid.size).to(rays_o)
    o = ((rays_o - torch.tensor(solid.center).to(rays_o)) @ rotation) / size
    d = (rays_d @ rotation) / size
    if solid.shape == "ball":
        distance, normal = _ball(o, d)
    elif solid.shape == "box":
        distance, normal = _box(o, d)
    elif solid.shape in ("frustum", "cup"):
        distance, normal = _frustum(o, d, solid.bottom, solid.top, open_top=solid.shape == "cup")
    elif solid.shape == "ring":
        distance, normal = _ring(o, d, solid.tube)
    else:
        distance, normal = _convex(o, d, _HALF_SPACES[solid.shape])
    world = (normal / size) @ rotation.T
    return distance, world / world.norm(dim=-1, keepdim=True).clamp_min(_TINY)


def _ball(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1.0
    root = b * b - a * c
    distance = (-b - root.clamp_min(0).sqrt()) / a
    distance = torch.where((root > 0) & (distance > 0), distance, NEVER)
    return distance, o + d * torch.where(distance.isfinite(), distance, 0.0)[:, None]


def _box(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    inverse = 1.0 / torch.where(d.abs() < _TINY, _TINY, d)
    near_planes = torch.minimum((-1.0 - o) * inverse, (1.0 - o) * inverse)
    far_planes = torch.maximum((-1.0 - o) * inverse, (1.0 - o) * inverse)
    enter, axis = near_planes.max(-1)
    hit = (enter < far_planes.amin(-1)) & (enter > 0)
    normal = torch.zeros_like(d).scatter_(1, axis[:, None], -d.gather(1, axis[:, None]).sign())
    return torch.where(hit, enter, NEVER), normal


def _convex(o: Tensor, d: Tensor, normals: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
    n = torch.tensor(normals).to(o)
    slope = d @ n.T
    distance = (1.0 - o @ n.T) / torch.where(slope.abs() < _TINY, _TINY, slope)
    enter, plane = torch.where(slope < 0, distance, -NEVER).max(-1)
    leave = torch.where(slope >= 0, distance, NEVER).amin(-1)
    return torch.where((enter < leave) & (enter > 0), enter, NEVER), n[plane]


def _frustum(o: Tensor, d: Tensor, bottom: float, top: float, open_top: bool) -> tuple[Tensor, Tensor]:
    """x^2 + y^2 = (middle + slope z)^2 between z = -1 and z = +1, with its caps; a cup lacks the upper one."""
    middle, slope = (bottom + top) / 2.0, (top - bottom) / 2.0
    radius_o, radius_d = middle + slope * o[:, 2], slope * d[:, 2]
    a = d[:, 0] ** 2 + d[:, 1] ** 2 - radius_d**2
    b = o[:, 0] * d[:, 0] + o[:, 1] * d[:, 1] - radius_o * radius_d
    c = o[:, 0] ** 2 + o[:, 1] ** 2 - radius_o**2
    a = torch.where(a.abs() < _TINY, _TINY, a)
    root = b * b - a * c
    spread = root.clamp_min(0).sqrt()
    best = torch.full_like(a, NEVER)
    normal = torch.zeros_like(d)
    for distance in ((-b - spread) / a, (-b + spread) / a):
        p = o + d * distance[:, None]
        wall = (root > 0) & (distance > 0) & (p[:, 2].abs() <= 1.0) & (middle + slope * p[:, 2] > 0)
        closer = wall & (distance < best)
        outward = torch.stack([p[:, 0], p[:, 1], -slope * (middle + slope * p[:, 2])], dim=-1)
        best, normal = torch.where(closer, distance, best), torch.where(closer[:, None], outward, normal)
    for z, radius in ((-1.0, bottom),) if open_top else ((-1.0, bottom), (1.0, top)):
        distance = (z - o[:, 2]) / torch.where(d[:, 2].abs() < _TINY, _TINY, d[:, 2])
        p = o + d * distance[:, None]
        closer = (distance > 0) & (p[:, 0] ** 2 + p[:, 1] ** 2 <= radius**2) & (distance < best)
        cap = torch.zeros_like(d)
        cap[:, 2] = z
        best, normal = torch.where(closer, distance, best), torch.where(closer[:, None], cap, normal)
    if open_top:  # a thin wall is seen from both sides
        normal = torch.where((normal * d).sum(-1, keepdim=True) > 0, -normal, normal)
    return best, normal


def _ring(o: Tensor, d: Tensor, tube: float, steps: int = 40) -> tuple[Tensor, Tensor]:
    """Sphere tracing of the torus' exact distance; only rays that pass the bounding ball are traced."""
    length = d.norm(dim=-1)
    direction = d / length[:, None]
    b, c = (o * direction).sum(-1), (o * o).sum(-1) - (1.0 + tube) ** 2
    root = b * b - c
    near, far = -b - root.clamp_min(0).sqrt(), -b + root.clamp_min(0).sqrt()
    rows = ((root > 0) & (near > 0)).nonzero().squeeze(1)
    origin, direction, far = o[rows], direction[rows], far[rows]
    along = near[rows]
    for _ in range(steps):
        along = along + _torus_distance(origin + direction * along[:, None], tube)
    p = origin + direction * along[:, None]
    hit = (_torus_distance(p, tube) < 1e-2) & (along < far)
    distance = torch.full_like(length, NEVER)
    distance[rows] = torch.where(hit, along / length[rows], NEVER)
    flat = p[:, :2] / p[:, :2].norm(dim=-1, keepdim=True).clamp_min(_TINY)
    normal = torch.zeros_like(o)
    normal[rows] = torch.cat([p[:, :2] - flat, p[:, 2:]], dim=-1)
    return distance, normal


def _torus_distance(p: Tensor, tube: float) -> Tensor:
    return torch.hypot(p[:, :2].norm(dim=-1) - 1.0, p[:, 2]) - tube
