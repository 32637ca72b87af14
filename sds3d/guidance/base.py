"""What every guidance is made of. A guidance turns a prior's predictions into a gradient on x.

    SDS    w(t) (eps_w - eps)                  eps_w = cfg(eps_y, eps_null, s)
    SJC    eps_w - eps
    CSD    w(t) (w1 (eps_y - eps_null) - w2 (eps_neg - eps_null))
    NFSD   w(t) (delta_D + s (eps_y - eps_null))            delta_D = eps_null, and at large t eps_null - eps_neg
    SSD    w(t) (eps_y - eps_null), and at small t eps_y without its part along eps, scaled to that length
    ISM    w(t) (eps_w - eps_null(x_s, s))     x_s by inversion, s a little below t
    SDI    w(t) (eps_w - kappa)                kappa by inversion
    VSD    w(t) (eps_w - eps_phi)              eps_phi from a copy of the prior that learns the renders
    CFD    w(t) (eps_w - n(view))              n tied to the surface, t falling over the run

Notation: x_t = alpha x + sigma eps; eps_y, eps_null, eps_neg are the prior's predictions at x_t for the prompt, the
empty text and the negative prompt. One classifier-free guidance convention for all methods, see cfg().
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sds3d.options import Options
from sds3d.priors.base import Prior
from sds3d.types import Conditioning, ViewCondition

Weighting = Literal["sigma_squared", "uniform", "alpha_sigma_squared", "sigma_over_alpha"]


@dataclass(frozen=True)
class GuidanceInput:
    """One question to the prior: how should these views change?

    The draws that every method shares are made already; one that needs more takes them from `generator` (on the CPU).
    """

    x: Float[Tensor, "B C h w"]  # the views in prior space; carries the scene's autograd graph
    t: Float[Tensor, "B"]  # diffusion time, in (0, 1)
    noise: Float[Tensor, "B C h w"]  # eps, from the noise axis
    prior: Prior
    cond: Conditioning
    view: ViewCondition
    progress: float = 0.0  # the part of the run that is done, for schedules
    generator: torch.Generator = field(default_factory=torch.Generator)

    def diffuse(self) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        """x_t, alpha, sigma at t; cut off from the scene's graph."""
        alpha, sigma = self.prior.alpha_sigma(self.t)
        return alpha * self.x.detach() + sigma * self.noise, alpha, sigma


@dataclass(frozen=True)
class GuidanceOutput:
    """What a guidance says about one input."""

    grad: Float[Tensor, "B C h w"]  # detached dL/dx of each view, already weighted by w(t)
    loss: Float[Tensor, ""] | None = None  # loss of the guidance's own parameters
    stats: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


class Guidance(Options, ABC):
    """A method: its hyperparameters are its fields, its equation is `step`. All state is explicit.

    `default_overrides` are the parts on the other axes that the method is published with, {"noise": "surface"}: they are used
    where the person names none. The three facts below decide which combinations a config refuses.
    """

    name: str
    default_overrides: ClassVar[Mapping[str, str]] = {}
    uses_cfg: ClassVar[bool] = False  # by guided_noise(), so that Perp-Neg has something to act on
    uses_noise: ClassVar[bool] = True  # uses the noise of the noise axis
    needs_monotonic_t: ClassVar[bool] = False  # needs one t for all views, and one that never rises

    @property
    def needs_density(self) -> bool:
        """Whether it asks the prior for log_density, as it is set."""
        return False

    def init(self, prior: Prior, generator: torch.Generator) -> nn.Module | None:
        """The method's own state as a module, optimized and checkpointed with the scene; None where it has none."""
        return None

    @abstractmethod
    def step(self, inputs: GuidanceInput, state: Any) -> GuidanceOutput:
        """The gradient for one input; `state` is what `init` returned."""


def weight(
    weighting: Weighting, alpha: Float[Tensor, "B 1 1 1"], sigma: Float[Tensor, "B 1 1 1"]
) -> Float[Tensor, "B 1 1 1"]:
    """w(t): "sigma_squared" (DreamFusion), "uniform" (SJC), "alpha_sigma_squared" (Fantasia3D), "sigma_over_alpha"
    (the gradient of 1/2 ||x - x0_hat||^2)."""
    weights = {
        "sigma_squared": sigma.square(),
        "uniform": torch.ones_like(sigma),
        "alpha_sigma_squared": alpha * sigma.square(),
        "sigma_over_alpha": sigma / alpha,
    }
    return weights[weighting]
