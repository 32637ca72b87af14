"""Classifier-free guidance in one convention, Perp-Neg and CFG rescaling."""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sds3d.guidance.base import GuidanceInput
from sds3d.types import Conditioning, Latents, PerView

GuidanceScale = Annotated[float, Field(ge=0, le=200, description="s of classifier-free guidance; 1 is none")]
Rescale = Annotated[float, Field(ge=0, le=1, description="CFG rescaling: how far to restore the spread of eps_y")]


def cfg(eps_y: Latents, eps_base: Latents, guidance_scale: float) -> Latents:
    """eps_w = eps_base + s (eps_y - eps_base) (Ho & Salimans 2022, arXiv 2207.12598): s = 1 is no guidance.

    Pitfall: code that writes eps_y + s (eps_y - eps_base), as threestudio's SDS does, means s + 1 here.
    """
    return eps_base + guidance_scale * (eps_y - eps_base)


def cfg_rescale(eps_w: Latents, eps_y: Latents, rescale: float) -> Latents:
    """eps_w (phi std(eps_y) / std(eps_w) + 1 - phi) with phi = `rescale`, std over C h w (Lin et al. 2023, arXiv
    2305.08891).

    A large guidance scale increases the prediction's standard deviation; phi = 1 restores that of eps_y, and phi = 0
    changes nothing. Pitfall: MVDream rescales x0_hat instead of eps, which gives another result.
    """
    std_y, std_w = (eps.std(dim=(1, 2, 3), correction=0, keepdim=True) for eps in (eps_y, eps_w))
    ratio = torch.where(std_w > 0, std_y / std_w, 1.0)
    return eps_w * (rescale * ratio + 1 - rescale)


def perp_neg(eps_y: Latents, eps_base: Latents, negatives: Sequence[tuple[Latents, PerView]]) -> Latents:
    """eps_y, pushed away from the negative prompts of the view (Perp-Neg, Armandpour et al. 2023, arXiv 2304.04968):

    eps_base + d_0 + sum_i w_i (d_i - (<d_i, d_0> / <d_0, d_0>) d_0),   d_0 = eps_y - eps_base, d_i = eps_i - eps_base

    `negatives` are the pairs (eps_i, w_i), w_i <= 0. Only the part of d_i orthogonal to d_0 counts, so what a negative
    prompt shares with the prompt stays. Products run over C h w; where d_0 is zero all of d_i counts.
    """
    d_0 = eps_y - eps_base
    d_0_squared = d_0.square().sum(dim=(1, 2, 3), keepdim=True)
    total = eps_y  # eps_base + d_0
    for eps_i, w_i in negatives:
        d_i = eps_i - eps_base
        dot = (d_i * d_0).sum(dim=(1, 2, 3), keepdim=True)
        parallel = torch.where(d_0_squared > 0, dot / d_0_squared, 0.0) * d_0
        total = total + w_i.to(eps_i)[:, None, None, None] * (d_i - parallel)
    return total


def base_condition(cond: Conditioning) -> Float[Tensor, "B N D"]:
    """The condition of eps_base: the negative prompt if there is one, else the empty text."""
    return cond.null if cond.negative is None else cond.negative


def guided_noise(
    inputs: GuidanceInput, x_t: Latents, t: PerView, guidance_scale: float, rescale: float = 0.0
) -> Latents:
    """eps_w at x_t, with Perp-Neg and rescaling: two predictions per view (prompt and base), four with Perp-Neg."""
    cond = inputs.cond
    conditions = [cond.positive, base_condition(cond), *(side for side, _ in cond.against)]
    eps_y, eps_base, *eps_sides = inputs.prior.predict_noise(x_t, t, conditions, inputs.view)
    negatives = [(eps_i, w_i) for eps_i, (_, w_i) in zip(eps_sides, cond.against, strict=True)]
    eps = perp_neg(eps_y, eps_base, negatives)
    return cfg_rescale(cfg(eps, eps_base, guidance_scale), eps_y, rescale)
