"""The noise schedule of a model's scheduler as (alpha, sigma), and the conversion of its predictions to eps.

Flow matching has x_u = (1 - u) x + u eps and predicts the velocity eps - x (Liu et al. 2022). Divided by
sqrt((1 - u)^2 + u^2), x_u is x_t = alpha x + sigma eps with alpha^2 + sigma^2 = 1, and u = sigma / (alpha + sigma).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.errors import PriorUnavailable
from sds3d.priors.base import Factors, Times, eps_from_sample, eps_from_v, eps_from_velocity

TO_EPS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda out, x_t, alpha, sigma: out,
    "v_prediction": eps_from_v,
    "sample": eps_from_sample,
    "velocity": eps_from_velocity,
}
LEAST = 2.0**-24  # of alphas_cumprod, as in diffusers: models of zero terminal SNR have 0 at the last tick
FEW_STEPS = ("LCMScheduler", "TCDScheduler")  # of models that predict where a few large steps lead, which is no score


class Schedule(ABC):
    """alpha and sigma as functions of t in (0, 1), in float32: in half precision sigma is off by 7% at t = 0.001."""

    prediction: str  # a key of TO_EPS

    @abstractmethod
    def alpha_sigma(self, t: Times) -> tuple[Factors, Factors]:
        """At the scheduler's tick nearest to t; alpha^2 + sigma^2 = 1."""

    @abstractmethod
    def timestep(self, t: Times) -> Tensor:
        """The network's time input for t: [B], in thousandths."""

    def network_input(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The network's image input for x_t."""
        return x_t

    def eps(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """eps_hat from the network's output."""
        return TO_EPS[self.prediction](out, x_t, alpha, sigma)


class Discrete(Schedule):
    """DDPM's discrete times: alpha = sqrt(alphas_cumprod), from the scheduler's own table."""

    def __init__(self, alphas_cumprod: Float[Tensor, " T"], prediction: str) -> None:
        self.alphas_cumprod, self.prediction = alphas_cumprod.float().clamp_min(LEAST), prediction

    def timestep(self, t: Times) -> Tensor:
        count = len(self.alphas_cumprod)
        return (t.double() * count).round().long().clamp(0, count - 1).to(self.alphas_cumprod.device)

    def alpha_sigma(self, t: Times) -> tuple[Factors, Factors]:
        alpha_squared = self.alphas_cumprod[self.timestep(t)][:, None, None, None]
        return alpha_squared.sqrt(), (1.0 - alpha_squared).sqrt()


class Flow(Schedule):
    """Rectified flow (Liu et al. 2022), u = shift t / (1 + (shift - 1) t) (Esser et al. 2024, eq. 23).

    A shift above 1, which large images need, spends more of t at high noise.
    """

    prediction = "velocity"

    def __init__(self, shift: float, device: torch.device) -> None:
        self.shift, self.device = shift, device

    def _u(self, t: Times) -> Float[Tensor, " B"]:
        t = t.float().to(self.device)
        return self.shift * t / (1.0 + (self.shift - 1.0) * t)

    def timestep(self, t: Times) -> Tensor:
        return 1000.0 * self._u(t)

    def alpha_sigma(self, t: Times) -> tuple[Factors, Factors]:
        u = self._u(t)[:, None, None, None]
        length = ((1.0 - u).square() + u.square()).sqrt()
        return (1.0 - u) / length, u / length

    def network_input(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x_t / (alpha + sigma)


def schedule_of(scheduler: Any, tokens: int, device: torch.device) -> Schedule:
    """The schedule of a diffusers scheduler; `tokens` is the image's number of tokens, on which some shifts depend."""
    config = scheduler.config
    if type(scheduler).__name__.startswith("FlowMatch"):
        return Flow(_flow_shift(config, tokens), device)
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        return Flow(float(config.get("flow_shift", 1.0)), device)
    prediction = config.get("prediction_type", "epsilon")
    is_continuous = config.get("timestep_type") == "continuous"  # EDM: the network is told log(sigma) / 4
    if prediction not in TO_EPS or not hasattr(scheduler, "alphas_cumprod") or is_continuous:
        kind = " of continuous times" if is_continuous else ""
        raise PriorUnavailable(
            f"scheduler {type(scheduler).__name__}{kind} with prediction_type {prediction!r} is not supported",
            "supported: flow matching, and DDPM-like ones that predict epsilon, v_prediction or sample",
        )
    return Discrete(scheduler.alphas_cumprod.to(device), prediction)


def _flow_shift(config: Any, tokens: int) -> float:
    """Fixed, or exp(mu) with mu linear in the number of tokens."""
    if not config.get("use_dynamic_shifting"):
        return float(config.get("shift", 1.0))
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = base + (most - base) * (tokens - low) / (high - low)
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)
