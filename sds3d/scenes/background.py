"""What a render is composited over: one solid colour per view, or in training a map that is learned with the scene.

A fixed background invites the scene to paint itself in that colour and hide; random ones in training prevent it.
"""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sds3d.options import Fraction, Options
from sds3d.scenes.rays import camera_rays
from sds3d.types import Cameras, RenderOutput

Color = tuple[Fraction, Fraction, Fraction]


class SolidBackground(Options):
    """The same colour behind every view."""

    name: Literal["solid"] = "solid"
    color: Annotated[Color, Field(description="sRGB colour")] = (0.5, 0.5, 0.5)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "B 3"]:
        """`count` copies of the colour; draws nothing from the generator."""
        return torch.tensor(self.color).expand(count, 3).contiguous()


class RandomBackground(Options):
    """A fixed colour for some views, a uniformly drawn one for the others."""

    name: Literal["random"] = "random"
    color: Annotated[Color, Field(description="sRGB colour of the views that are not drawn")] = (0.5, 0.5, 0.5)
    random_share: Annotated[Fraction, Field(description="Share of views over a drawn colour")] = 0.5

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "B 3"]:
        """One colour per view. Always draws 4 * count numbers, so that the stream does not depend on the outcome."""
        drawn = torch.rand(count, 3, generator=generator)
        is_random = torch.rand(count, 1, generator=generator) < self.random_share
        return torch.where(is_random, drawn, torch.tensor(self.color))


class LearnedBackground(Options):
    """Surroundings that are learned with the scene; in training only, pictures and exports have none of them.

    For priors that want a place around the object. The prior is told no background colour then, and the views of a
    drawn colour keep the object from becoming a part of the environment_map (DreamFusion, section 3.2).
    """

    name: Literal["learned"] = "learned"
    random_share: Annotated[Fraction, Field(description="Share of views over a drawn colour instead")] = 0.5
    rows: Annotated[int, Field(ge=2, le=512, description="Rows of the map from up to down; twice the columns")] = 16
    lr: Annotated[Fraction, Field(description="Learning rate of the colour logits")] = 0.01

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "B 3"]:
        """A drawn colour for each view: what is behind those that do not show the map."""
        return torch.rand(count, 3, generator=generator)


class EnvironmentMap(nn.Module):
    """Colours by direction, infinitely far away: an equirectangular image, grey at first."""

    def __init__(self, config: LearnedBackground) -> None:
        super().__init__()
        self.config = config
        self.raw_colors = nn.Parameter(torch.zeros(1, 3, config.rows, 2 * config.rows))

    def color(self, directions: Float[Tensor, "R 3"]) -> Float[Tensor, "R 3"]:
        """The map in unit directions, interpolated, without a seam at the back."""
        columns = 2 * self.config.rows
        wrapped = F.pad(self.raw_colors.sigmoid(), (1, 1, 0, 0), mode="circular")
        x, y, z = directions.unbind(-1)
        across = (1 + torch.atan2(y, x) / math.pi) * self.config.rows + 1  # in columns of `wrapped`
        place = torch.stack([2 * across / (columns + 2) - 1, 2 * torch.acos(z.clamp(-1, 1)) / math.pi - 1], dim=-1)
        found = F.grid_sample(wrapped, place[None, None], padding_mode="border", align_corners=False)
        return found[0, :, 0].T

    def behind(
        self, out: RenderOutput, cameras: Cameras, colors: Float[Tensor, "B 3"], generator: torch.Generator
    ) -> Float[Tensor, "B H W 3"]:
        """The colours of a render over `colors`, with the map instead behind all views but the drawn share.

        rgb + (1 - opacity) (map - color), exact because compositing is linear in what is behind.
        """
        stays = torch.rand(len(cameras), 1, 1, 1, generator=generator) < self.config.random_share
        around = self.color(camera_rays(cameras).directions).view(out.rgb.shape)
        solid = colors[:, None, None]
        return out.rgb + (1 - out.opacity) * (torch.where(stays.to(solid.device), solid, around) - solid)


Background = Annotated[SolidBackground | RandomBackground | LearnedBackground, Field(discriminator="name")]
