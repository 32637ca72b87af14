"""The interface of a guidance method: it turns a prior's noise predictions into a gradient on x. A map of the folder:

    SDS    w(t) (eps_w - eps)                  eps_w = cfg(eps_y, eps_base, s)
    SJC    eps_w - eps
    CSD    w(t) (w1 (eps_y - eps_null) - w2 (eps_neg - eps_null))
    NFSD   w(t) (delta_D + s (eps_y - eps_null))            delta_D = eps_null at small t, else eps_null - eps_neg
    SSD    w(t) (eps_y - eps_base); at small t, eps_y without its component along eps, scaled to that length
    ISM    w(t) (eps_w - eps_null(x_s, s))     x_s by DDIM inversion, s a little below t
    SDI    w(t) (eps_w - kappa)                kappa by DDIM inversion
    VSD    w(t) (eps_w - eps_phi)              eps_phi by a critic, a copy of the prior trained on the renders
    CFD    w(t) (eps_w - n(view))              n attached to the surface, t falling over the run

Notation: x_t = alpha x + sigma eps; eps_y, eps_null, eps_neg are the prior's predictions at x_t for the prompt, the
empty text and the negative prompt; eps_base is eps_neg if there is a negative prompt, else eps_null. cfg.py has the one
convention for classifier-free guidance: cfg(eps_y, eps_base, s) = eps_base + s (eps_y - eps_base). docs/guidance.md
compares the methods.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor

from sds3d.options import Options
from sds3d.priors.base import Prior
from sds3d.types import Conditioning, Factor, Latents, PerView, Scalar, ViewCondition

Weighting = Annotated[
    Literal["sigma_squared", "uniform", "alpha_sigma_squared", "sigma_over_alpha"],
    Field(description="w(t), the weight of each diffusion time"),
]

State = TypeVar("State")  # None, or an nn.Module


@dataclass(frozen=True)
class GuidanceInput:
    """One batch of views at their diffusion times, with everything that a method may use to judge them.

    t and noise are already drawn; a method that needs more random numbers takes them from `generator` (on the CPU).
    """

    x: Latents  # the views in prior space; carries the scene's autograd graph
    t: PerView  # diffusion time, in (0, 1)
    noise: Latents  # eps, from the noise axis
    prior: Prior
    cond: Conditioning
    view: ViewCondition
    progress: float = 0.0  # fraction of the run that is done, for schedules
    generator: torch.Generator = field(default_factory=torch.Generator)

    def diffuse(self) -> tuple[Latents, Factor, Factor]:
        """x_t = alpha x + sigma eps, alpha and sigma at t; detached from the scene's graph."""
        alpha, sigma = self.prior.alpha_sigma(self.t)
        return alpha * self.x.detach() + sigma * self.noise, alpha, sigma


@dataclass(frozen=True)
class GuidanceOutput:
    """The result of one step."""

    grad: Latents  # dL/dx of each view, detached and already weighted by w(t)
    loss: Scalar | None = None  # loss of the method's own parameters
    stats: Mapping[str, Scalar] = field(default_factory=dict)


class Guidance(Options, ABC, Generic[State]):
    """A method: its fields are its hyperparameters, `step` is its equation, and `State` is what it keeps between steps.

    `SDS(Guidance[None])` keeps nothing; `VSD(Guidance[nn.Module])` keeps a network that `init` makes.
    `default_overrides` names the parts on other axes that the method is published with, such as {"noise": "surface"};
    as defaults they give way to what a person chooses. The facts below decide which combinations a config refuses.
    """

    name: str
    default_overrides: ClassVar[Mapping[str, str]] = {}
    uses_cfg: ClassVar[bool] = False  # through guided_noise(), so Perp-Neg has an effect
    uses_noise: ClassVar[bool] = True  # reads GuidanceInput.noise
    needs_monotonic_t: ClassVar[bool] = False  # needs one t for all views that never rises

    @property
    def needs_density(self) -> bool:
        """Whether the method, with its options, calls the prior's log_density."""
        return False

    def init(self, prior: Prior, generator: torch.Generator) -> State:
        """The state of a new run, an nn.Module that is optimized and checkpointed with the scene; None by default."""
        return cast(State, None)

    @abstractmethod
    def step(self, inputs: GuidanceInput, state: State) -> GuidanceOutput:
        """The gradient for one batch of views; `state` is what `init` returned."""


def weight(weighting: Weighting, alpha: Factor, sigma: Factor) -> Factor:
    """w(t): "sigma_squared" (DreamFusion), "uniform" (SJC), "alpha_sigma_squared" (Fantasia3D), "sigma_over_alpha"
    (the gradient of 1/2 ||x - x0_hat||^2)."""
    weights = {
        "sigma_squared": sigma.square(),
        "uniform": torch.ones_like(sigma),
        "alpha_sigma_squared": alpha * sigma.square(),
        "sigma_over_alpha": sigma / alpha,
    }
    return weights[weighting]


def rms(value: Latents) -> Scalar:
    """Root mean square over all elements."""
    return value.square().mean().sqrt()


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


def inject_gradient(x: Latents, grad: Latents) -> Scalar:
    """A loss with value 1/2 ||grad||^2 / B and gradient grad / B on x, in float32 or wider.

    It equals 1/2 ||x - stopgrad(x - grad)||^2, summed over C h w and averaged over B, without the rounding of x - grad.
    Pitfall: code that averages over C h w as well has a gradient smaller by 1 / (C h w).
    """
    return _Inject.apply(x, grad.detach().to(torch.promote_types(grad.dtype, torch.float32)))


def clip_gradient(grad: Latents, limit: float) -> tuple[Latents, Scalar]:
    """Clamps each element to [-limit, limit]; also returns the fraction of elements that were outside.

    Infinite and nan elements stay as they are, so that the health check sees them.
    """
    outside = grad.abs() > limit
    return torch.where(grad.isinf(), grad, grad.clamp(-limit, limit)), outside.to(grad.dtype).mean()
