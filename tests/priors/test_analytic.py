"""The analytic prior's score is exact: checked against autograd of its own density and against hand-made numbers."""

import pytest
import torch

from sds3d.cameras import orbit
from sds3d.priors.analytic import COLORS, AnalyticConfig, AnalyticPrior
from sds3d.priors.base import Prior, TrainablePrior
from sds3d.types import ViewCondition


def mixture(dtype=torch.float64) -> AnalyticPrior:
    means = torch.tensor([[-2.0, 0], [2, 0], [0, 2.5]], dtype=dtype)[:, :, None, None]
    return AnalyticPrior(
        means,
        torch.tensor([0.4, 0.6, 0.3], dtype=dtype),
        torch.tensor([0.3, 0.5, 0.2], dtype=dtype),
        words=("left", "right", "top"),
    )


@pytest.mark.parametrize("t", [0.02, 0.3, 0.7, 0.98])
@pytest.mark.parametrize("text", ["", "right", "left top"])
def test_eps_hat_is_the_score(t: float, text: str) -> None:
    prior, times = mixture(), torch.full((6,), t)
    x_t = torch.randn(6, 2, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    embedding = prior.embed([text]).expand(6, 1, 3)
    (score,) = torch.autograd.grad(prior.log_density(x_t, times, embedding).sum(), x_t)
    _, sigma = prior.alpha_sigma(times)
    (found,) = prior.predict_noise(x_t.detach(), times, [embedding])
    torch.testing.assert_close(found, -sigma * score, atol=1e-9, rtol=1e-7)


def test_one_gaussian_against_its_closed_form() -> None:
    mean = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    prior = AnalyticPrior(mean, torch.tensor([0.5]), torch.ones(1))
    x_t, t = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0.2, 0.8])
    alpha, sigma = prior.alpha_sigma(t)
    expected = sigma * (x_t - alpha * mean) / (alpha**2 * 0.25 + sigma**2)
    (found,) = prior.predict_noise(x_t, t, [prior.embed(["", ""])])
    torch.testing.assert_close(found, expected)


def test_the_schedule_is_stable_diffusions_in_float32() -> None:  # T16
    prior = AnalyticConfig(size=8).build("cpu")
    assert prior.alphas_cumprod[20].item() == pytest.approx(0.98131, abs=1e-5)
    assert prior.alphas_cumprod[980].item() == pytest.approx(0.00584, abs=1e-5)
    alpha, sigma = prior.alpha_sigma(torch.tensor([0.02, 0.98], dtype=torch.float16))
    assert alpha.dtype == sigma.dtype == torch.float32
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(2, 1, 1, 1))
    low, high = prior.alpha_sigma(torch.tensor([1e-9, 1 - 1e-7]))[1].flatten().tolist()
    assert 0 < low < 0.05
    assert high < 1
    exact = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    torch.testing.assert_close(prior.alphas_cumprod.double(), exact, rtol=1e-7, atol=0)


def test_it_is_a_prior() -> None:
    assert isinstance(AnalyticConfig(size=8).build("cpu"), Prior)


def test_texts_select_modes() -> None:
    prior = AnalyticConfig(size=8).build("cpu")
    rows = prior.embed(["a red ball", "", "a mug", "Red and BLUE"])[:, 0]
    assert rows[0].argmax() == list(COLORS).index("red")
    assert rows[0].count_nonzero() == 1
    assert rows[1].count_nonzero() == len(COLORS)
    assert torch.equal(rows[1], rows[2])
    assert rows[3].count_nonzero() == 2
    torch.testing.assert_close(rows.sum(dim=-1), torch.ones(4))


def test_words_it_cannot_draw_are_named() -> None:
    prior = AnalyticConfig(size=8).build("cpu")
    assert prior.unknown_words("a red ball") == []
    assert prior.unknown_words("a shiny red mug, a mug") == ["shiny", "mug"]
    assert prior.unknown_words("") == []


def test_images_round_trip_and_are_resized() -> None:
    prior = AnalyticConfig(size=16).build("cpu")
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prior.decode(prior.encode(image)), image)
    assert prior.encode(torch.rand(1, 3, 40, 40)).shape == (1, *prior.latent_shape)


def test_denoising_at_a_high_time_shows_the_prompted_disc_over_the_views_background() -> None:
    prior = AnalyticConfig(size=32).build("cpu")
    view = ViewCondition(orbit(2, size=32), torch.tensor([[0.0, 0, 1], [1, 1, 1]]))
    noise, t = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.full((2,), 0.98)
    alpha, sigma = prior.alpha_sigma(t)
    (eps_hat,) = prior.predict_noise(sigma * noise, t, [prior.embed(["red"] * 2)], view)
    image = prior.decode((sigma * noise - sigma * eps_hat) / alpha)
    torch.testing.assert_close(image[:, :, 16, 16], torch.tensor([COLORS["red"]] * 2), atol=0.05, rtol=0)
    torch.testing.assert_close(image[:, :, 0, 0], view.background, atol=0.05, rtol=0)


def test_conditions_disagree_where_the_text_matters() -> None:
    prior = AnalyticConfig(size=16).build("cpu")
    x_t, t = torch.zeros(1, 3, 16, 16), torch.tensor([0.9])
    eps_y, eps_null = prior.predict_noise(x_t, t, [prior.embed(["red"]), prior.embed([""])])
    assert (eps_y - eps_null).abs().max() > 0.05


def test_a_copy_starts_as_the_prior_and_learns_without_changing_it() -> None:
    prior = mixture()
    x_t, t = torch.randn(50, 2, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.rand(50)
    rows = prior.embed([""]).expand(50, -1, -1)
    (before,), density = prior.predict_noise(x_t, t, [rows]), prior.log_density(x_t, t, rows)
    copy = prior.trainable_copy(4, torch.Generator())
    assert isinstance(prior, TrainablePrior)
    assert torch.equal(copy(x_t, t, rows), before)
    assert torch.equal(copy.log_density(x_t, t, rows), density)
    copy(x_t, t, rows).square().sum().backward()
    assert all(parameter.grad.abs().min() > 0 for parameter in copy.parameters())
    torch.optim.Adam(copy.parameters(), lr=1e-3).step()
    assert not torch.equal(copy(x_t, t, rows), before)
    assert torch.equal(prior.predict_noise(x_t, t, [rows])[0], before)


def test_what_a_copy_has_learned_is_a_mixture_with_the_same_words() -> None:
    copy = mixture().trainable_copy(1, torch.Generator())
    with torch.no_grad():
        copy.shift += 0.01
        copy.growth[0] += 0.01
    learned = copy.mixture()
    torch.testing.assert_close(learned.means, mixture().means + 1)
    torch.testing.assert_close(learned.stds, mixture().stds * torch.tensor([2.718281828459045, 1, 1]))
    assert torch.equal(learned.embed(["left"]), mixture().embed(["left"]))
