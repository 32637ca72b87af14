"""What every guidance is made of. A guidance turns a prior's predictions into a gradient on x.

    SDS    w(t) (eps_w - eps)                  eps_w = cfg(eps_y, eps_null, s)

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
class Query:
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
    """What a guidance says about one query."""

    grad: Float[Tensor, "B C h w"]  # detached dL/dx of each view, already weighted by w(t)
    loss: Float[Tensor, ""] | None = None  # loss of the guidance's own parameters
    stats: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


class Guidance(Options, ABC):
    """A method: its hyperparameters are its fields, its equation is `step`. All state is explicit.

    `companions` are the parts on the other axes that the method is published with, {"noise": "surface"}: they are used
    where the person names none.
    """

    name: str
    companions: ClassVar[Mapping[str, str]] = {}

    def init(self, prior: Prior, generator: torch.Generator) -> nn.Module | None:
        """The method's own state as a module, optimized and checkpointed with the scene; None where it has none."""
        return None

    @abstractmethod
    def step(self, query: Query, state: Any) -> GuidanceOutput:
        """The gradient for one query; `state` is what `init` returned."""


def cfg(
    eps_y: Float[Tensor, "B C h w"], eps_base: Float[Tensor, "B C h w"], guidance_scale: float
) -> Float[Tensor, "B C h w"]:
    """eps_w = eps_base + s (eps_y - eps_base) (Ho & Salimans 2022): s = 1 is the plain conditional prediction.

    Code that writes eps_y + s (eps_y - eps_base) means s + 1 here.
    """
    return eps_base + guidance_scale * (eps_y - eps_base)


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


class _Inject(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(grad)
        ctx.x_dtype = x.dtype
        return 0.5 * grad.square().sum() / len(grad)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (grad,) = ctx.saved_tensors
        return (grad_outputs[0] * grad / len(grad)).to(ctx.x_dtype), None


def inject_gradient(x: Float[Tensor, "B C h w"], grad: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """A loss whose gradient on x is grad / B, in float32 (or wider), and whose value is 1/2 ||grad||^2 / B.

    That is 1/2 ||x - stopgrad(x - grad)||^2 summed over C h w and averaged over B, without its rounding. A mean over
    all elements would scale the gradient by 1/(C h w), which no optimizer setting in the literature expects.
    """
    return _Inject.apply(x, grad.detach().to(torch.promote_types(grad.dtype, torch.float32)))
