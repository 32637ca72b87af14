"""Stable Score Distillation."""

from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sds3d.guidance.base import Guidance, GuidanceInput, GuidanceOutput, Weighting, weight

ROUNDING = 1e-5  # a residual below this part of what it was taken from is float32 rounding and has no direction


class SSD(Guidance):
    """Stable Score Distillation (Tang et al. 2023, arXiv 2312.09305; two later papers abbreviate alike).

    SDS is a sum of three: h = eps_y - eps_base (away from other modes), m = eps_y (towards the nearest mode) and -eps
    (less variance). Of these SSD takes, each view by itself,

    grad = w(t) h                          where t > t_seek
           w(t) (||h|| / ||m'||) m'        elsewhere,   m' = m - (<m, eps> / <eps, eps>) eps

    so that there is no guidance scale, and below t_seek the gradient is orthogonal to the drawn noise. Norms and
    products run over C h w. Where h or m' is zero, so is the gradient. eps_base is eps_neg where there is a negative
    prompt, else eps_null.

    The equations follow the paper's definition as other people's code has it; t_seek = 0.3 is uncertain. On exact
    mixtures the scaling by ||h|| / ||m'|| makes the gradient vary more than that of plain SDS (m' alone varies less),
    most of all at a mode, where h vanishes and m' is noise.
    """

    name: Literal["ssd"] = "ssd"
    t_seek: Annotated[float, Field(ge=0, le=1, description="up to this time the gradient seeks the nearest mode")] = 0.3
    weighting: Annotated[Weighting, Field(description="w(t), the weight of each diffusion time")] = "sigma_squared"

    def step(self, inputs: GuidanceInput, state: Any) -> GuidanceOutput:
        """Two predictions per view (prompt and base) in one call of the prior."""
        x_t, alpha, sigma = inputs.diffuse()
        cond, eps = inputs.cond, inputs.noise
        base = cond.null if cond.negative is None else cond.negative
        m, eps_base = inputs.prior.predict_noise(x_t, inputs.t, [cond.positive, base], inputs.view)
        h = m - eps_base
        residual = m - ratio(dot(m, eps), dot(eps, eps)) * eps
        residual = torch.where(norm(residual) <= ROUNDING * norm(m), 0.0, residual)  # nan stays
        seeking = ratio(norm(h), norm(residual)) * residual
        apart = (inputs.t > self.t_seek)[:, None, None, None]
        grad = weight(self.weighting, alpha, sigma) * torch.where(apart, h, seeking)
        return GuidanceOutput(grad, stats={"grad_rms": grad.square().mean().sqrt()})


def dot(a: Float[Tensor, "B C h w"], b: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 1 1 1"]:
    """<a, b> of each view."""
    return (a * b).sum(dim=(1, 2, 3), keepdim=True)


def norm(a: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 1 1 1"]:
    """||a|| of each view."""
    return dot(a, a).sqrt()


def ratio(a: Float[Tensor, "B 1 1 1"], b: Float[Tensor, "B 1 1 1"]) -> Float[Tensor, "B 1 1 1"]:
    """a / b, and 0 where b is 0."""
    return torch.where(b == 0, 0.0, a / b)
