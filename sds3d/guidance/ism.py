from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from sds3d.guidance.base import Guidance, GuidanceInput, GuidanceOutput, Weighting, rms, weight
from sds3d.guidance.cfg import GuidanceScale, Rescale, guided_noise
from sds3d.guidance.inversion import InversionStart, InversionSteps, ddim_step, invert
from sds3d.options import Schedule, Scheduled, bounded, evaluate


class ISM(Guidance[None]):
    """Interval Score Matching (Liang et al. 2023, LucidDreamer, arXiv 2311.11284).

    x_s = DDIM inversion of x with the empty text,   s = t - delta_t
    x_t = one DDIM step s -> t with eps_s = eps_null(x_s, s)
    grad = w(t) (eps_w(x_t, t) - eps_s),   eps_w = cfg(eps_y, eps_base, guidance_scale)

    eps_s takes the place of the random noise of SDS, which here only starts the inversion, at `inversion_start`. A view
    whose t - delta_t is below the start has s = min(t, start).

    Pitfall: the mean gradient is some 30 times smaller than that of SDS at s = 1; thresholds tuned for SDS, such as
    those of densification, must be tuned anew.
    """

    name: Literal["ism"] = "ism"
    uses_cfg: ClassVar[bool] = True
    guidance_scale: GuidanceScale = 7.5
    rescale: Rescale = 0.0
    delta_t: Annotated[
        Scheduled, bounded("in (0, 1)", lambda delta_t: 0 < delta_t < 1), Field(description="the interval t - s")
    ] = Schedule(start=0.1, end=0.025, end_at=0.3)
    inversion_steps: InversionSteps = 5
    inversion_start: InversionStart = 0.05  # official: 0; the embedded prior predicts x0 and errs below 0.05
    weighting: Weighting = "sigma_over_alpha"

    def step(self, inputs: GuidanceInput, state: None) -> GuidanceOutput:
        """Two predictions per view at t, one at s, and one for each inversion step below s."""
        prior, t = inputs.prior, inputs.t

        def eps_null(x_t: Tensor, t: Tensor) -> Tensor:
            return prior.predict_noise(x_t, t, [inputs.cond.null], inputs.view)[0]

        # Start: a little noise, at the start of the inversion
        start = t.clamp(max=self.inversion_start)
        alpha, sigma = prior.alpha_sigma(start)
        x_start = alpha * inputs.x.detach() + sigma * inputs.noise
        # Invert: DDIM up to x_s, s = t - delta_t
        s = (t - evaluate(self.delta_t, inputs.progress)).maximum(start)
        x_s = invert(prior, x_start, start, s, self.inversion_steps, eps_null)
        # Step: one DDIM step from s to t with eps_s
        eps_s = eps_null(x_s, s)
        x_t = ddim_step(prior, x_s, eps_s, s, t)
        # Score: w(t) (eps_w(x_t, t) - eps_s)
        eps_w = guided_noise(inputs, x_t, t, self.guidance_scale, self.rescale)
        grad = weight(self.weighting, *prior.alpha_sigma(t)) * (eps_w - eps_s)
        return GuidanceOutput(grad, stats={"grad_rms": rms(grad)})
