"""Classifier-free guidance in one convention, and what may be done to it."""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sds3d.guidance.base import GuidanceInput

Rescale = Annotated[float, Field(ge=0, le=1, description="how far to undo guidance's growth of the spread")]


def cfg(
    eps_y: Float[Tensor, "B C h w"], eps_base: Float[Tensor, "B C h w"], guidance_scale: float
) -> Float[Tensor, "B C h w"]:
    """eps_w = eps_base + s (eps_y - eps_base) (Ho & Salimans 2022): s = 1 is the plain conditional prediction.

    Code that writes eps_y + s (eps_y - eps_base) means s + 1 here.
    """
    return eps_base + guidance_scale * (eps_y - eps_base)


def cfg_rescale(
    eps_w: Float[Tensor, "B C h w"], eps_y: Float[Tensor, "B C h w"], rescale: float
) -> Float[Tensor, "B C h w"]:
    """eps_w (phi std(eps_y) / std(eps_w) + 1 - phi) with phi = `rescale`, std over C h w (Lin et al. 2023).

    A large guidance scale makes the prediction's spread grow; phi = 1 sets it back to that of eps_y, 0 leaves it. On
    x0_hat instead of eps (MVDream) the result differs.
    """
    spread_y, spread_w = (eps.std(dim=(1, 2, 3), correction=0, keepdim=True) for eps in (eps_y, eps_w))
    ratio = torch.where(spread_w > 0, spread_y / spread_w, 1.0)
    return eps_w * (rescale * ratio + 1 - rescale)


def perp_neg(
    eps_y: Float[Tensor, "B C h w"],
    eps_base: Float[Tensor, "B C h w"],
    against: Sequence[tuple[Float[Tensor, "B C h w"], Float[Tensor, "B"]]],
) -> Float[Tensor, "B C h w"]:
    """Takes from the prompt's direction what leads to other sides of the object (Armandpour et al. 2023, Perp-Neg).

    eps_base + d_0 + sum_i w_i (d_i - (<d_i, d_0> / <d_0, d_0>) d_0),   d_0 = eps_y - eps_base, d_i = eps_i - eps_base

    `against` are the pairs (eps_i, w_i), w_i <= 0. Only what is orthogonal to d_0 is taken away, so what the sides have
    in common with the prompt stays. Products run over C h w; where d_0 is zero there is no direction to be orthogonal
    to, and d_i is taken whole.
    """
    towards = eps_y - eps_base
    length = towards.square().sum(dim=(1, 2, 3), keepdim=True)
    total = eps_y
    for eps, share in against:
        away = eps - eps_base
        along = (away * towards).sum(dim=(1, 2, 3), keepdim=True)
        parallel = torch.where(length > 0, along / length, 0.0) * towards
        total = total + share.to(eps)[:, None, None, None] * (away - parallel)
    return total


def guided_noise(
    inputs: GuidanceInput,
    x_t: Float[Tensor, "B C h w"],
    t: Float[Tensor, "B"],
    guidance_scale: float,
    rescale: float = 0.0,
) -> Float[Tensor, "B C h w"]:
    """eps_w at x_t: two predictions of the prior (prompt and base), four with Perp-Neg.

    eps_base is eps_null, or eps_neg where there is a negative prompt.
    """
    cond = inputs.cond
    base = cond.null if cond.negative is None else cond.negative
    sides = [embedding for embedding, _ in cond.against]
    eps_y, eps_base, *others = inputs.prior.predict_noise(x_t, t, [cond.positive, base, *sides], inputs.view)
    shares = [share for _, share in cond.against]
    eps = perp_neg(eps_y, eps_base, list(zip(others, shares, strict=True)))
    return cfg_rescale(cfg(eps, eps_base, guidance_scale), eps_y, rescale)
