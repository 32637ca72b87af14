"""DDIM inversion against the flow that a Gaussian has in closed form, and against DDIM itself."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sds3d.guidance.inversion import ddim_step, invert
from sds3d.priors.analytic import AnalyticPrior
from tests.guidance.exact_priors import plane_mixture, points

VARIANCE = 0.25


def ball() -> AnalyticPrior:
    """N(0, 1/4) in the plane, float64."""
    mean, std = torch.zeros(1, 2, 1, 1, dtype=torch.float64), torch.tensor([VARIANCE**0.5]).double()
    return AnalyticPrior(mean, std, torch.ones(1).double())


def null_eps(prior: AnalyticPrior):
    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        return prior.predict_noise(x_t, t, [prior.embed([""]).expand(len(x_t), -1, -1)])[0]

    return predict


def error(steps: int) -> float:
    """Of the length that the flow gives a point, three views at times of their own.

    d x / d lambda = eps in x / alpha: ||x_t|| grows as sqrt(alpha^2 v + sigma^2).
    """
    prior, x_start = ball(), points((0.4, 0.3), (0.4, 0.3), (0.4, 0.3))
    start, end = torch.tensor([0.02, 0.05, 0.1]), torch.tensor([0.3, 0.6, 0.9])
    x_t = invert(prior, x_start, start, end, steps, null_eps(prior))
    (a0, s0), (a1, s1) = prior.alpha_sigma(start), prior.alpha_sigma(end)
    growth = ((a1**2 * VARIANCE + s1**2) / (a0**2 * VARIANCE + s0**2)).sqrt()
    return (x_t / x_start / growth - 1).abs().max().item()


def test_it_follows_the_flow_of_a_gaussian() -> None:
    assert error(500) < 2e-3
    assert error(125) / error(500) == pytest.approx(4, rel=0.1)  # Euler's method: first order


def test_it_undoes_ddim() -> None:
    """Down from noise to t = 0.05 and up again, on a mixture; each in 500 steps or so."""
    prior, generator = plane_mixture(), torch.Generator().manual_seed(0)
    x_top = torch.randn(20, 2, 1, 1, dtype=torch.float64, generator=generator)
    top, bottom = torch.full((20,), 0.9), torch.full((20,), 0.05)
    times = torch.linspace(0.9, 0.05, 426).tolist()
    x_t = x_top
    for t, to in pairwise(times):
        now = torch.full((20,), t)
        x_t = ddim_step(prior, x_t, null_eps(prior)(x_t, now), now, torch.full((20,), to))
    assert (x_t - x_top).norm(dim=1).mean() > 0.5
    x_t = invert(prior, x_t, bottom, top, 500, null_eps(prior))
    assert (x_t - x_top).norm(dim=1).max() < 0.02


def test_a_step_down_undoes_a_step_up() -> None:
    prior, generator = plane_mixture(), torch.Generator().manual_seed(0)
    x_t, eps = (torch.randn(3, 2, 1, 1, dtype=torch.float64, generator=generator) for _ in range(2))
    t, to = torch.tensor([0.1, 0.3, 0.6]), torch.tensor([0.2, 0.8, 0.61])
    there = ddim_step(prior, x_t, eps, t, to)
    torch.testing.assert_close(ddim_step(prior, there, eps, to, t), x_t, atol=1e-9, rtol=1e-9)
    (alpha, sigma), (alpha_to, sigma_to) = prior.alpha_sigma(t), prior.alpha_sigma(to)
    torch.testing.assert_close(there, alpha_to * (x_t - sigma * eps) / alpha + sigma_to * eps)


@pytest.mark.parametrize(("ends", "count"), [((0.0, 0.0), 0), ((0.0, 0.01), 1), ((0.2, 0.6), 3), ((0.61, 0.3), 4)])
def test_views_share_the_number_of_steps_and_go_evenly(ends: tuple[float, float], count: int) -> None:
    """At most 1/5 in t per step; 0 to 0.6 is three such steps, whatever rounding says."""
    prior, times = ball(), []

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        times.append(t)
        return null_eps(prior)(x_t, t)

    start, end = torch.zeros(2), torch.tensor(ends)
    x_t = invert(prior, points((1, 0), (0, 1)), start, end, 5, predict)
    assert len(times) == count
    for k, t in enumerate(times):
        torch.testing.assert_close(t, start + (end - start) * k / count)
    if not count:
        assert torch.equal(x_t, points((1, 0), (0, 1)))
