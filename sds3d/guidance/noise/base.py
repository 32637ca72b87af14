"""What every kind of noise is made of."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sds3d.options import Options
from sds3d.types import Cameras, RenderOutput


@dataclass(frozen=True)
class NoiseRequest:
    """What noise is asked for: one eps of `shape` (C, h, w) for each view of a render."""

    cameras: Cameras
    out: RenderOutput  # for noise that sticks to the surface
    shape: tuple[int, int, int]
    generator: torch.Generator  # on the CPU whatever the device, so that a seed means the same everywhere
    progress: float = 0.0  # the part of the run that is done

    @property
    def particle(self) -> Int[Tensor, "B"]:
        """Which of the run's scenes each view shows, from 0. Noise that lasts must not be the same for two of them."""
        only = torch.zeros(len(self.cameras), dtype=torch.long, device=self.out.depth.device)
        return only if self.out.particle is None else self.out.particle


class Noise(Options, ABC):
    """A rule for drawing eps."""

    name: str

    def init(self, shape: tuple[int, int, int], generator: torch.Generator, particles: int = 1) -> nn.Module | None:
        """Noise that lasts over steps, as buffers of a module that is checkpointed; None where there is none."""
        return None

    @abstractmethod
    def sample(self, request: NoiseRequest, state: Any) -> Float[Tensor, "B C h w"]:
        """eps ~ N(0, I) for each view, on any device; `state` is what `init` returned."""
