"""The noise axis: which eps is added to each view before the prior judges it."""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sds3d.options import Options


class Noise(Options, ABC):
    """A rule for drawing eps."""

    name: str

    @abstractmethod
    def sample(self, count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Float[Tensor, "B C h w"]:
        """eps ~ N(0, I) for each view, on the CPU whatever the device, so that a seed means the same everywhere."""


class Fresh(Noise):
    """New noise for every view and step, as in DreamFusion."""

    name: Literal["fresh"] = "fresh"

    def sample(self, count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Float[Tensor, "B C h w"]:
        """Draws as many numbers as there are elements."""
        return torch.randn(count, *shape, generator=generator)


class Fixed(Noise):
    """One noise image for all views and the whole run, drawn from its own seed: less variance, less variety."""

    name: Literal["fixed"] = "fixed"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def sample(self, count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Float[Tensor, "B C h w"]:
        """The same eps for each view; draws nothing from the run's generator."""
        own = torch.Generator().manual_seed(self.seed)
        return torch.randn(1, *shape, generator=own).repeat(count, 1, 1, 1)


NOISE: dict[str, type[Noise]] = {"fresh": Fresh, "fixed": Fixed}
