"""The interface of a kind of noise, and the kinds in image space, which are independent of the scene."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Generic, Literal, cast

import torch
from jaxtyping import Int
from pydantic import Field
from torch import Tensor

from sds3d.guidance.base import State
from sds3d.options import Options
from sds3d.types import Cameras, Latents, RenderOutput


@dataclass(frozen=True)
class NoiseRequest:
    """A request for one eps of `shape` (C, h, w) for each view of a render."""

    cameras: Cameras
    out: RenderOutput  # for noise attached to the surface
    shape: tuple[int, int, int]
    generator: torch.Generator  # on the CPU whatever the device, so that a seed means the same everywhere

    @property
    def particle(self) -> Int[Tensor, " B"]:
        """The particle that each view shows, from 0. Noise that lasts must differ between particles."""
        only = torch.zeros(len(self.cameras), dtype=torch.long, device=self.out.depth.device)
        return only if self.out.particle is None else self.out.particle


class Noise(Options, ABC, Generic[State]):
    """A rule for sampling eps; `State` is the noise that lasts over steps, or None."""

    name: str

    def init(self, shape: tuple[int, int, int], generator: torch.Generator, particles: int = 1) -> State:
        """The state of a new run, an nn.Module that is checkpointed; None by default."""
        return cast(State, None)

    @abstractmethod
    def sample(self, request: NoiseRequest, state: State) -> Latents:
        """eps ~ N(0, I) for each view, on any device; `state` is what `init` returned."""


class Fresh(Noise[None]):
    """New noise for every view and step, as in DreamFusion."""

    name: Literal["fresh"] = "fresh"

    def sample(self, request: NoiseRequest, state: None) -> Latents:
        """Draws one number per element."""
        return torch.randn(len(request.cameras), *request.shape, generator=request.generator)


class Fixed(Noise[None]):
    """One noise image for all views and the whole run, each particle its own.

    Pitfall: less variance between steps, but also less variety between runs, because the seed is not the run's.
    """

    name: Literal["fixed"] = "fixed"
    seed: Annotated[int, Field(ge=0, lt=2**63, description="seed of the noise image")] = 0

    def sample(self, request: NoiseRequest, state: None) -> Latents:
        """The same eps for each view of a particle; draws nothing from the run's generator."""
        own, particle = torch.Generator().manual_seed(self.seed), request.particle.cpu()
        return torch.randn(int(particle.max()) + 1, *request.shape, generator=own)[particle]
