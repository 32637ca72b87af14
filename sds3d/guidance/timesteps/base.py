"""What every rule for diffusion times is made of."""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from sds3d.options import Options

Time = Annotated[float, Field(gt=0, lt=1)]


class Timesteps(Options, ABC):
    """A rule for drawing diffusion times."""

    name: str
    is_monotonic: ClassVar[bool] = False  # one time for all views, which never rises

    @abstractmethod
    def sample(self, progress: float, count: int, generator: torch.Generator) -> Float[Tensor, "B"]:
        """One time per view, on the CPU; `progress` is the part of the run that is done."""


class Between(Timesteps):
    """Times in [t_min, t_max]."""

    t_min: Time = 0.02
    t_max: Time = 0.98

    @model_validator(mode="after")
    def _ordered(self) -> "Between":
        if self.t_min > self.t_max:
            raise ValueError("t_min must not be above t_max")
        return self
