"""What a render is composited over: one solid colour per view.

A fixed background invites the scene to paint itself in that colour and hide; random ones in training prevent it.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sds3d.options import Fraction, Options

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


Background = Annotated[SolidBackground | RandomBackground, Field(discriminator="name")]
