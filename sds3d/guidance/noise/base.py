"""The interface of a kind of noise."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sds3d.guidance.base import State
from sds3d.options import Options
from sds3d.types import Cameras, RenderOutput


@dataclass(frozen=True)
class NoiseRequest:
    """A request for one eps of `shape` (C, h, w) for each view of a render."""

    cameras: Cameras
    out: RenderOutput  # for noise attached to the surface
    shape: tuple[int, int, int]
    generator: torch.Generator  # on the CPU whatever the device, so that a seed means the same everywhere
    progress: float = 0.0  # fraction of the run that is done

    @property
    def particle(self) -> Int[Tensor, "B"]:
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
    def sample(self, request: NoiseRequest, state: State) -> Float[Tensor, "B C h w"]:
        """eps ~ N(0, I) for each view, on any device; `state` is what `init` returned."""
