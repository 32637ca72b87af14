from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from sds3d.errors import ConfigError
from sds3d.guidance.base import Guidance, GuidanceInput, GuidanceOutput, Weighting, rms, weight
from sds3d.guidance.cfg import GuidanceScale, Rescale, guided_noise
from sds3d.guidance.divergence import Divergence, divergence_weight, dmd_scale
from sds3d.priors.base import DensityPrior, Prior, TrainablePrior
from sds3d.types import Scalar


class VSD(Guidance[nn.Module]):
    """Variational Score Distillation (Wang et al. 2023, ProlificDreamer, arXiv 2305.16213).

    grad = w(t) (eps_w - eps_phi(x_t; y, camera)),   eps_w = eps_base + s (eps_y - eps_base)
    loss = w'(t') || eps_phi(alpha x + sigma eps'; t') - eps' ||^2,   fresh t' ~ U(0, 1), eps' ~ N(0, I), x constant

    eps_phi, the critic, is a trainable copy of the prior that learns to predict the noise in diffused renders. It gets
    the prompt without view words, and the camera.

    Pitfall: for a single scene a perfect critic answers eps, and VSD is SDS with this s. What helps is that the critic
    lags behind and has little capacity; its learning rate is `optim.guidance_lr`.
    """

    name: Literal["vsd"] = "vsd"
    uses_cfg: ClassVar[bool] = True
    guidance_scale: GuidanceScale = 7.5
    rescale: Rescale = 0.0
    weighting: Weighting = "sigma_squared"
    normalize: Annotated[bool, Field(description="divide by mean |x - x0_hat_w| of each view, as DMD does")] = False
    divergence: Annotated[
        Divergence, Field(description="divergence to minimize; all but reverse_kl need a prior with a density")
    ] = "reverse_kl"
    lora_rank: Annotated[int, Field(ge=1, le=64, description="rank of the critic's difference from the prior")] = 4
    critic_weighting: Annotated[
        Weighting, Field(description="w'(t'), the weight of each time in the critic's loss")
    ] = "sigma_squared"  # published: uniform, where a prior of x0 would let the smallest t' dominate

    @property
    def needs_density(self) -> bool:
        """For the ratio of densities in all divergences but reverse_kl."""
        return self.divergence != "reverse_kl"

    def init(self, prior: Prior, generator: torch.Generator) -> nn.Module:
        """The critic, which starts equal to the prior; ConfigError if the prior cannot be copied or lacks a density."""
        if not isinstance(prior, TrainablePrior):
            raise ConfigError(
                "guidance vsd trains a copy of the prior, and this prior cannot be copied",
                hint="use another guidance, such as sds",
                field="guidance",
            )
        if self.needs_density and not isinstance(prior, DensityPrior):
            raise ConfigError(
                f"guidance.divergence = {self.divergence!r} needs a prior that knows its density",
                hint="use reverse_kl, or the analytic prior",
                field="guidance.divergence",
            )
        return prior.trainable_copy(self.lora_rank, generator)

    def step(self, inputs: GuidanceInput, state: nn.Module) -> GuidanceOutput:
        """Two predictions of the prior per view and one of the critic; then one of the critic with gradients."""
        # Score: w(t) (eps_w - eps_phi), a gradient for the scene
        x_t, alpha, sigma = inputs.diffuse()
        eps_w = guided_noise(inputs, x_t, inputs.t, self.guidance_scale, self.rescale)
        factor = weight(self.weighting, alpha, sigma)
        with torch.no_grad():
            eps_phi = state(x_t, inputs.t, inputs.cond.plain, inputs.view)
            if self.needs_density:
                factor = factor * divergence_weight(self.divergence, inputs, state, x_t)
        if self.normalize:
            factor = factor / dmd_scale(inputs, eps_w, x_t, alpha, sigma)
        grad = factor * (eps_w - eps_phi)
        # Critic: one step of its denoising loss, taken by the run's optimizer
        loss = denoising_loss(state, inputs, self.critic_weighting)
        return GuidanceOutput(grad, loss, stats={"grad_rms": rms(grad)})


def denoising_loss(critic: nn.Module, inputs: GuidanceInput, weighting: Weighting) -> Scalar:
    """w'(t') || eps_phi(alpha x + sigma eps'; t') - eps' ||^2 with fresh t' ~ U(0, 1), eps' ~ N(0, I); x is constant.

    Summed over C h w and averaged over the views, as all gradients are: a mean over elements would leave gradients that
    half-precision networks flush to zero.
    """
    x = inputs.x.detach()
    t = torch.rand(len(x), generator=inputs.generator).to(x.device)
    eps = torch.randn(x.shape, generator=inputs.generator).to(x)
    alpha, sigma = inputs.prior.alpha_sigma(t)
    eps_phi = critic(alpha * x + sigma * eps, t, inputs.cond.plain, inputs.view)
    return (weight(weighting, alpha, sigma) * (eps_phi - eps).square()).sum() / len(x)
