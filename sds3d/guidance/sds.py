from typing import ClassVar, Literal

from sds3d.guidance.base import Guidance, GuidanceInput, GuidanceOutput, Weighting, rms, weight
from sds3d.guidance.cfg import GuidanceScale, Rescale, guided_noise


class SDS(Guidance[None]):
    """Score Distillation Sampling (Poole et al. 2022, DreamFusion, arXiv 2209.14988, equation 3).

    grad = w(t) (eps_w - eps),   eps_w = eps_base + s (eps_y - eps_base)

    The Jacobian of the prior is left out. eps_base is eps_neg if there is a negative prompt, else eps_null.

    Pitfall: with s > 1 there is no fixed point near the data; only the range of the colours stops x (over-saturation).
    """

    name: Literal["sds"] = "sds"
    uses_cfg: ClassVar[bool] = True
    guidance_scale: GuidanceScale = 4.0  # for the small embedded prior; Stable Diffusion wants up to 100
    rescale: Rescale = 0.0
    weighting: Weighting = "sigma_squared"

    def step(self, inputs: GuidanceInput, state: None) -> GuidanceOutput:
        """Two predictions per view (prompt and base), in one call of the prior."""
        # x_t = alpha x + sigma eps
        x_t, alpha, sigma = inputs.diffuse()
        # eps_w = eps_base + s (eps_y - eps_base)
        eps_w = guided_noise(inputs, x_t, inputs.t, self.guidance_scale, self.rescale)
        # equation 3: w(t) (eps_w - eps)
        grad = weight(self.weighting, alpha, sigma) * (eps_w - inputs.noise)
        return GuidanceOutput(grad, stats={"grad_rms": rms(grad)})
