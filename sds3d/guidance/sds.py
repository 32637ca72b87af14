"""Score Distillation Sampling."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sds3d.guidance.base import Guidance, GuidanceInput, GuidanceOutput, Weighting, weight
from sds3d.guidance.cfg import Rescale, guided_noise


class SDS(Guidance):
    """Score Distillation Sampling (Poole et al. 2022, DreamFusion, equation 3).

    grad = w(t) (eps_w - eps),   eps_w = eps_base + s (eps_y - eps_base)

    eps_base is eps_null, or eps_neg where there is a negative prompt. For s = 1 and a prior that knows its density p,

    E_eps[grad] = w(t) (sigma / alpha) d/dx KL( N(alpha x, sigma^2) || p_t(. | y) )

    The prior's Jacobian is left out. Subtracting eps changes no mean, it is a control variate: it removes the noise
    that went in. Score Jacobian Chaining (Wang et al. 2022, with its variance reduction) is `weighting="uniform"`.

    A guidance scale above 1 has no density behind it: there is no fixed point near the data, and only the range of the
    colours bounds how far x goes (over-saturation). Large scales suit priors of free text (100 for Stable Diffusion in
    latent space, 20 for pixel priors); the small embedded prior needs less, and its 4 is the default.
    """

    name: Literal["sds"] = "sds"
    uses_cfg: ClassVar[bool] = True
    guidance_scale: Annotated[float, Field(ge=0, le=200, description="classifier-free guidance; 1 is none")] = 4.0
    rescale: Rescale = 0.0
    weighting: Annotated[Weighting, Field(description="w(t), the weight of each diffusion time")] = "sigma_squared"

    def step(self, inputs: GuidanceInput, state: Any) -> GuidanceOutput:
        """Two predictions per view (prompt and base) in one call of the prior."""
        x_t, alpha, sigma = inputs.diffuse()
        eps_w = guided_noise(inputs, x_t, inputs.t, self.guidance_scale, self.rescale)
        grad = weight(self.weighting, alpha, sigma) * (eps_w - inputs.noise)
        return GuidanceOutput(grad, stats={"grad_rms": grad.square().mean().sqrt()})
