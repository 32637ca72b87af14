"""The noise axis: which eps is added to each view before the prior judges it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from sds3d.options import Options
from sds3d.types import Cameras, RenderOutput


@dataclass(frozen=True)
class Draw:
    """What noise is asked for: one eps of `shape` (C, h, w) for each view of a render."""

    cameras: Cameras
    out: RenderOutput  # for noise that sticks to the surface
    shape: tuple[int, int, int]
    generator: torch.Generator  # on the CPU whatever the device, so that a seed means the same everywhere
    progress: float = 0.0  # the part of the run that is done


class Noise(Options, ABC):
    """A rule for drawing eps."""

    name: str

    def init(self, shape: tuple[int, int, int], generator: torch.Generator) -> nn.Module | None:
        """Noise that lasts over steps, as buffers of a module that is checkpointed; None where there is none."""
        return None

    @abstractmethod
    def sample(self, draw: Draw, state: Any) -> Float[Tensor, "B C h w"]:
        """eps ~ N(0, I) for each view, on any device; `state` is what `init` returned."""


class Fresh(Noise):
    """New noise for every view and step, as in DreamFusion."""

    name: Literal["fresh"] = "fresh"

    def sample(self, draw: Draw, state: Any) -> Float[Tensor, "B C h w"]:
        """Draws as many numbers as there are elements."""
        return torch.randn(len(draw.cameras), *draw.shape, generator=draw.generator)


class Fixed(Noise):
    """One noise image for all views and the whole run, drawn from its own seed: less variance, less variety."""

    name: Literal["fixed"] = "fixed"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def sample(self, draw: Draw, state: Any) -> Float[Tensor, "B C h w"]:
        """The same eps for each view; draws nothing from the run's generator."""
        own = torch.Generator().manual_seed(self.seed)
        return torch.randn(1, *draw.shape, generator=own).repeat(len(draw.cameras), 1, 1, 1)


NOISE: dict[str, type[Noise]] = {"fresh": Fresh, "fixed": Fixed}
