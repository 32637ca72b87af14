"""Mixtures with exact scores, and guidance inputs on them."""

from typing import Any

import torch
from torch import Tensor

from sds3d.cameras import orbit
from sds3d.guidance.base import GuidanceInput
from sds3d.priors.analytic import AnalyticPrior
from sds3d.types import Conditioning, ViewCondition


def plane_mixture() -> AnalyticPrior:
    """Three modes in the plane (a 2 x 1 x 1 image), float64: left, right (the most likely) and top."""
    means = torch.tensor([[-2.0, 0], [2, 0], [0, 2.5]], dtype=torch.float64)[:, :, None, None]
    stds, weights = torch.tensor([0.4, 0.6, 0.3]).double(), torch.tensor([0.3, 0.5, 0.2]).double()
    return AnalyticPrior(means, stds, weights, words=("left", "right", "top"))


def image_mixture() -> AnalyticPrior:
    """Three modes that are random 3 x 8 x 8 images, float64."""
    means = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    stds, weights = torch.tensor([0.4, 0.6, 0.3]).double(), torch.tensor([0.3, 0.5, 0.2]).double()
    return AnalyticPrior(means, stds, weights, words=("left", "right", "top"))


def guidance_input(
    prior: AnalyticPrior, x: Tensor, t: Tensor | float, positive: str = "", negative: str = "", **rest: Any
) -> GuidanceInput:
    """As the trainer makes it for `x`, at one time or one per view; noise from seed 0 by default."""
    count, generator = len(x), torch.Generator().manual_seed(0)
    noise = rest.pop("noise", torch.randn(x.shape, dtype=x.dtype, generator=generator))
    rows = [prior.embed([text]).expand(count, -1, -1) for text in (positive, positive, "", negative)]
    cond = Conditioning(*rows[:3], negative=rows[3] if negative else None)
    t = t if isinstance(t, Tensor) else torch.full((count,), t)
    return GuidanceInput(x, t, noise, prior, cond, ViewCondition(orbit(count, size=8)), **rest)


def predictions(q: GuidanceInput) -> tuple[Tensor, Tensor, Tensor]:
    """eps_y, eps_null and eps_neg (eps_null where there is no negative prompt) at the input's x_t."""
    negative = q.cond.null if q.cond.negative is None else q.cond.negative
    eps_y, eps_null, eps_neg = q.prior.predict_noise(q.diffuse()[0], q.t, [q.cond.positive, q.cond.null, negative])
    return eps_y, eps_null, eps_neg


def points(*places: tuple[float, float]) -> Tensor:
    """Points of the plane as images."""
    return torch.tensor(places, dtype=torch.float64)[:, :, None, None]
