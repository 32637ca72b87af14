"""SDS against closed forms: the analytic prior knows its score, so the mean gradient is known too."""

import pytest
import torch

from sds3d.guidance import SDS
from sds3d.priors.analytic import AnalyticPrior
from tests.guidance.exact_priors import guidance_input, plane_mixture

SHAPE = (1, 8, 8)


def one_gaussian(std: float = 0.5) -> AnalyticPrior:
    mean = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(5))
    return AnalyticPrior(mean, torch.tensor([std]), torch.ones(1))


@pytest.mark.parametrize(("t", "tolerance"), [(0.05, 1.2e-3), (0.3, 4e-4), (0.7, 1e-4)])
def test_the_mean_gradient_is_the_closed_form(t: float, tolerance: float) -> None:  # T1
    """E[eps_hat - eps] = sigma alpha (x - mu) / (alpha^2 v + sigma^2), over 20,000 draws; v = 1/4.

    One draw is off by eps alpha^2 v / (alpha^2 v + sigma^2), so the mean's error is known as well.
    """
    prior, draws = one_gaussian(), 20_000
    x = prior.means + 8 * torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(6))
    noise = torch.randn(draws, *SHAPE, generator=torch.Generator().manual_seed(7))
    method = SDS(guidance_scale=1.0, weighting="uniform")
    grad = method.step(guidance_input(prior, x.expand(draws, *SHAPE), t, noise=noise), None).grad.double().mean(dim=0)
    alpha, sigma = (float(value) for value in prior.alpha_sigma(torch.tensor([t])))
    total = alpha**2 * 0.25 + sigma**2
    expected = sigma * alpha * (x - prior.means)[0].double() / total
    z = (grad - expected) / (alpha**2 * 0.25 / total / draws**0.5)
    assert z.abs().max() < 4.5
    assert z.square().mean().sqrt() == pytest.approx(1, abs=0.3)
    assert ((grad - expected).norm() / expected.norm()).item() < tolerance


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_it_descends_the_diffused_density(t: float) -> None:
    """(alpha / sigma) E[eps_hat] = d/dx E[-log p_t(alpha x + sigma eps)], by autograd, on a mixture."""
    prior = plane_mixture()
    noise = torch.randn(50, 2, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.tensor([0.3, 0.8], dtype=torch.float64)[None, :, None, None].requires_grad_()
    q = guidance_input(prior, x.expand(50, 2, 1, 1), t, noise=noise)
    alpha, sigma = prior.alpha_sigma(q.t)
    (expected,) = torch.autograd.grad(-prior.log_density(alpha * q.x + sigma * noise, q.t, q.cond.null).mean(), x)
    out = SDS(guidance_scale=1.0, weighting="uniform").step(q, None)
    grad = (alpha / sigma * (out.grad + noise)).mean(dim=0, keepdim=True)
    torch.testing.assert_close(grad, expected, atol=1e-6, rtol=1e-6)


def test_each_weighting_is_a_factor() -> None:
    prior, noise = one_gaussian(), torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    alpha, sigma = prior.alpha_sigma(torch.tensor([0.4, 0.4]))
    q = guidance_input(prior, torch.zeros(2, *SHAPE), 0.4, noise=noise)
    plain = SDS(weighting="uniform").step(q, None).grad
    torch.testing.assert_close(SDS().step(q, None).grad, sigma**2 * plain)
    torch.testing.assert_close(SDS(weighting="sigma_over_alpha").step(q, None).grad, sigma / alpha * plain)


def test_sigma_over_alpha_is_the_distance_to_the_predicted_image() -> None:  # T25
    prior, noise = one_gaussian(), torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    q = guidance_input(prior, torch.ones(2, *SHAPE), 0.4, noise=noise)
    x_t, alpha, sigma = q.diffuse()
    (eps_hat,) = prior.predict_noise(x_t, q.t, [q.cond.null])
    predicted = (x_t - sigma * eps_hat) / alpha
    grad = SDS(guidance_scale=1.0, weighting="sigma_over_alpha").step(q, None).grad
    torch.testing.assert_close(grad, q.x - predicted, atol=1e-5, rtol=1e-4)


def test_guidance_scale_extrapolates_from_the_base() -> None:
    means = torch.stack([torch.full(SHAPE, -1.0), torch.full(SHAPE, 1.0)])
    prior = AnalyticPrior(means, torch.ones(2), torch.ones(2), words=("dark", "light"))
    noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    q = guidance_input(prior, torch.zeros(2, *SHAPE), 0.5, noise=noise, positive="light", negative="dark")
    x_t, _, sigma = q.diffuse()
    eps_y, eps_null, eps_neg = prior.predict_noise(x_t, q.t, [q.cond.positive, q.cond.null, q.cond.negative])
    grad = SDS(guidance_scale=3.0).step(q, None).grad
    torch.testing.assert_close(grad, sigma**2 * (eps_neg + 3 * (eps_y - eps_neg) - noise))
    q = guidance_input(prior, torch.zeros(2, *SHAPE), 0.5, noise=noise, positive="light")
    grad = SDS(guidance_scale=3.0).step(q, None).grad
    torch.testing.assert_close(grad, sigma**2 * (eps_null + 3 * (eps_y - eps_null) - noise))


def test_rescale_undoes_the_spread_that_the_scale_adds() -> None:
    means = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    prior = AnalyticPrior(means, torch.ones(2), torch.ones(2), words=("dark", "light"))
    noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    q = guidance_input(prior, torch.zeros(2, *SHAPE), 0.5, noise=noise, positive="light")
    x_t, _, sigma = q.diffuse()
    eps_y, eps_null = prior.predict_noise(x_t, q.t, [q.cond.positive, q.cond.null])
    eps_w = eps_null + 7.5 * (eps_y - eps_null)
    factor = 0.3 * eps_y.std(dim=(1, 2, 3), keepdim=True) / eps_w.std(dim=(1, 2, 3), keepdim=True) + 0.7
    assert (factor - 1).abs().max() > 1e-4
    grad = SDS(guidance_scale=7.5, rescale=0.3).step(q, None).grad
    torch.testing.assert_close(grad, sigma**2 * (factor * eps_w - noise))
