"""Random times, drawn for each view independently."""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sds3d.guidance.base import bounded
from sds3d.guidance.timesteps.base import MinTime, TimeRange, Timesteps
from sds3d.options import Schedule, ordered


class Uniform(TimeRange):
    """t ~ U(t_min, t_max), independently for each view."""

    name: Literal["uniform"] = "uniform"

    def sample(self, progress: float, count: int, generator: torch.Generator) -> Float[Tensor, "B"]:
        """Draws one number per view; the same distribution over the whole run."""
        return self.t_min + (self.t_max - self.t_min) * torch.rand(count, generator=generator)


class Annealed(Timesteps):
    """t ~ U(t_min, t_max(progress)): coarse shape first, details later.

    The upper end follows a schedule. With begin_at = end_at it jumps, for example from 0.98 to 0.5 at half of the run,
    as many papers do.
    """

    name: Literal["annealed"] = "annealed"
    t_min: MinTime = 0.02
    t_max: Annotated[
        Schedule, bounded("(0, 1)", lambda t: 0 < t < 1), Field(description="upper end of the times over the run")
    ] = Schedule(start=0.98, end=0.5, begin_at=0.0, end_at=0.5)
    _times_are_ordered = ordered("t_min", "t_max")

    def sample(self, progress: float, count: int, generator: torch.Generator) -> Float[Tensor, "B"]:
        """Draws one number per view."""
        return self.t_min + (self.t_max.at(progress) - self.t_min) * torch.rand(count, generator=generator)
