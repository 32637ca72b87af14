"""Light on the scene in training, so that what only looks like a shape in its colours is found out (Poole et al. 2022).

lambertian:   color (ambient + (1 - ambient) max(0, n . l))      textureless: the same with a white colour
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sds3d.options import Fraction, Options
from sds3d.types import Cameras

Mode = Literal["lambertian", "textureless"]


class ShadingConfig(Options):
    """DreamFusion's schedule: colours alone at first, then one of three kinds of shading in each step."""

    begin_at: Annotated[Fraction, Field(description="Part of the run with colours alone")] = 0.1
    albedo_share: Annotated[Fraction, Field(description="Share of the later steps without light")] = 0.25
    textureless_share: Annotated[Fraction, Field(description="Share of the lit steps that are white")] = 0.5
    ambient: Annotated[Fraction, Field(description="Light that comes from everywhere")] = 0.1
    distance: Annotated[float, Field(gt=1, description="Of the lamp from the origin, world units")] = 3.0


@dataclass(frozen=True)
class Light:
    """How one step is lit: one lamp for each view, one mode for all."""

    mode: Mode
    ambient: float
    positions: Float[Tensor, "B 3"]

    def shade(
        self,
        colors: Float[Tensor, "S 3"],
        normals: Float[Tensor, "S 3"],
        points: Float[Tensor, "S 3"],
        views: Int[Tensor, "S"],
    ) -> Float[Tensor, "S 3"]:
        """What the samples look like in this light."""
        towards = F.normalize(self.positions[views] - points, dim=-1)
        facing = (normals * towards).sum(dim=-1, keepdim=True).clamp_min(0)
        lit = self.ambient + (1 - self.ambient) * facing
        return lit.expand_as(colors) if self.mode == "textureless" else lit * colors


def draw_light(config: ShadingConfig, cameras: Cameras, progress: float, generator: torch.Generator) -> Light | None:
    """The light of a step; None for colours alone.

    The lamp's direction is the camera's plus N(0, I), so that mostly the side that is seen is lit. Draws as many
    numbers whatever comes out.
    """
    lit, white = torch.rand(2, generator=generator).tolist()
    drawn = torch.randn(len(cameras), 3, generator=generator)
    if progress < config.begin_at or lit < config.albedo_share:
        return None
    places = cameras.camera_to_world[:, :3, 3]
    directions = F.normalize(F.normalize(places, dim=-1) + drawn.to(places), dim=-1)
    mode: Mode = "textureless" if white < config.textureless_share else "lambertian"
    return Light(mode, config.ambient, config.distance * directions)
