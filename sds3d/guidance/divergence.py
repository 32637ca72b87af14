"""Factors on VSD's gradient from other distribution matching methods: f-divergences (f-distill) and DMD."""

from typing import Literal

import torch
from torch.nn import functional

from sds3d.guidance.base import GuidanceInput
from sds3d.priors.base import HasDensity, sample_from_eps
from sds3d.types import Factor, Latents, PerView

Divergence = Literal["reverse_kl", "forward_kl", "jensen_shannon"]


def log_weight(divergence: Divergence, log_ratio: PerView) -> PerView:
    """log h(r) with r = p_t / q_t at x_t, for f-divergences (Xu et al. 2025, f-distill, arXiv 2502.15681):

    d/dtheta D_f(p || q) = -E_q[ h(r) (grad log p - grad log q) dx/dtheta ],   h(r) = f''(r) r^2

    h = 1 for KL(q || p), which is plain VSD; r for KL(p || q); r / (1 + r) for KL(p || m) + KL(q || m), m = (p + q) / 2
    (twice the Jensen-Shannon divergence). In logarithms, because r itself overflows in the dimensions of images.
    """
    weights = {
        "reverse_kl": torch.zeros_like(log_ratio),
        "forward_kl": log_ratio,
        "jensen_shannon": functional.logsigmoid(log_ratio),
    }
    return weights[divergence]


def divergence_weight(divergence: Divergence, inputs: GuidanceInput, critic: object, x_t: Latents) -> Factor:
    """h(p_t / q_t) of each view, divided by its mean over the views.

    Pitfall: densities of whole images differ so much that nearly all of the weight falls on one view.
    """
    prior = inputs.prior
    assert isinstance(prior, HasDensity), "VSD.init refuses priors without a density"
    assert isinstance(critic, HasDensity), "the trainable copy of a DensityPrior has a density"
    log_p = prior.log_density(x_t, inputs.t, inputs.cond.positive, inputs.view)
    log_q = critic.log_density(x_t, inputs.t, inputs.cond.plain, inputs.view)
    shares = log_weight(divergence, log_p - log_q).softmax(dim=0)
    return len(x_t) * shares[:, None, None, None]


def dmd_scale(inputs: GuidanceInput, eps_w: Latents, x_t: Latents, alpha: Factor, sigma: Factor) -> Factor:
    """mean |x - x0_hat_w| of each view, the divisor of Distribution Matching Distillation (Yin et al. 2024, arXiv
    2311.18828)."""
    distance = inputs.x.detach() - sample_from_eps(eps_w, x_t, alpha, sigma)
    return distance.abs().mean(dim=(1, 2, 3), keepdim=True)
