"""The critic of VSD: a trainable copy of the prior that learns to predict the noise in diffused renders."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.guidance.base import GuidanceInput, Weighting, weight
from sds3d.types import ViewCondition


@runtime_checkable
class Critic(Protocol):
    """An nn.Module, as TrainablePrior.trainable_copy makes it, that predicts the noise for one condition."""

    def __call__(
        self,
        x_t: Float[Tensor, "B C h w"],
        t: Float[Tensor, "B"],
        embeddings: Float[Tensor, "B N D"],
        view: ViewCondition | None = None,
    ) -> Float[Tensor, "B C h w"]:
        """eps_phi, with gradients on the critic's own parameters."""
        ...


def denoising_loss(critic: Critic, inputs: GuidanceInput, weighting: Weighting) -> Float[Tensor, ""]:
    """w'(t') || eps_phi(alpha x + sigma eps'; t') - eps' ||^2 with fresh t' ~ U(0, 1), eps' ~ N(0, I); x is constant.

    Summed over C h w and averaged over the views, as all gradients are: a mean over elements would leave gradients that
    half-precision networks flush to zero.
    """
    x = inputs.x.detach()
    t = torch.rand(len(x), generator=inputs.generator).to(x.device)
    eps = torch.randn(x.shape, generator=inputs.generator).to(x)
    alpha, sigma = inputs.prior.alpha_sigma(t)
    eps_phi = critic(alpha * x + sigma * eps, t, inputs.cond.plain, inputs.view)
    return (weight(weighting, alpha, sigma) * (eps_phi - eps).square()).sum() / len(x)
