from typing import Literal

from sds3d.guidance.base import Weighting
from sds3d.guidance.sds import SDS


class SJC(SDS):
    """Score Jacobian Chaining (Wang et al. 2022, arXiv 2212.00774): SDS with w(t) = 1.

    z = x + lambda eps,   D = z - lambda eps_w(z / sqrt(1 + lambda^2)),   grad = (x - D) / lambda = eps_w - eps

    with lambda = sigma / alpha, the noise level of the paper's variance-exploding form. The input of the network,
    z / sqrt(1 + lambda^2), is x_t, so the step is that of SDS; the paper calls its `- eps` variance reduction.

    Pitfall: the official guidance scale of 100 is 101 in the convention of cfg().
    """

    name: Literal["sjc"] = "sjc"  # type: ignore[assignment]  # a part's name is its own
    weighting: Weighting = "uniform"  # w(t) = 1; step() is that of SDS
