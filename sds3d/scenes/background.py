"""What a render is composited over: a solid colour per view, or in training an environment map learned with the scene.

With a single background colour the scene can hide parts of itself by taking on that colour; random colours prevent it.
"""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sds3d.cameras import camera_rays
from sds3d.options import Fraction, Options
from sds3d.types import Cameras, RenderOutput, ViewColors

Color = tuple[Fraction, Fraction, Fraction]
MAP_LEARNING_RATE = 0.01  # of the environment map's colour logits
ROWS = 16  # of the environment map, from up to down; twice as many columns: coarse, so that it holds no object


class SolidBackground(Options):
    """The same colour behind every view."""

    name: Literal["solid"] = "solid"
    color: Annotated[Color, Field(description="sRGB colour")] = (0.5, 0.5, 0.5)

    def sample(self, count: int, generator: torch.Generator) -> ViewColors:
        """`count` copies of the colour; draws nothing from the generator."""
        return torch.tensor(self.color).expand(count, 3).contiguous()


class RandomBackground(Options):
    """A fixed colour for some views, a uniformly drawn one for each of the others."""

    name: Literal["random"] = "random"
    color: Annotated[Color, Field(description="sRGB colour of the views without a drawn one")] = (0.5, 0.5, 0.5)
    random_share: Annotated[Fraction, Field(description="Share of views over a drawn colour")] = 0.5

    def sample(self, count: int, generator: torch.Generator) -> ViewColors:
        """One colour per view; always draws 4 * count numbers, so that later draws do not depend on the outcome."""
        drawn = torch.rand(count, 3, generator=generator)
        is_random = torch.rand(count, 1, generator=generator) < self.random_share
        return torch.where(is_random, drawn, torch.tensor(self.color))


class LearnedBackground(Options):
    """An environment map that is learned with the scene; used in training only, not in pictures and exports.

    For priors that expect surroundings. They are then told no background colour. The views over a drawn colour keep
    the object from becoming a part of the map (Poole et al. 2022, section 3.2).
    """

    name: Literal["learned"] = "learned"
    random_share: Annotated[Fraction, Field(description="Share of views over a drawn colour instead")] = 0.5

    def sample(self, count: int, generator: torch.Generator) -> ViewColors:
        """A drawn colour for each view, used by those that do not show the map."""
        return torch.rand(count, 3, generator=generator)


class EnvironmentMap(nn.Module):
    """Colours by direction, infinitely far away: an equirectangular image, grey at first."""

    def __init__(self, config: LearnedBackground, rows: int = ROWS) -> None:
        super().__init__()
        self.config = config
        self.raw_colors = nn.Parameter(torch.zeros(1, 3, rows, 2 * rows))

    def color(self, directions: Float[Tensor, "R 3"]) -> Float[Tensor, "R 3"]:
        """The map in unit directions, interpolated, without a seam at the back."""
        rows, columns = self.raw_colors.shape[2:]
        wrapped = F.pad(self.raw_colors.sigmoid(), (1, 1, 0, 0), mode="circular")
        x, y, z = directions.unbind(-1)
        across = (1 + torch.atan2(y, x) / math.pi) * rows + 1  # in columns of `wrapped`
        place = torch.stack([2 * across / (columns + 2) - 1, 2 * torch.acos(z.clamp(-1, 1)) / math.pi - 1], dim=-1)
        colors = F.grid_sample(wrapped, place[None, None], padding_mode="border", align_corners=False)
        return colors[0, :, 0].T

    def behind(
        self, out: RenderOutput, cameras: Cameras, colors: ViewColors, generator: torch.Generator
    ) -> Float[Tensor, "B H W 3"]:
        """A render over `colors` with the map put behind it, in all views but a random share of them.

        rgb + (1 - opacity) (map - color), exact because compositing is linear in the background.
        """
        stays = torch.rand(len(cameras), 1, 1, 1, generator=generator) < self.config.random_share
        around = self.color(camera_rays(cameras).directions).view(out.rgb.shape)
        solid = colors[:, None, None]
        return out.rgb + (1 - out.opacity) * (torch.where(stays.to(solid.device), solid, around) - solid)


Background = Annotated[SolidBackground | RandomBackground | LearnedBackground, Field(discriminator="name")]
