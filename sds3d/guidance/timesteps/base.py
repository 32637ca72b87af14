"""The interface of a rule for diffusion times, and the rules that draw them for each view independently."""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from sds3d.options import Options, Schedule, Scheduled, bounded, evaluate, ordered
from sds3d.types import PerView

MinTime = Annotated[float, Field(gt=0, lt=1, description="lower end of the times")]


def _is_time(t: float) -> bool:
    return 0 < t < 1


class Timesteps(Options, ABC):
    """A rule for sampling diffusion times in (0, 1)."""

    name: str
    is_monotonic: ClassVar[bool] = False  # one time for all views, which never rises

    @abstractmethod
    def sample(self, progress: float, count: int, generator: torch.Generator) -> PerView:
        """One time per view, on the CPU; `progress` is the fraction of the run that is done."""


class TimeRange(Timesteps):
    """Times in [t_min, t_max]."""

    t_min: MinTime = 0.02
    t_max: Annotated[float, Field(gt=0, lt=1, description="upper end of the times")] = 0.98
    _times_are_ordered = ordered("t_min", "t_max")


class Uniform(TimeRange):
    """t ~ U(t_min, t_max), independently for each view."""

    name: Literal["uniform"] = "uniform"

    def sample(self, progress: float, count: int, generator: torch.Generator) -> PerView:
        """Draws one number per view; the same distribution over the whole run."""
        return self.t_min + (self.t_max - self.t_min) * torch.rand(count, generator=generator)


class Annealed(Timesteps):
    """t ~ U(t_min(progress), t_max(progress)): coarse shape first, details later.

    The upper end follows a schedule. With begin_at = end_at it jumps, for example from 0.98 to 0.5 at half of the run,
    as many papers do. The lower end may fall too, as in MVDream (Shi et al. 2023).
    """

    name: Literal["annealed"] = "annealed"
    t_min: Annotated[
        Scheduled, bounded("in (0, 1)", _is_time), Field(description="lower end of the times, perhaps over the run")
    ] = 0.02
    t_max: Annotated[
        Schedule, bounded("in (0, 1)", _is_time), Field(description="upper end of the times over the run")
    ] = Schedule(start=0.98, end=0.5, begin_at=0.0, end_at=0.5)
    _times_are_ordered = ordered("t_min", "t_max")

    def sample(self, progress: float, count: int, generator: torch.Generator) -> PerView:
        """Draws one number per view."""
        low = evaluate(self.t_min, progress)
        return low + (self.t_max.at(progress) - low) * torch.rand(count, generator=generator)
