from typing import Annotated, Literal

import torch
from pydantic import Field

from sds3d.guidance.base import Guidance, GuidanceInput, GuidanceOutput, Weighting, rms, weight
from sds3d.options import Schedule, Scheduled, bounded, evaluate


class CSD(Guidance[None]):
    """Classifier Score Distillation (Yu et al. 2023, arXiv 2310.19415).

    grad = w(t) ( w1 (eps_y - eps_null) - w2 (eps_neg - eps_null) )
         = w(t) ( w1 eps_y - w2 eps_neg + (w2 - w1) eps_null )

    eps_y - eps_null = -sigma d/dx_t log p(y | x_t), from the classifier that is implicit in the prior. Without a
    negative prompt the second term is zero.

    Pitfall: the gradient has no fixed point in the data, and Adam's normalization keeps its steps large even as it
    fades. Bound the run by its steps and let t fall.
    """

    name: Literal["csd"] = "csd"
    positive_scale: Annotated[float, Field(gt=0, le=200, description="w1, the pull towards the prompt")] = 1.0
    negative_scale: Annotated[
        Scheduled,
        bounded("in [0, 200]", lambda w2: 0 <= w2 <= 200),
        Field(description="w2, the push away from the negative prompt; no effect without one"),
    ] = Schedule(start=0.0, end=1.0, begin_at=0.0, end_at=0.5)
    weighting: Weighting = "sigma_squared"

    def coefficients(self, progress: float) -> tuple[float, float, float]:
        """(c_y, c_neg, c_null), the coefficients of the three predictions; they sum to zero."""
        w1, w2 = self.positive_scale, evaluate(self.negative_scale, progress)
        return w1, -w2, w2 - w1

    def step(self, inputs: GuidanceInput, state: None) -> GuidanceOutput:
        """Two predictions per view, three with a negative prompt; one whose coefficient is 0 is skipped."""
        x_t, alpha, sigma = inputs.diffuse()  # x_t = alpha x + sigma eps
        cond = inputs.cond
        c_y, c_neg, c_null = self.coefficients(inputs.progress)  # w1, -w2, w2 - w1
        if cond.negative is None:
            terms = [(c_y, cond.positive), (-c_y, cond.null)]
        else:
            terms = [(c_y, cond.positive), (c_neg, cond.negative), (c_null, cond.null)]
        terms = [term for term in terms if term[0] != 0]
        predictions = inputs.prior.predict_noise(x_t, inputs.t, [condition for _, condition in terms], inputs.view)
        # classifier scores: w1 (eps_y - eps_null) - w2 (eps_neg - eps_null)
        total = torch.stack([c * eps for (c, _), eps in zip(terms, predictions, strict=True)]).sum(dim=0)
        grad = weight(self.weighting, alpha, sigma) * total  # w(t)
        return GuidanceOutput(grad, stats={"grad_rms": rms(grad)})
