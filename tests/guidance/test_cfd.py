"""CFD against the sampler that it is made of, on mixtures with exact scores."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sds3d.guidance.cfd import CFD
from sds3d.guidance.timesteps import Descending
from sds3d.priors.analytic import AnalyticPrior
from tests.guidance.exact_priors import guidance_input, plane_mixture

SHARES, VARIANCES = torch.tensor([0.3, 0.5, 0.2]).double(), torch.tensor([0.16, 0.36, 0.09]).double()
FLOW = CFD(guidance_scale=1.0)


def exact_mixture() -> AnalyticPrior:
    """With a schedule in float64, so that only the method's own arithmetic is compared."""
    prior = plane_mixture()
    prior.alphas_cumprod = prior.alphas_cumprod.double()
    return prior


def normal(count: int, seed: int) -> Tensor:
    return torch.randn(count, 2, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def levels(prior: AnalyticPrior, steps: int) -> list[tuple[float, float, float]]:
    """t, alpha and sigma from the last tick down, and the clean image as the last."""
    ticks = torch.linspace(999, 0, steps + 1)[:-1].round() / 1000
    alpha, sigma = (value.flatten().tolist() for value in prior.alpha_sigma(ticks))
    return [*zip(ticks.tolist(), alpha, sigma, strict=True), (0.0, 1.0, 0.0)]


def flow(prior: AnalyticPrior, noise: Tensor, steps: int) -> Tensor:
    """SGD on CFD's gradient from x = 0, its steps those of lambda."""
    x = torch.zeros_like(noise)
    for (t, alpha, sigma), (_, next_alpha, next_sigma) in pairwise(levels(prior, steps)):
        grad = FLOW.step(guidance_input(prior, x, t, noise=noise), None).grad
        x = x - (1 - (next_sigma / next_alpha) / (sigma / alpha)) * grad
    return x


def churned(prior: AnalyticPrior, noise: Tensor, steps: int, ticks: int) -> Tensor:
    """As `flow`, but each step first goes `ticks` up and refreshes just the noise that this adds: the exact SDE.

    n <- n lambda / lambda_up + sqrt(1 - (lambda / lambda_up)^2) N(0, I), and the prior predicts at the higher time.
    """
    x, generator = torch.zeros_like(noise), torch.Generator().manual_seed(0)
    for (t, alpha, sigma), (_, next_alpha, next_sigma) in pairwise(levels(prior, steps)):
        up = min(t + ticks / 1000, 0.999)
        up_alpha, up_sigma = (float(value) for value in prior.alpha_sigma(torch.tensor([up])))
        kept = (sigma / alpha) / (up_sigma / up_alpha)
        noise = kept * noise + (1 - kept**2) ** 0.5 * torch.randn(noise.shape, generator=generator, dtype=noise.dtype)
        grad = FLOW.step(guidance_input(prior, x, up, noise=noise), None).grad
        x = x - (1 - (next_sigma / next_alpha) / (up_sigma / up_alpha)) * grad
    return x


def ddim(prior: AnalyticPrior, noise: Tensor, steps: int) -> Tensor:
    everything = prior.embed([""]).expand(len(noise), -1, -1)
    x_t = levels(prior, steps)[0][2] * noise
    for (t, alpha, sigma), (_, next_alpha, next_sigma) in pairwise(levels(prior, steps)):
        (eps,) = prior.predict_noise(x_t, torch.full((len(noise),), t), [everything])
        x_t = next_alpha * (x_t - sigma * eps) / alpha + next_sigma * eps
    return x_t


def modes(x: Tensor, prior: AnalyticPrior) -> Tensor:
    """The mode nearest to each particle."""
    return (x[:, None] - prior.means).square().sum(dim=(2, 3, 4)).argmin(dim=1)


def shares(x: Tensor, prior: AnalyticPrior) -> Tensor:
    return modes(x, prior).bincount(minlength=3).double() / len(x)


def variances(x: Tensor, prior: AnalyticPrior) -> Tensor:
    nearest = modes(x, prior)
    return torch.stack([x[nearest == mode].var(dim=0).mean() for mode in range(3)])


@pytest.mark.parametrize("steps", [20, 50, 200])
def test_with_steps_of_lambda_it_is_deterministic_ddim(steps: int) -> None:  # T7
    prior, noise = exact_mixture(), normal(200, 0)
    result, expected = flow(prior, noise, steps), ddim(prior, noise, steps)
    assert (result - expected).abs().max() < 1e-10
    assert expected.abs().max() > 2


def test_the_flow_ends_in_samples_of_the_prior() -> None:
    prior = exact_mixture()
    samples = flow(prior, normal(1500, 1), 200)
    assert (shares(samples, prior) - SHARES).abs().max() < 0.04
    torch.testing.assert_close(variances(samples, prior), VARIANCES, rtol=0.15, atol=0)


@pytest.mark.parametrize(("t", "published"), [(0.02, 3.28), (0.212, 0.1733), (0.5, 0.0239)])
def test_at_one_time_for_ever_the_fixed_point_is_no_sample(t: float, published: float) -> None:  # T7f
    """For p = N(0, v I) it is n alpha v / sigma, whose variance is anything but v; here v = 1/4."""
    prior = AnalyticPrior(torch.zeros(1, 2, 1, 1).double(), torch.tensor([0.5]).double(), torch.ones(1).double())
    noise = normal(1000, 0)
    inputs = guidance_input(prior, torch.zeros_like(noise), t, noise=noise)
    for _ in range(400):
        inputs = replace(inputs, x=inputs.x - FLOW.step(inputs, None).grad)
    alpha, sigma = prior.alpha_sigma(torch.tensor([t]).double())
    torch.testing.assert_close(inputs.x, noise * alpha * 0.25 / sigma, rtol=1e-5, atol=1e-6)
    assert (alpha * 0.25 / sigma).square().item() == pytest.approx(published, rel=0.005)


def optimized(method: CFD, same_noise: bool) -> Tensor:
    """400 particles by Adam, 500 steps, t falling from 0.98 to 0.3, as in a run."""
    prior, generator, steps = plane_mixture(), torch.Generator().manual_seed(3), 500
    noise, x = normal(400, 2), torch.zeros(400, 2, 1, 1, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.02, betas=(0.9, 0.99))
    inputs = guidance_input(prior, x.detach(), 0.98, noise=noise)  # a view of x, which the optimizer changes in place
    for step in range(steps):
        if not same_noise:
            noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
        t = Descending(t_min=0.3).sample(step / steps, len(x), generator)
        x.grad = method.step(replace(inputs, t=t, noise=noise), None).grad
        optimizer.step()
    return x.detach()


@pytest.mark.slow
def test_it_keeps_the_prior_s_variety_and_sds_does_not() -> None:  # N4
    prior = plane_mixture()
    kept = optimized(FLOW, same_noise=True)
    assert (shares(kept, prior) - SHARES).abs().max() < 0.06
    assert (modes(kept, prior) == modes(ddim(exact_mixture(), normal(400, 2), 200), prior)).double().mean() > 0.95
    assert shares(optimized(FLOW, same_noise=False), prior).max() > 0.9  # but for the noise, CFD is annealed SDS


@pytest.mark.parametrize("ticks", [1, 5])
def test_a_refresh_that_raises_the_level_first_keeps_the_prior(ticks: int) -> None:  # T8
    prior = exact_mixture()
    samples = churned(prior, normal(1500, 1), 200, ticks)
    assert (shares(samples, prior) - SHARES).abs().max() < 0.05
    torch.testing.assert_close(variances(samples, prior), VARIANCES, rtol=0.2, atol=0)


def test_it_brings_its_noise_and_its_timesteps(small_config) -> None:
    config = small_config(guidance="cfd")
    assert (config.noise.name, config.timesteps.name) == ("surface", "descending")
    assert small_config(guidance="cfd", noise="fresh").noise.name == "fresh"
