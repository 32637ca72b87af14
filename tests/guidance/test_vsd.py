"""VSD against closed forms. The critics here are exact; one learns, to see whether learning leads to the same place."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sds3d.cameras import orbit
from sds3d.errors import ConfigError, NumericsError
from sds3d.guidance import SDS
from sds3d.guidance.base import GuidanceInput, inject_gradient
from sds3d.guidance.vsd import VSD
from sds3d.priors.analytic import AnalyticPrior
from sds3d.training.trainer import Trainer
from sds3d.types import Conditioning, ViewCondition

MEANS = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.5]])[:, :, None, None]
STDS, WEIGHTS = torch.tensor([0.4, 0.6, 0.3]), torch.tensor([0.3, 0.5, 0.2])
VIEW = ViewCondition(orbit(1))


def three_modes(dtype: torch.dtype = torch.float32) -> AnalyticPrior:
    return AnalyticPrior(MEANS.to(dtype), STDS.to(dtype), WEIGHTS.to(dtype), words=("west", "east", "north"))


def gaussian(mean: float, std: float, dtype: torch.dtype = torch.float64) -> AnalyticPrior:
    return AnalyticPrior(torch.full((1, 1, 1, 1), mean, dtype=dtype), torch.tensor([std], dtype=dtype), torch.ones(1))


def guidance_input(
    prior: AnalyticPrior, x: Tensor, t: Tensor | float, noise: Tensor, text: str = "", negative: str = ""
) -> GuidanceInput:
    count, generator = len(x), torch.Generator().manual_seed(0)
    rows = prior.embed([text, "", negative]).to(x.dtype)
    positive, null, other = (rows[[i] * count] for i in range(3))
    t = torch.full((count,), t) if isinstance(t, float) else t
    cond = Conditioning(positive, positive, null, other if negative else None)
    return GuidanceInput(x, t, noise, prior, cond, VIEW, generator=generator)


def draws(count: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 2, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Exact(nn.Module):
    """The critic that knows the density of the renders: a mixture, or particles as points."""

    def __init__(self, mixture: AnalyticPrior) -> None:
        super().__init__()
        self.mixture = mixture

    @classmethod
    def of(cls, particles: Tensor) -> "Exact":
        count = len(particles)
        ones = torch.ones(count, dtype=particles.dtype)
        return cls(AnalyticPrior(particles.detach(), torch.zeros_like(ones), ones))

    def forward(self, x_t: Tensor, t: Tensor, embeddings: Tensor, view: Any = None) -> Tensor:
        rows = self.mixture.embed([""]).to(x_t.dtype).expand(len(x_t), -1, -1)
        return self.mixture.noise(x_t, t, rows, view)

    def log_density(self, x_t: Tensor, t: Tensor, embeddings: Tensor, view: Any = None) -> Tensor:
        rows = self.mixture.embed([""]).to(x_t.dtype).expand(len(x_t), -1, -1)
        return self.mixture.log_density(x_t, t, rows, view)


@pytest.mark.parametrize("t", [0.05, 0.3, 0.7])
def test_a_critic_that_equals_the_prior_says_nothing(t: float) -> None:  # T4
    prior, x, noise = three_modes(), 2 * draws(64, 0), draws(64, 1)
    method = VSD(guidance_scale=1.0)
    critic = method.init(prior, torch.Generator())
    q = guidance_input(prior, x, t, noise)
    assert method.step(q, critic).grad.abs().max() == 0
    assert SDS(guidance_scale=1.0).step(q, None).grad.square().mean() > 1e-3
    q = guidance_input(prior, x, t, noise, text="east")
    torch.testing.assert_close(method.step(q, critic).grad, torch.zeros_like(x), rtol=0, atol=2e-5)


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_with_one_particle_and_a_perfect_critic_it_is_sds(guidance_scale: float, t: float) -> None:  # T6
    prior, x, noise = three_modes(torch.float64), draws(1, 0, torch.float64), draws(1, 1, torch.float64)
    q = guidance_input(prior, x, t, noise, text="north", negative="west")
    grad = VSD(guidance_scale=guidance_scale).step(q, Exact.of(x)).grad
    expected = SDS(guidance_scale=guidance_scale).step(q, None).grad
    torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-6)  # the schedule is float32


def settled(method: VSD | SDS) -> Tensor:
    """256 particles after 400 steps along the gradients of `method`; VSD has the exact score of their own cloud."""
    prior, generator, steps = three_modes(), torch.Generator().manual_seed(0), 400
    x = 1.5 * draws(256, 1)
    for step in range(steps):
        t = 0.02 + 0.78 * (1 - step / steps) * torch.rand(len(x), generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        inputs = guidance_input(prior, x, t, noise)
        output = method.step(inputs, Exact.of(x)) if isinstance(method, VSD) else method.step(inputs, None)
        x = x - 0.5 * output.grad
    return x


def spread(x: Tensor) -> tuple[Tensor, Tensor]:
    """The share of the particles at each mode and their variance there."""
    nearest = (x - MEANS[:, None]).square().sum(dim=(2, 3, 4)).argmin(dim=0)
    return torch.bincount(nearest, minlength=3) / len(x), torch.stack([x[nearest == k].var(0).mean() for k in range(3)])


@pytest.mark.slow
def test_particles_spread_like_the_prior() -> None:  # T5
    share, variance = spread(settled(VSD(guidance_scale=1.0, weighting="sigma_over_alpha")))
    torch.testing.assert_close(share, WEIGHTS, rtol=0.1, atol=0)
    torch.testing.assert_close(variance, STDS.square(), rtol=0.1, atol=0)


def test_without_a_critic_the_same_particles_crowd_together() -> None:
    share, variance = spread(settled(SDS(guidance_scale=1.0, weighting="sigma_over_alpha")))
    assert share.max() > 0.7
    assert (variance < 0.3 * STDS.square()).all()


def nodes(mean: float, std: float, count: int = 48) -> tuple[Tensor, Tensor, Tensor]:
    """x ~ N(mean, std^2) and eps ~ N(0, 1) as points with weights that make expectations exact (Gauss and Hermite)."""
    points, weights = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(count))
    weights = weights / weights.sum()
    x, noise = (grid.reshape(-1, 1, 1, 1) for grid in torch.meshgrid(mean + std * points, points, indexing="ij"))
    return x, noise, torch.outer(weights, weights).reshape(-1, 1, 1, 1)


def kl(prior: AnalyticPrior, mean: float, std: float, t: float) -> float:
    """KL(q_t || p_t) for q = N(mean, std^2)."""
    x, noise, weights = nodes(mean, std)
    q, critic = guidance_input(prior, x, t, noise), Exact(gaussian(mean, std))
    x_t = q.diffuse()[0]
    log_p, log_q = (known.log_density(x_t, q.t, q.cond.null) for known in (prior, critic))
    return float((weights.flatten() * (log_q - log_p)).sum())


@pytest.mark.parametrize("t", [0.1, 0.4, 0.8])
def test_its_mean_is_the_gradient_of_the_divergence(t: float) -> None:  # T21
    """Renders x = mean + std z, an exact critic, s = 1: alpha / (sigma w) E[grad dx/dtheta] = d/dtheta KL(q_t || p_t).

    For both parameters: the mean alone would not see the critic, whose mean over its own density is zero.
    """
    means = torch.tensor([-1.0, 1.5], dtype=torch.float64)[:, None, None, None]
    prior = AnalyticPrior(means, torch.tensor([0.5, 0.7]).double(), torch.tensor([0.4, 0.6]).double())
    mean, std, step = 0.3, 0.6, 1e-4
    x, noise, weights = nodes(mean, std)
    q = guidance_input(prior, x, t, noise)
    grad = VSD(guidance_scale=1.0, weighting="sigma_over_alpha").step(q, Exact(gaussian(mean, std))).grad
    alpha, sigma = (float(value[0]) for value in prior.alpha_sigma(q.t))
    by_mean = (kl(prior, mean + step, std, t) - kl(prior, mean - step, std, t)) / (2 * step)
    by_std = (kl(prior, mean, std + step, t) - kl(prior, mean, std - step, t)) / (2 * step)
    assert min(abs(by_mean), abs(by_std)) > 1e-3
    derivatives = [
        float((weights * grad * slope).sum()) * (alpha / sigma) ** 2 for slope in (torch.ones(1), (x - mean) / std)
    ]
    assert derivatives == pytest.approx([by_mean, by_std], rel=1e-5)


@pytest.mark.slow
def test_a_critic_that_learns_keeps_the_spread_of_the_prior() -> None:  # T22
    """64 particles, N(1/2, 1/4), the critic trained beside them at the default rate; SDS would end with variance 0."""
    prior, generator = gaussian(0.5, 0.5, torch.float32), torch.Generator().manual_seed(0)
    method = VSD(guidance_scale=1.0)
    critic = method.init(prior, generator)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-4, betas=(0.9, 0.99))
    x, moments = torch.randn(64, 1, 1, 1, generator=generator) - 1, []
    for step in range(900):
        t = 0.02 + 0.96 * torch.rand(64, generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        out = method.step(replace(guidance_input(prior, x, t, noise), generator=generator), critic)
        x = x - 0.1 * out.grad
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step >= 500:
            moments.append((float(x.mean()), float(x.var())))
    mean, variance = np.mean(moments, axis=0)
    assert mean == pytest.approx(0.5, abs=0.02)
    assert variance == pytest.approx(0.25, rel=0.1)
    known = critic.mixture()
    assert float(known.means.detach()) == pytest.approx(0.5, abs=0.05)
    assert float(known.stds.detach()) ** 2 == pytest.approx(0.25, rel=0.2)


def test_the_critic_is_asked_once_for_the_gradient_and_once_for_its_loss() -> None:
    prior, calls = three_modes(), []
    method = VSD()
    critic = method.init(prior, torch.Generator())
    critic.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    method.step(guidance_input(prior, draws(4, 0), 0.4, draws(4, 1)), critic)
    assert calls == [False, True]


def test_the_critic_gets_the_prompt_without_view_words() -> None:
    """In the gradient and in its loss."""
    prior, x, noise = three_modes(), draws(4, 0), draws(4, 1)
    q = guidance_input(prior, x, 0.4, noise, text="east")
    q = replace(q, cond=replace(q.cond, plain=prior.embed(["west"]).expand(4, -1, -1)))
    x_t, _, sigma = q.diffuse()
    eps_y, eps_null, eps_plain = prior.predict_noise(x_t, q.t, [q.cond.positive, q.cond.null, q.cond.plain])
    method = VSD(guidance_scale=3.0)
    output = method.step(q, method.init(prior, torch.Generator()))
    torch.testing.assert_close(output.grad, sigma**2 * (eps_null + 3 * (eps_y - eps_null) - eps_plain))
    only_plain = guidance_input(prior, x, 0.4, noise, text="west")
    assert torch.equal(output.loss, method.step(only_plain, method.init(prior, torch.Generator())).loss)
    with_view_words = guidance_input(prior, x, 0.4, noise, text="east")
    assert not torch.equal(output.loss, method.step(with_view_words, method.init(prior, torch.Generator())).loss)


def test_the_loss_is_the_critics_denoising_error_at_times_and_noises_of_its_own() -> None:
    prior, x, noise = three_modes(), draws(50, 0), draws(50, 1)
    q = guidance_input(prior, x, 0.4, noise, text="east")
    state = q.generator.get_state()
    method = VSD(critic_weighting="uniform")
    loss = method.step(q, method.init(prior, torch.Generator())).loss
    fresh = torch.Generator()
    fresh.set_state(state)
    t = torch.rand(50, generator=fresh)
    eps = torch.randn(x.shape, generator=fresh)
    alpha, sigma = prior.alpha_sigma(t)
    (eps_hat,) = prior.predict_noise(alpha * x + sigma * eps, t, [q.cond.positive])
    expected = (eps_hat - eps).square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(loss, expected.mean())
    q.generator.set_state(state)
    method = VSD()
    loss = method.step(q, method.init(prior, torch.Generator())).loss
    torch.testing.assert_close(loss, (sigma.flatten() ** 2 * expected).mean())
    assert (q.generator.get_state() != state).any()


def test_the_loss_reaches_the_critic_only_and_the_gradient_the_renders_only() -> None:
    prior, x, noise = three_modes(), draws(8, 0).requires_grad_(), draws(8, 1)
    method = VSD()
    critic = method.init(prior, torch.Generator())
    out = method.step(guidance_input(prior, x, 0.4, noise, text="east"), critic)
    assert not out.grad.requires_grad
    out.loss.backward()
    assert x.grad is None
    assert all(parameter.grad.abs().sum() > 0 for parameter in critic.parameters())
    before = [parameter.grad.clone() for parameter in critic.parameters()]
    inject_gradient(x, out.grad).backward()
    assert x.grad.abs().sum() > 0
    assert all(torch.equal(a, parameter.grad) for a, parameter in zip(before, critic.parameters(), strict=True))


def test_normalized_it_is_the_gradient_of_distribution_matching_distillation() -> None:
    prior, x, noise = three_modes(), draws(6, 0), draws(6, 1)
    critic = Exact(AnalyticPrior(torch.zeros(1, 2, 1, 1), torch.ones(1), torch.ones(1)))
    t = torch.linspace(0.1, 0.9, 6)
    q = guidance_input(prior, x, t, noise)
    x_t, alpha, sigma = q.diffuse()
    (eps_real,), eps_fake = prior.predict_noise(x_t, t, [q.cond.null]), critic(x_t, t, q.cond.null)
    real, fake = ((x_t - sigma * eps) / alpha for eps in (eps_real, eps_fake))
    expected = (fake - real) / (x - real).abs().mean(dim=(1, 2, 3), keepdim=True)
    grad = VSD(guidance_scale=1.0, weighting="sigma_over_alpha", normalize=True).step(q, critic).grad
    torch.testing.assert_close(grad, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("divergence", ["forward_kl", "jensen_shannon"])
def test_views_count_by_the_ratio_of_densities(divergence: str) -> None:
    prior, critic = gaussian(0.0, 1.0), Exact(gaussian(1.0, 0.5))
    x, noise = torch.linspace(-1, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1), torch.ones(5, 1, 1, 1).double()
    q = guidance_input(prior, x, 0.3, noise)
    x_t = q.diffuse()[0]
    ratio = (prior.log_density(x_t, q.t, q.cond.null) - critic.log_density(x_t, q.t, q.cond.null)).exp()
    h = {"forward_kl": ratio, "jensen_shannon": ratio / (1 + ratio)}[divergence]
    plain = VSD().step(q, critic).grad
    grad = VSD(divergence=divergence).step(q, critic).grad
    torch.testing.assert_close(grad, (h / h.mean())[:, None, None, None] * plain)
    assert h.max() > 2 * h.min()


class Speechless:
    """A prior with predictions and nothing else that a critic could be made of."""

    def __init__(self, base: AnalyticPrior, *hidden: str) -> None:
        self.base, self.hidden, self.latent_shape = base, hidden, base.latent_shape

    def __getattr__(self, name: str) -> Any:
        if name in self.hidden:
            raise AttributeError(name)
        return getattr(self.base, name)


def test_a_prior_that_cannot_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match="trains a copy of the prior"):
        VSD().init(Speechless(three_modes(), "trainable_copy"), torch.Generator())
    with pytest.raises(ConfigError, match="divergence = 'forward_kl' needs a prior that knows its density"):
        VSD(divergence="forward_kl").init(Speechless(three_modes(), "log_density"), torch.Generator())


class Breaking(nn.Module):
    """A critic whose answers for G are good and whose loss, from step `good` on, is not a number."""

    def __init__(self, critic: nn.Module, good: int) -> None:
        super().__init__()
        self.critic, self.good = critic, good

    def forward(self, *args: Any) -> Tensor:
        eps = self.critic(*args)
        if torch.is_grad_enabled():
            self.good -= 1
            eps = eps if self.good >= 0 else eps * float("nan")
        return eps


class BreakingVSD(VSD):
    def init(self, prior: Any, generator: torch.Generator) -> nn.Module:
        return Breaking(super().init(prior, generator), good=2)


def test_a_critic_that_breaks_stops_the_run_before_anything_changes(small_config) -> None:
    config = small_config().model_copy(update={"guidance": BreakingVSD()})
    generator = torch.Generator().manual_seed(0)
    scene = config.scene.build(generator)
    run = Trainer(config, scene, config.prior.build("cpu"), generator, torch.device("cpu"))
    run.advance()
    run.advance()
    parts = [*scene.state_dict().values(), *run.state.state_dict().values()]
    before = [value.clone() for value in parts]
    with pytest.raises(NumericsError, match=r"loss of guidance_params is not finite at step 2 \(t = 0\."):
        run.advance()
    assert all(torch.equal(a, b) for a, b in zip(before, parts, strict=True))
    assert all(parameter.grad is None for parameter in run.state.parameters())


def test_a_run_reports_both_losses_and_trains_the_critic_at_its_own_rate(small_config) -> None:
    config = small_config(guidance="vsd", steps=4, optim={"guidance_lr": 1e-3})
    generator = torch.Generator().manual_seed(0)
    run = Trainer(config, config.scene.build(generator), config.prior.build("cpu"), generator, torch.device("cpu"))
    events = list(run.run())
    assert {"guidance", "guidance_params", "grad_rms"} <= set(events[-1].losses)
    # Adam's steps are at most about its rate long
    assert 1e-3 <= max(float(parameter.detach().abs().max()) for parameter in run.state.parameters()) < 5e-3
