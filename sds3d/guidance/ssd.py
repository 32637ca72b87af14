from typing import Annotated, Literal

import torch
from pydantic import Field

from sds3d.guidance.base import Guidance, GuidanceInput, GuidanceOutput, Weighting, rms, weight
from sds3d.guidance.cfg import base_condition
from sds3d.types import Factor, Latents

ROUNDING = 1e-5  # m' shorter than this fraction of m is float32 rounding and has no direction


class SSD(Guidance[None]):
    """Stable Score Distillation (Tang et al. 2023, arXiv 2312.09305; two later papers have the same abbreviation).

    grad = w(t) h                          if t > t_seek
           w(t) (||h|| / ||m'||) m'        otherwise,   m' = m - (<m, eps> / <eps, eps>) eps

    h = eps_y - eps_base, the mode-disengaging term, and m = eps_y, the mode-seeking term, are two of the three parts of
    SDS (the third is -eps). Norms and products are those of each view over C h w; where h or m' is zero, so is the
    gradient. There is no guidance scale.

    Pitfall: at a mode h vanishes and m' is noise, so the rescaled gradient varies more than that of SDS.
    """

    name: Literal["ssd"] = "ssd"
    t_seek: Annotated[float, Field(ge=0, le=1, description="up to this time the gradient seeks the nearest mode")] = 0.3
    weighting: Weighting = "sigma_squared"

    def step(self, inputs: GuidanceInput, state: None) -> GuidanceOutput:
        """Two predictions per view (prompt and base), in one call of the prior."""
        x_t, alpha, sigma = inputs.diffuse()  # x_t = alpha x + sigma eps
        cond, eps = inputs.cond, inputs.noise
        m, eps_base = inputs.prior.predict_noise(x_t, inputs.t, [cond.positive, base_condition(cond)], inputs.view)
        h = m - eps_base  # mode-disengaging
        m_orthogonal = m - ratio(dot(m, eps), dot(eps, eps)) * eps  # m', mode-seeking without the noise
        m_orthogonal = torch.where(norm(m_orthogonal) <= ROUNDING * norm(m), 0.0, m_orthogonal)  # nan stays
        seeking = ratio(norm(h), norm(m_orthogonal)) * m_orthogonal  # (||h|| / ||m'||) m'
        is_disengaging = (inputs.t > self.t_seek)[:, None, None, None]
        grad = weight(self.weighting, alpha, sigma) * torch.where(is_disengaging, h, seeking)  # w(t)
        return GuidanceOutput(grad, stats={"grad_rms": rms(grad)})


def dot(a: Latents, b: Latents) -> Factor:
    """<a, b> of each view."""
    return (a * b).sum(dim=(1, 2, 3), keepdim=True)


def norm(a: Latents) -> Factor:
    """||a|| of each view."""
    return dot(a, a).sqrt()


def ratio(a: Factor, b: Factor) -> Factor:
    """a / b, and 0 where b is 0."""
    return torch.where(b == 0, 0.0, a / b)
