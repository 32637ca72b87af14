"""Deterministic DDIM inversion, shared by ISM and SDI: from an image up to the x_t that DDIM would lead back to it."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from sds3d.priors.base import Prior, sample_from_eps
from sds3d.types import Latents, PerView

Predict = Callable[[Tensor, Tensor], Tensor]  # (x_t, t) -> eps_hat
InversionSteps = Annotated[int, Field(ge=1, le=1000, description="steps of an inversion from t = 0 to t = 1")]
InversionStart = Annotated[
    float, Field(ge=0, le=0.5, description="time at which the inversion starts; 0 suits priors that predict the noise")
]


def ddim_step(prior: Prior, x_t: Latents, eps: Latents, t: PerView, to: PerView) -> Latents:
    """x_to = alpha_to x0_hat(x_t, eps) + sigma_to eps (DDIM with eta = 0, Song et al. 2020, arXiv 2010.02502); `to` may
    be above or below t."""
    alpha_to, sigma_to = prior.alpha_sigma(to)
    return alpha_to * sample_from_eps(eps, x_t, *prior.alpha_sigma(t)) + sigma_to * eps


def invert(prior: Prior, x_start: Latents, start: PerView, end: PerView, steps: int, predict: Predict) -> Latents:
    """x at `end`, from x at `start`, by DDIM steps of at most 1 / steps in t.

    All views take as many steps as the longest inversion needs, each in equal steps of its own.
    """
    longest = (end - start).max().item()
    count = math.ceil(steps * longest - 1e-4)  # 1e-4: float32 rounding must not add a step
    times = [torch.lerp(start, end, torch.tensor(k / max(count, 1)).to(start)) for k in range(count + 1)]
    x_t = x_start
    for t, to in pairwise(times):
        x_t = ddim_step(prior, x_t, predict(x_t, t), t, to)
    return x_t
