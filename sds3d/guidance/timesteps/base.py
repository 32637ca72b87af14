"""The interface of a rule for diffusion times."""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sds3d.options import Options, ordered

MinTime = Annotated[float, Field(gt=0, lt=1, description="lower end of the times")]
MaxTime = Annotated[float, Field(gt=0, lt=1, description="upper end of the times")]


class Timesteps(Options, ABC):
    """A rule for sampling diffusion times in (0, 1)."""

    name: str
    is_monotonic: ClassVar[bool] = False  # one time for all views, which never rises

    @abstractmethod
    def sample(self, progress: float, count: int, generator: torch.Generator) -> Float[Tensor, "B"]:
        """One time per view, on the CPU; `progress` is the fraction of the run that is done."""


class TimeRange(Timesteps):
    """Times in [t_min, t_max]."""

    t_min: MinTime = 0.02
    t_max: MaxTime = 0.98
    _times_are_ordered = ordered("t_min", "t_max")
