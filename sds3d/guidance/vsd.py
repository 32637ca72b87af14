"""Variational Score Distillation."""

from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from sds3d.errors import ConfigError
from sds3d.guidance.base import Guidance, GuidanceInput, GuidanceOutput, Weighting, weight
from sds3d.guidance.cfg import Rescale, guided_noise
from sds3d.guidance.divergence import Divergence, log_weight
from sds3d.options import Range
from sds3d.priors.base import DensityPrior, Prior, TrainablePrior, sample_from_eps


def _times(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] < 0 or value[1] > 1:
        raise ValueError("both ends must be in [0, 1]")
    return value


class VSD(Guidance):
    """Variational Score Distillation (Wang et al. 2023, ProlificDreamer).

    grad = w(t) (eps_w - eps_phi(x_t; y, camera)),   eps_w = eps_base + s (eps_y - eps_base)
    loss = w'(t') || eps_phi(alpha x + sigma eps'; t') - eps' ||^2,   t' ~ U, eps' ~ N(0, I), both fresh, x a constant

    eps_phi, the critic, is a trainable copy of the prior that learns what the renders look like. It is told the prompt
    as written and the camera. If it knew their diffused density q_t, then for s = 1

    E[ alpha / (sigma w) grad dx/dtheta ] = d/dtheta KL( q_t || p_t(. | y) )

    which is zero where the renders are spread like the prior. At the published s = 7.5, p is sharpened and has no name.
    The renders are those of one scene or of several, the paper's particles (`particles=4`), with one critic for all. A
    critic that knew a single scene from each camera would answer eps, and VSD would be SDS with this s: what helps then
    is that it learns with a lag and with little capacity. 32 particles of three numbers do spread over the prior's
    modes, where those of SDS all end at one; for whole scenes few fit into memory, and the published default is 1.

    Differences from the published code: w' is sigma^2, not 1 ("uniform"). The best eps_phi at each t' is the same, but
    where a prior predicts the clean image the errors of eps grow as 1 / sigma, and the smallest t' would be all that
    the critic learns from. The tenth of its steps that hide the camera are left out: they serve a guidance of the
    critic that the code sets to 1, where it changes nothing. It predicts what the prior does, not always v.

    `normalize` with `weighting="sigma_over_alpha"` is the gradient of Distribution Matching Distillation (Yin et al.
    2024), (x0_hat_phi - x0_hat_w) / mean |x - x0_hat_w|. `divergence` weights each view by the ratio of densities,
    scaled to a mean of 1 over the views (with whole images, nearly all of it falls on one view); it needs a prior that
    knows its density.
    """

    name: Literal["vsd"] = "vsd"
    uses_cfg: ClassVar[bool] = True
    guidance_scale: Annotated[float, Field(ge=0, le=200, description="classifier-free guidance; 1 is none")] = 7.5
    rescale: Rescale = 0.0
    weighting: Annotated[Weighting, Field(description="w(t), the weight of each diffusion time")] = "sigma_squared"
    normalize: Annotated[bool, Field(description="divide by mean |x - x0_hat_w| of each view, as DMD does")] = False
    divergence: Annotated[Divergence, Field(description="what is minimized; all but reverse_kl need p / q")] = (
        "reverse_kl"
    )
    lora_rank: Annotated[int, Field(ge=1, le=64, description="rank of the critic's difference from the prior")] = 4
    critic_t: Annotated[
        Range, AfterValidator(_times), Field(description="diffusion times that the critic is trained at")
    ] = (0.0, 1.0)
    critic_weighting: Annotated[Weighting, Field(description="weight of each diffusion time in the critic's loss")] = (
        "sigma_squared"
    )

    @property
    def needs_density(self) -> bool:
        """For the ratio of densities."""
        return self.divergence != "reverse_kl"

    def init(self, prior: Prior, generator: torch.Generator) -> nn.Module:
        """The critic, which starts as the prior."""
        if not isinstance(prior, TrainablePrior):
            raise ConfigError("guidance vsd trains a copy of the prior, and this prior has none", hint="try sds")
        if self.needs_density and not isinstance(prior, DensityPrior):
            raise ConfigError(
                f"guidance.divergence = {self.divergence!r} needs a prior that knows its density",
                hint="use reverse_kl, or the analytic prior",
            )
        return prior.trainable_copy(self.lora_rank, generator)

    def step(self, inputs: GuidanceInput, state: Any) -> GuidanceOutput:
        """Two predictions of the prior and one of the critic; then one of the critic with gradients, for its loss."""
        x_t, alpha, sigma = inputs.diffuse()
        eps_w = guided_noise(inputs, x_t, inputs.t, self.guidance_scale, self.rescale)
        with torch.no_grad():
            eps_phi = state(x_t, inputs.t, inputs.cond.plain, inputs.view)
            factor = weight(self.weighting, alpha, sigma) * self._importance(inputs, state, x_t)
        if self.normalize:
            distance = inputs.x.detach() - sample_from_eps(eps_w, x_t, alpha, sigma)
            factor = factor / distance.abs().mean(dim=(1, 2, 3), keepdim=True)
        grad = factor * (eps_w - eps_phi)
        loss = self._critic_loss(inputs, state)
        return GuidanceOutput(grad, loss, stats={"grad_rms": grad.square().mean().sqrt()})

    def _importance(
        self, inputs: GuidanceInput, state: Any, x_t: Float[Tensor, "B C h w"]
    ) -> Float[Tensor, "B 1 1 1"] | float:
        """h(p_t / q_t) of each view over its mean."""
        if not self.needs_density:
            return 1.0
        prior: Any = inputs.prior
        log_p = prior.log_density(x_t, inputs.t, inputs.cond.positive, inputs.view)
        log_q = state.log_density(x_t, inputs.t, inputs.cond.plain, inputs.view)
        shares = log_weight(self.divergence, log_p - log_q).softmax(dim=0)
        return len(x_t) * shares[:, None, None, None]

    def _critic_loss(self, inputs: GuidanceInput, critic: Any) -> Float[Tensor, ""]:
        """w'(t') || eps_phi - eps' ||^2, summed over C h w and averaged over the views as all gradients are.

        A mean over elements would leave gradients that half-precision networks flush to zero.
        """
        x = inputs.x.detach()
        first, last = self.critic_t
        t = (first + (last - first) * torch.rand(len(x), generator=inputs.generator)).to(x.device)
        eps = torch.randn(x.shape, generator=inputs.generator).to(x)
        alpha, sigma = inputs.prior.alpha_sigma(t)
        eps_phi = critic(alpha * x + sigma * eps, t, inputs.cond.plain, inputs.view)
        return (weight(self.critic_weighting, alpha, sigma) * (eps_phi - eps).square()).sum() / len(x)
