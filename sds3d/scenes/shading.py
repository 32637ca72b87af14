"""Random light in training: shapes that exist only in the colours look wrong under it (Poole et al. 2022, section 3.2).

lambertian:   color (ambient + (1 - ambient) max(0, n . l))      textureless: the same with a white colour
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from sds3d.options import Fraction, Options
from sds3d.types import Cameras

AMBIENT = 0.1  # share of the light that comes from everywhere (DreamFusion: 0.1)
LAMP_DISTANCE = 3.0  # world units from the origin, about that of the cameras


class ShadingConfig(Options):
    """DreamFusion's schedule: colours alone at first, then one of three kinds of shading in each step."""

    begin_at: Annotated[Fraction, Field(description="Part of the run with colours alone")] = 0.1
    albedo_share: Annotated[Fraction, Field(description="Share of the later steps without light")] = 0.25
    textureless_share: Annotated[Fraction, Field(description="Share of the lit steps in which the object is white")] = (
        0.5
    )


class Sun(Options):
    """A light fixed in the world, as in the pictures that a prior was trained on:  ambient + diffuse max(0, n . l)."""

    direction: Annotated[tuple[float, float, float], Field(description="Towards the light; +x is the front, +z up")]
    ambient: Annotated[Fraction, Field(description="Light from everywhere")]
    diffuse: Annotated[Fraction, Field(description="Light on a surface that faces it")]

    @field_validator("direction")
    @classmethod
    def _points_somewhere(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if math.hypot(*value) < 1e-6:
            raise ValueError("it must not be 0")
        return value

    def on(self, normals: Float[Tensor, "S 3"]) -> Float[Tensor, " S"]:
        """The light on surfaces of these unit normals."""
        towards = F.normalize(normals.new_tensor(self.direction), dim=0)
        return self.ambient + self.diffuse * (normals @ towards).clamp_min(0)


@dataclass(frozen=True)
class Light:
    """The light of one step: one lamp per view, one mode for all views."""

    mode: Literal["lambertian", "textureless"]
    positions: Float[Tensor, "B 3"]

    def shade(
        self,
        colors: Float[Tensor, "S 3"],
        normals: Float[Tensor, "S 3"],
        points: Float[Tensor, "S 3"],
        views: Int[Tensor, " S"],
    ) -> Float[Tensor, "S 3"]:
        """The colours of samples at `points` under the lamps of their `views`; `normals` have unit length."""
        towards = F.normalize(self.positions[views] - points, dim=-1)
        facing = (normals * towards).sum(dim=-1, keepdim=True).clamp_min(0)
        lit = AMBIENT + (1 - AMBIENT) * facing
        return lit.expand_as(colors) if self.mode == "textureless" else lit * colors


def draw_light(config: ShadingConfig, cameras: Cameras, progress: float, generator: torch.Generator) -> Light | None:
    """The light of a step; None for colours alone.

    The lamp's direction is the camera's plus N(0, I), so that mostly the visible side is lit. Draws the same amount of
    random numbers whatever the outcome.
    """
    lit, white = torch.rand(2, generator=generator).tolist()
    drawn = torch.randn(len(cameras), 3, generator=generator)
    if progress < config.begin_at or lit < config.albedo_share:
        return None
    positions = cameras.camera_to_world[:, :3, 3]
    directions = F.normalize(F.normalize(positions, dim=-1) + drawn.to(positions), dim=-1)
    return Light("textureless" if white < config.textureless_share else "lambertian", LAMP_DISTANCE * directions)
