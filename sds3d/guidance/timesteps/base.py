"""The interface of a rule for diffusion times."""

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from sds3d.options import Options, Schedule

MinTime = Annotated[float, Field(gt=0, lt=1, description="lower end of the times")]
MaxTime = Annotated[float, Field(gt=0, lt=1, description="upper end of the times")]


def ordered(low: str, high: str) -> Any:
    """A validator for a model's body: option `low` is at most option `high`, or at most both ends of its schedule."""

    def check(options: Any) -> Any:
        upper = getattr(options, high)
        least = min(upper.start, upper.end) if isinstance(upper, Schedule) else upper
        if getattr(options, low) > least:
            raise ValueError(f"{low} must not be above {high} = {least:g}")
        return options

    return model_validator(mode="after")(check)


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
