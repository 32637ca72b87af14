"""What a model's scheduler says about noise, as (alpha, sigma): here alone are v and velocity turned into eps.

Flow matching mixes x_u = (1 - u) x + u eps and predicts the velocity eps - x. Divided by the root of (1 - u)^2 + u^2
that is x_t = alpha x + sigma eps with alpha^2 + sigma^2 = 1, as of any other prior, and u = sigma / (alpha + sigma).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sds3d.errors import PriorUnavailable
from sds3d.priors.base import eps_from_sample, eps_from_v, eps_from_velocity

TO_EPS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda out, x_t, alpha, sigma: out,
    "v_prediction": eps_from_v,
    "sample": eps_from_sample,
    "velocity": eps_from_velocity,
}


class Schedule(ABC):
    """alpha and sigma as functions of t in (0, 1), in float32: in half precision sigma is off by 7% at t = 0.001."""

    prediction: str  # of TO_EPS

    @abstractmethod
    def alpha_sigma(self, t: Float[Tensor, "B"]) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        """At the scheduler's tick nearest to t; alpha^2 + sigma^2 = 1."""

    @abstractmethod
    def timestep(self, t: Float[Tensor, "B"]) -> Tensor:
        """The time as the network is told it: [B], in thousandths."""

    def network_input(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x_t as the network wants it."""
        return x_t

    def eps(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """eps_hat from what the network puts out."""
        return TO_EPS[self.prediction](out, x_t, alpha, sigma)


class Discrete(Schedule):
    """DDPM's ticks: alpha = sqrt(alphas_cumprod), by the network's own table."""

    def __init__(self, alphas_cumprod: Float[Tensor, "T"], prediction: str) -> None:
        self.alphas_cumprod, self.prediction = alphas_cumprod.float(), prediction

    def timestep(self, t: Float[Tensor, "B"]) -> Tensor:
        count = len(self.alphas_cumprod)
        return (t.double() * count).round().long().clamp(0, count - 1).to(self.alphas_cumprod.device)

    def alpha_sigma(self, t: Float[Tensor, "B"]) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        kept = self.alphas_cumprod[self.timestep(t)][:, None, None, None]
        return kept.sqrt(), (1.0 - kept).sqrt()


class Flow(Schedule):
    """Rectified flow (Liu et al. 2022).

    u = shift t / (1 + (shift - 1) t), which spends more of t at high noise for large images (Esser et al. 2024, 23).
    """

    prediction = "velocity"

    def __init__(self, shift: float, device: torch.device) -> None:
        self.shift, self.device = shift, device

    def _u(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        t = t.float().to(self.device)
        return self.shift * t / (1.0 + (self.shift - 1.0) * t)

    def timestep(self, t: Float[Tensor, "B"]) -> Tensor:
        return 1000.0 * self._u(t)

    def alpha_sigma(self, t: Float[Tensor, "B"]) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        u = self._u(t)[:, None, None, None]
        length = ((1.0 - u).square() + u.square()).sqrt()
        return (1.0 - u) / length, u / length

    def network_input(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x_t / (alpha + sigma)


def schedule_of(scheduler: Any, tokens: int, device: torch.device) -> Schedule:
    """The schedule of a diffusers scheduler; `tokens` is how many the image is for a transformer, which some go by."""
    config = scheduler.config
    if type(scheduler).__name__.startswith("FlowMatch"):
        return Flow(_flow_shift(config, tokens), device)
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        return Flow(float(config.get("flow_shift", 1.0)), device)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in TO_EPS or not hasattr(scheduler, "alphas_cumprod"):
        raise PriorUnavailable(
            f"scheduler {type(scheduler).__name__} with prediction_type {prediction!r} is not supported",
            "DDPM-like ones that predict epsilon, v_prediction or sample are, and those for flow matching",
        )
    return Discrete(scheduler.alphas_cumprod.to(device), prediction)


def _flow_shift(config: Any, tokens: int) -> float:
    """Fixed, or by the number of tokens: mu on a straight line between two points, and exp(mu) the shift."""
    if not config.get("use_dynamic_shifting"):
        return float(config.get("shift", 1.0))
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = base + (most - base) * (tokens - low) / (high - low)
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)
