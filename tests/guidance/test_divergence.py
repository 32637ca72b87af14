"""The weights of other divergences, against finite differences of the divergences themselves."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from sds3d.guidance.divergence import log_weight

GENERATORS: dict[str, Callable[[Tensor], Tensor]] = {  # f(r), from log r
    "reverse_kl": lambda log_r: -log_r,
    "forward_kl": lambda log_r: log_r.exp() * log_r,
    "jensen_shannon": lambda log_r: (
        log_r.exp() * log_r - (1 + log_r.exp()) * (torch.log1p(log_r.exp()) - np.log(2))  # r log r - (1+r) log((1+r)/2)
    ),
}


def log_normal(x: Tensor, mean: Tensor | float, std: float) -> Tensor:
    return -0.5 * ((x - mean) / std) ** 2 - np.log(std)


def log_p(x: Tensor) -> Tensor:
    """Two modes."""
    return torch.logaddexp(np.log(0.4) + log_normal(x, -1.0, 0.5), np.log(0.6) + log_normal(x, 1.5, 0.7))


def renders(theta: Tensor | float) -> tuple[Tensor, Tensor]:
    """x = theta + 0.9 z, and weights for the mean over z, on a fine grid."""
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    weights = (-0.5 * z**2).exp()
    return theta + 0.9 * z, weights / weights.sum()


@pytest.mark.parametrize("divergence", GENERATORS)
@pytest.mark.parametrize("theta", [-0.5, 0.3, 1.0])
def test_the_weight_gives_the_gradient_of_its_divergence(divergence: str, theta: float) -> None:  # T13
    """d/dtheta D_f(p || q) = -E_q[h(r) (grad log p - grad log q) dx/dtheta]."""

    def value(at: float) -> float:
        x, weights = renders(at)
        return float((weights * GENERATORS[divergence](log_p(x) - log_normal(x, at, 0.9))).sum())

    x, weights = renders(theta)
    x.requires_grad_()
    log_ratio = log_p(x) - log_normal(x, theta, 0.9)
    (difference,) = torch.autograd.grad(log_ratio.sum(), x)
    gradient = -(weights * log_weight(divergence, log_ratio.detach()).exp() * difference).sum()
    step = 1e-4
    expected = (value(theta + step) - value(theta - step)) / (2 * step)
    assert float(gradient) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert abs(float(gradient)) > 1e-3


def test_ratios_beyond_the_range_of_numbers_stay_finite() -> None:
    log_ratio = torch.tensor([-1000.0, 0.0, 1000.0])
    assert log_weight("reverse_kl", log_ratio).tolist() == [0, 0, 0]
    assert log_weight("forward_kl", log_ratio).tolist() == [-1000, 0, 1000]
    torch.testing.assert_close(log_weight("jensen_shannon", log_ratio), torch.tensor([-1000.0, -math.log(2), 0.0]))
