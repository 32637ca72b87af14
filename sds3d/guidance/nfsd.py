from typing import Annotated, Literal

import torch
from pydantic import Field

from sds3d.guidance.base import Guidance, GuidanceInput, GuidanceOutput, Weighting, rms, weight

T_CLEAN = 0.2  # the paper's: below step 200 of 1000, eps_null counts as free of noise


class NFSD(Guidance[None]):
    """Noise-Free Score Distillation (Katzir et al. 2023, arXiv 2310.17590).

    grad = w(t) (delta_D + s delta_C),   delta_C = eps_y - eps_null
    delta_D = eps_null              if t < 0.2
              eps_null - eps_neg    otherwise

    eps is not subtracted: eps_null - eps_neg keeps the direction to the data and cancels the noise. Each view goes by
    its own t.

    Pitfall: it needs a negative prompt that describes bad images (docs/guidance.md has the paper's). Without one,
    delta_D is 0 above t = 0.2 and the method is CSD times s; the stat `csd_share` is the fraction of such views.
    """

    name: Literal["nfsd"] = "nfsd"
    guidance_scale: Annotated[float, Field(ge=0, le=200, description="s, the weight of eps_y - eps_null")] = 7.5
    weighting: Weighting = "sigma_squared"

    def step(self, inputs: GuidanceInput, state: None) -> GuidanceOutput:
        """Two predictions per view; three with a negative prompt if any view has t >= 0.2."""
        x_t, alpha, sigma = inputs.diffuse()  # x_t = alpha x + sigma eps
        cond = inputs.cond
        is_clean = inputs.t < T_CLEAN
        conditions = [cond.positive, cond.null]
        if cond.negative is not None and not is_clean.all():
            conditions.append(cond.negative)
        eps_y, eps_null, *rest = inputs.prior.predict_noise(x_t, inputs.t, conditions, inputs.view)
        eps_neg = rest[0] if rest else eps_null
        delta_c = eps_y - eps_null  # direction to the prompt
        delta_d = torch.where(is_clean[:, None, None, None], eps_null, eps_null - eps_neg)  # direction to the data
        # w(t) (delta_D + s delta_C)
        grad = weight(self.weighting, alpha, sigma) * (delta_d + self.guidance_scale * delta_c)
        csd_only = ~is_clean if cond.negative is None else torch.zeros_like(is_clean)
        return GuidanceOutput(grad, stats={"grad_rms": rms(grad), "csd_share": csd_only.to(grad.dtype).mean()})
