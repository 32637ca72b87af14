"""Samples from a prior by deterministic DDIM, to see what it knows."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.priors.base import Prior, sample_from_eps
from sds3d.types import ViewCondition


@torch.no_grad()
def sample_images(
    prior: Prior,
    texts: list[str],
    view: ViewCondition | None = None,
    *,
    guidance_scale: float = 3.0,
    guided_above: float = 0.0,
    steps: int = 25,
    generator: torch.Generator,
) -> Float[Tensor, "B 3 H W"]:
    """One image per text (and view), by DDIM (Song et al. 2020) with eta = 0 on evenly spaced times.

    x_s = alpha_s x0_hat + sigma_s eps_hat,   eps_hat = eps_null + guidance_scale (eps_y - eps_null)
    For t <= `guided_above`, in [0, 1], eps_hat is eps_y: guidance at low noise only adds unnatural contrast
    (Kynkaanniemi et al. 2024, guidance in a limited interval). x0_hat is clamped to [-1, 1] for pixel priors, which
    are told from latent ones by their three channels.
    """
    embeddings, null = prior.embed(texts), prior.embed([""]).expand(len(texts), -1, -1)
    x = torch.randn(len(texts), *prior.latent_shape, generator=generator).to(embeddings.device)
    times = torch.linspace(0.99, 0.0, steps + 1).tolist()
    for t, s in pairwise(times):
        now, later = (torch.full((len(texts),), time, device=x.device) for time in (t, s))
        conditions = [embeddings, null] if t > guided_above else [embeddings]
        eps, *eps_null = prior.predict_noise(x, now, conditions, view)
        if eps_null:
            eps = eps_null[0] + guidance_scale * (eps - eps_null[0])
        alpha, sigma = prior.alpha_sigma(now)
        x0 = sample_from_eps(eps, x, alpha, sigma)
        if prior.latent_shape[0] == 3:
            x0 = x0.clamp(-1.0, 1.0)
        eps = (x - alpha * x0) / sigma
        alpha, sigma = prior.alpha_sigma(later)
        x = alpha * x0 + sigma * eps if s > 0 else x0
    return prior.decode(x)
