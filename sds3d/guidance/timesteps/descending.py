"""One time for all views that only falls over the run, without a draw: the noise level of a sampler."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from sds3d.guidance.timesteps.base import MinTime, TimeRange
from sds3d.types import PerView

# W(t) of DreamTime is 1 between LOW and HIGH, with Gaussian tails of these widths. The values are those of other
# people's code (800, 500, 300 and 100 of 1000 steps), not checked against the paper.
HIGH, HIGH_STD = 0.8, 0.3
LOW, LOW_STD = 0.5, 0.1


class Descending(TimeRange):
    """A t that falls in a straight line, or in two.

    t = t_max - (t_max - t_min) f

    f rises from 0 to `halfway` in the first half of the run and then to 1, so 0.5 is one straight line. Consistent Flow
    Distillation has 0.57 with MVDream (t from 0.98 by 0.6 to 0.31) and about 0.75 in its first stage with Stable
    Diffusion (to 0.21).

    Pitfall: near t = 0 the remaining changes need smaller steps than an optimizer takes, so the end is well above 0.
    """

    name: Literal["descending"] = "descending"
    is_monotonic: ClassVar[bool] = True
    t_min: MinTime = 0.25
    halfway: Annotated[float, Field(gt=0, lt=1, description="fraction of the fall done at half of the run")] = 0.5

    def sample(self, progress: float, count: int, generator: torch.Generator) -> PerView:
        first, second = 2 * min(progress, 0.5), 2 * max(progress - 0.5, 0.0)
        f = self.halfway * first + (1 - self.halfway) * second
        return torch.full((count,), self.t_max - (self.t_max - self.t_min) * f)


class HiFA(TimeRange):
    """A t that falls fast at first (Zhu & Zhuang 2023, HiFA, arXiv 2305.18766).

    t = t_max - (t_max - t_min) sqrt(progress)

    Pitfall: it dwells near t_min, which must not be much below 0.3.
    """

    name: Literal["hifa"] = "hifa"
    is_monotonic: ClassVar[bool] = True
    t_min: MinTime = 0.3

    def sample(self, progress: float, count: int, generator: torch.Generator) -> PerView:
        return torch.full((count,), self.t_max - (self.t_max - self.t_min) * progress**0.5)


class DreamTime(TimeRange):
    """A t that falls more slowly where W(t) is larger (Huang et al. 2023, DreamTime, arXiv 2306.12422).

    integral of W from t to t_max / integral of W from t_min to t_max = progress

    W is 1 from 0.5 to 0.8 and falls off like a Gaussian, with standard deviation 0.1 below and 0.3 above.
    """

    name: Literal["dreamtime"] = "dreamtime"
    is_monotonic: ClassVar[bool] = True

    def sample(self, progress: float, count: int, generator: torch.Generator) -> PerView:
        """t is one of a thousand values between t_max and t_min."""
        t = torch.linspace(self.t_max, self.t_min, 1000)
        above, below = (t - HIGH).clamp_min(0) / HIGH_STD, (t - LOW).clamp_max(0) / LOW_STD
        integral = (-0.5 * (above.square() + below.square())).exp().double().cumsum(0)
        return t[(integral / integral[-1] - progress).abs().argmin()].repeat(count)
