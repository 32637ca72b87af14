"""Consistent Flow Distillation."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sds3d.guidance.base import Weighting
from sds3d.guidance.sds import SDS


class CFD(SDS):
    """Consistent Flow Distillation (Yan et al. 2025): SDS whose noise stays and whose t only falls.

    grad = lambda (eps_w(alpha x + sigma n(view), t) - n(view)),   lambda = sigma / alpha

    n(view) is noise that is tied to the surface and does not change (noise=surface), t is one for all views and falls
    over the run (timesteps=descending). With the noise fixed, a diffusion sampler's path is, for x = x_t / alpha -
    lambda n,

    dx / dlambda = eps_w - n,   from x = 0 at the largest lambda,

    so x <- x - (lambda_k - lambda_k+1) (eps_w - n) is deterministic DDIM, and each noise leads to a sample of its own.
    SDS follows the mean over all noises, which leads nearly every start to the same place: it is the fixed noise that
    keeps the variety.

    Three things to know:
    - At one t for ever the fixed point is no sample: for p = N(0, v I) it is n alpha v / sigma, which grows without
      bound as t falls to 0. It is the fall that counts, and it has to end well above 0.
    - The steps should be as large as |d lambda|. Adam's are not: with it the mode is the sampler's, the place in it is
      not. Large steps late overshoot, and too few or too small ones stay behind.
    - `weighting` other than sigma_over_alpha, the code's "dmd", changes only the steps' size: "uniform" is the code's
      choice with a multi-view prior.

    Published guidance scales, in the convention of cfg(), are 50 with a multi-view prior and 71 with Stable Diffusion.
    """

    name: Literal["cfd"] = "cfd"  # type: ignore[assignment]  # a part's name is its own
    needs_monotonic_t: ClassVar[bool] = True
    default_overrides: ClassVar[Mapping[str, str]] = {"noise": "surface", "timesteps": "descending"}
    weighting: Annotated[Weighting, Field(description="w(t), the weight of each diffusion time")] = "sigma_over_alpha"
