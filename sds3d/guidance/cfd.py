from collections.abc import Mapping
from typing import ClassVar, Literal

from sds3d.guidance.base import Weighting
from sds3d.guidance.sds import SDS


class CFD(SDS):
    """Consistent Flow Distillation (Yan et al. 2025, arXiv 2501.05445): SDS with fixed noise and a falling t.

    grad = lambda (eps_w(alpha x + sigma n(view), t) - n(view)),   lambda = sigma / alpha

    n(view) is noise attached to the surface that does not change over the run (noise=surface); t is one for all views
    and only falls (timesteps=descending). With n fixed and x = x_t / alpha - lambda n, a diffusion sampler follows

    dx / dlambda = eps_w - n,   from x = 0 at the largest lambda,

    so x <- x - (lambda_k - lambda_k+1) (eps_w - n) is deterministic DDIM: each noise leads to a sample of its own.

    Pitfall: at a constant t the fixed point is no sample of the prior, so t has to fall over the whole run. It has to
    end well above 0.
    """

    name: Literal["cfd"] = "cfd"  # type: ignore[assignment]  # a part's name is its own
    needs_monotonic_t: ClassVar[bool] = True  # t is the sampler's noise level
    default_overrides: ClassVar[Mapping[str, str]] = {"noise": "surface", "timesteps": "descending"}  # n(view) and t
    weighting: Weighting = "sigma_over_alpha"  # lambda; step() is that of SDS, with n(view) as its eps
