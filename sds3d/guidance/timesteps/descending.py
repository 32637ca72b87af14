"""One time for all views, which only falls over the run: the noise level of a sampler."""

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sds3d.guidance.timesteps.base import Between, Time


class Descending(Between):
    """One t for all views, which only falls: t_max - (t_max - t_min) f, where f goes from 0 to 1 in two straight lines.

    f = `halfway` at half of the run. 0.5 is one line, 0.57 Consistent Flow Distillation with MVDream (t from 0.98 by
    0.6 to 0.31), 0.75 nearly its first stage with Stable Diffusion (to 0.21). The end is well above 0 on purpose: what
    is left to change below it needs smaller steps than an optimizer takes.
    """

    name: Literal["descending"] = "descending"
    is_monotonic: ClassVar[bool] = True
    t_min: Time = 0.25
    halfway: Annotated[float, Field(gt=0, lt=1, description="part of the fall that is done at half of the run")] = 0.5

    def sample(self, progress: float, count: int, generator: torch.Generator) -> Float[Tensor, "B"]:
        """Draws nothing."""
        first, second = 2 * min(progress, 0.5), 2 * max(progress - 0.5, 0.0)
        fallen = self.halfway * first + (1 - self.halfway) * second
        return torch.full((count,), self.t_max - (self.t_max - self.t_min) * fallen)


class HiFA(Between):
    """t = t_max - (t_max - t_min) sqrt(progress), one for all views (Zhu & Zhuang 2023, HiFA): fast at first.

    It dwells near its end, so the end must not be much lower than 0.3.
    """

    name: Literal["hifa"] = "hifa"
    is_monotonic: ClassVar[bool] = True
    t_min: Time = 0.3

    def sample(self, progress: float, count: int, generator: torch.Generator) -> Float[Tensor, "B"]:
        """Draws nothing."""
        return torch.full((count,), self.t_max - (self.t_max - self.t_min) * progress**0.5)


class DreamTime(Between):
    """One falling t for all views that stays longer where W(t) is larger (Huang et al. 2023, DreamTime).

    t is where the part of W's integral that lies above t is `progress`. W is 1 from `low` to `high` and falls off like
    a Gaussian on both sides. That these four numbers are the paper's is uncertain.
    """

    name: Literal["dreamtime"] = "dreamtime"
    is_monotonic: ClassVar[bool] = True
    high: Annotated[Time, Field(description="upper end of the times that count fully")] = 0.8
    high_std: Annotated[Time, Field(description="how slowly the weight falls above")] = 0.3
    low: Annotated[Time, Field(description="lower end of the times that count fully")] = 0.5
    low_std: Annotated[Time, Field(description="how slowly the weight falls below")] = 0.1

    def sample(self, progress: float, count: int, generator: torch.Generator) -> Float[Tensor, "B"]:
        """Draws nothing; t is one of a thousand between t_max and t_min."""
        t = torch.linspace(self.t_max, self.t_min, 1000)
        above, below = (t - self.high).clamp_min(0) / self.high_std, (t - self.low).clamp_max(0) / self.low_std
        passed = (-0.5 * (above.square() + below.square())).exp().double().cumsum(0)
        return t[(passed / passed[-1] - progress).abs().argmin()].repeat(count)
