"""Score Jacobian Chaining."""

from typing import Annotated, Literal

from pydantic import Field

from sds3d.guidance.base import Weighting
from sds3d.guidance.sds import SDS


class SJC(SDS):
    """Score Jacobian Chaining (Wang et al. 2022): SDS with w(t) = 1, under its own name.

    The paper writes it for noise that grows instead of mixing (VE form): with lambda = sigma / alpha,

    z = x + lambda eps,   D = z - lambda eps_w(z / sqrt(1 + lambda^2)),   grad = (x - D) / lambda = eps_w - eps

    z / sqrt(1 + lambda^2) is x_t, so the step is that of SDS. Its variance reduction is the `- eps`. The official run
    has t in [0.01, 0.97], guidance scale 100 + 1 in the convention of cfg(), and no encoder: the scene is a grid of
    latents.
    """

    name: Literal["sjc"] = "sjc"  # type: ignore[assignment]  # a part's name is its own
    weighting: Annotated[Weighting, Field(description="w(t), the weight of each diffusion time")] = "uniform"
