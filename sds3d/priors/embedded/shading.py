"""Patterns and materials of surfaces: colour as a function of the point and the normal, under a fixed light.

Nothing depends on the camera, so views of one object agree and a scene without reflections can show it. Highlights of
metal and gloss are painted onto the surface.
"""

import math
from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.types import Material

# The light is fixed in the world, so that shading belongs to the object.
LIGHT = (0.55, 0.35, 0.76)
AMBIENT, DIFFUSE = 0.70, 0.34
STRIPE, CHECK = 0.25, 1.0 / 3.0  # widths in world units of the fitted object: about 7 and 10 pixels of 64
DOTS, DOT_RADIUS = 26, 0.25  # over all directions; radius in radians
GRAIN = 40.0  # radians per world unit across the wood
GLOSS, SHINE = 48, 24  # exponents of the highlights of gloss and of metal: the smaller, the wider
# As in the pictures: rough without a highlight, else with a lobe as wide as theirs, alpha^2 = 2 / (exponent + 2).
LOOKS = {
    "matte": Material(1.0, 0.0),
    "wooden": Material(1.0, 0.0),
    "glossy": Material(round((2 / (GLOSS + 2)) ** 0.25, 2), 0.0),
    "metal": Material(round((2 / (SHINE + 2)) ** 0.25, 2), 1.0),
}


@dataclass(frozen=True)
class Surface:
    """Pattern and material of an object's main parts. `center` is the object's; stripes alternate along `axis`."""

    pattern: str
    second: tuple[float, float, float]  # the pattern's other colour, sRGB
    material: str
    axis: int
    center: tuple[float, float, float]

    def moved(self, scale: float, shift: tuple[float, float, float]) -> "Surface":
        x, y, z = (scale * c + s for c, s in zip(self.center, shift, strict=True))
        return replace(self, center=(x, y, z))


def painted(
    color: tuple[float, float, float],
    surface: Surface | None,
    points: Float[Tensor, "P 3"],
    normals: Float[Tensor, "P 3"],
) -> Float[Tensor, "P 3"]:
    """Shaded colours of surface points, sRGB in [0, 1]."""
    albedo = torch.tensor(color).to(points).expand_as(points)
    light = torch.tensor(LIGHT).to(normals)
    facing = (normals @ (light / light.norm())).clamp_min(0.0)[:, None]
    lit = AMBIENT + DIFFUSE * facing
    if surface is None:
        return (albedo * lit).clamp(0, 1)
    offset = points - torch.tensor(surface.center).to(points)
    if surface.pattern != "plain":
        other = torch.tensor(surface.second).to(points)
        albedo = torch.where(_is_second(surface, offset)[:, None], other, albedo)
    return _shaded(surface.material, albedo, offset, normals, facing, lit).clamp(0, 1)


def _is_second(surface: Surface, offset: Tensor) -> Tensor:
    """Points at which the pattern shows its second colour."""
    if surface.pattern == "striped":
        return (offset[:, surface.axis] / STRIPE + 0.5).floor().long() % 2 == 1
    if surface.pattern == "checkered":
        return (offset / CHECK).floor().long().sum(1) % 2 == 1
    if surface.pattern == "dotted":
        directions = torch.nn.functional.normalize(offset, dim=-1)
        return (directions @ _dot_directions().to(offset).T).amax(1) > math.cos(DOT_RADIUS)
    if surface.pattern == "two-tone":
        return offset[:, 2] < 0.0
    raise ValueError(f"no pattern is called {surface.pattern!r}")


@cache
def _dot_directions() -> Tensor:
    """Evenly spread directions (a Fibonacci sphere)."""
    index = torch.arange(DOTS) + 0.5
    z = 1.0 - 2.0 * index / DOTS
    turn = math.pi * (1.0 + math.sqrt(5.0)) * index
    flat = (1.0 - z * z).sqrt()
    return torch.stack([flat * turn.cos(), flat * turn.sin(), z], dim=-1)


def _shaded(material: str, albedo: Tensor, offset: Tensor, normals: Tensor, facing: Tensor, lit: Tensor) -> Tensor:
    if material == "matte":
        return albedo * lit
    if material == "glossy":  # a soft sheen and a hard spot
        return albedo * lit * 0.94 + 0.16 * facing.pow(4) + 0.75 * facing.pow(GLOSS)
    if material == "metal":  # sky above, horizon, ground below
        bands = 0.5 + 0.5 * torch.sin(7.0 * normals[:, 2:] + 2.5 * normals[:, 1:2] + 1.2)
        return albedo * (0.42 + 0.62 * bands) + 0.22 * bands.pow(3) + 0.35 * facing.pow(SHINE)
    if material == "wooden":
        rings = torch.hypot(offset[:, 1] + 0.23, 0.35 * offset[:, 2]) + 0.3 * offset[:, 0]
        grain = 0.5 + 0.5 * torch.sin(GRAIN * rings + 2.0 * torch.sin(5.0 * offset[:, 2]))
        brown = torch.tensor((0.45, 0.27, 0.13)).to(albedo)
        return (0.8 * albedo + 0.2 * brown) * (0.62 + 0.38 * grain[:, None]) * lit
    raise ValueError(f"no material is called {material!r}")
