"""Classifier Score Distillation."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator

from sds3d.guidance.base import Guidance, GuidanceInput, GuidanceOutput, Weighting, weight
from sds3d.options import Schedule, Scheduled, evaluate


class CSD(Guidance):
    """Classifier Score Distillation (Yu et al. 2023, "Text-to-3D with Classifier Score Distillation").

    grad = w(t) ( w1 (eps_y - eps_null) - w2 (eps_neg - eps_null) )
         = w(t) ( w1 eps_y - w2 eps_neg + (w2 - w1) eps_null )

    The coefficients sum to zero. eps_y - eps_null = -sigma d/dx_t log p(y | x_t): only the classifier that is implicit
    in the prior speaks, not its density. w1 = positive_scale, w2 = negative_scale; without a negative prompt eps_neg is
    eps_null, so w2 drops out.

    The schedule of w2 is that of the official first stage, 0 to 1 over half of the run; its refinement stage goes from
    1 to 0.5 over all of it (`{"start": 1, "end": 0.5}`). There w(t) is "uniform" for a prior of pixels and
    "sigma_squared" for one of latents.

    The gradient has no rest point in the data: it leads away from all other classes without bound, and with Adam, which
    undoes its fading, at a steady pace. Steps, the range of the colours and times that fall (t below 0.5 in the second
    half) are what stops it.
    """

    name: Literal["csd"] = "csd"
    positive_scale: Annotated[float, Field(gt=0, le=200, description="w1, the pull towards the prompt")] = 1.0
    negative_scale: Annotated[
        Scheduled, Field(description="w2, the push away from the negative prompt; of no effect where there is none")
    ] = Schedule(start=0.0, end=1.0, begin_at=0.0, end_at=0.5)
    weighting: Annotated[Weighting, Field(description="w(t), the weight of each diffusion time")] = "sigma_squared"

    @field_validator("negative_scale")
    @classmethod
    def _bounded(cls, value: float | Schedule) -> float | Schedule:
        ends = (value.start, value.end) if isinstance(value, Schedule) else (value,)
        if not all(0 <= end <= 200 for end in ends):
            raise ValueError("it must be in [0, 200]")
        return value

    def coefficients(self, progress: float) -> tuple[float, float, float]:
        """(c_y, c_neg, c_null) of the eps, where there is a negative prompt."""
        w1, w2 = self.positive_scale, evaluate(self.negative_scale, progress)
        return w1, -w2, w2 - w1

    def step(self, inputs: GuidanceInput, state: Any) -> GuidanceOutput:
        """Two predictions per view, three while all coefficients count; one whose coefficient is 0 is not asked for."""
        x_t, alpha, sigma = inputs.diffuse()
        cond = inputs.cond
        c_y, c_neg, c_null = self.coefficients(inputs.progress)
        if cond.negative is None:
            terms = [(c_y, cond.positive), (-c_y, cond.null)]
        else:
            terms = [(c_y, cond.positive), (c_neg, cond.negative), (c_null, cond.null)]
        terms = [term for term in terms if term[0] != 0]
        predictions = inputs.prior.predict_noise(x_t, inputs.t, [condition for _, condition in terms], inputs.view)
        total = torch.stack([c * eps for (c, _), eps in zip(terms, predictions, strict=True)]).sum(dim=0)
        grad = weight(self.weighting, alpha, sigma) * total
        return GuidanceOutput(grad, stats={"grad_rms": grad.square().mean().sqrt()})
