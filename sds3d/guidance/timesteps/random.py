"""Times drawn for each view by itself."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import field_validator, model_validator
from torch import Tensor

from sds3d.guidance.timesteps.base import Between, Time, Timesteps
from sds3d.options import Schedule


class Uniform(Between):
    """t ~ U(t_min, t_max), independently for each view."""

    name: Literal["uniform"] = "uniform"

    def sample(self, progress: float, count: int, generator: torch.Generator) -> Float[Tensor, "B"]:
        """Draws one number per view; the same law at all times."""
        return self.t_min + (self.t_max - self.t_min) * torch.rand(count, generator=generator)


class Annealed(Timesteps):
    """t ~ U(t_min, t_max(progress)): coarse shape first, details later.

    The upper end follows a schedule. With begin_at = end_at it steps down at once (0.98 to 0.5 at half of the run is
    the common form); spread out, it falls linearly.
    """

    name: Literal["annealed"] = "annealed"
    t_min: Time = 0.02
    t_max: Schedule = Schedule(start=0.98, end=0.5, begin_at=0.0, end_at=0.5)

    @field_validator("t_max")
    @classmethod
    def _inside(cls, value: Schedule) -> Schedule:
        if not (0 < value.start < 1 and 0 < value.end < 1):
            raise ValueError("both ends must be in (0, 1)")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> "Annealed":
        if self.t_min > min(self.t_max.start, self.t_max.end):
            raise ValueError("t_min must not be above t_max at either end")
        return self

    def sample(self, progress: float, count: int, generator: torch.Generator) -> Float[Tensor, "B"]:
        """Draws one number per view."""
        return self.t_min + (self.t_max.at(progress) - self.t_min) * torch.rand(count, generator=generator)
