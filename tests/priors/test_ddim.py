"""DDIM against the distribution that it should draw from, and where its guidance holds."""

import pytest
import torch

from sds3d.priors.analytic import AnalyticPrior
from sds3d.priors.ddim import sample_images


def mixture() -> AnalyticPrior:
    means = torch.tensor([[-0.5, 0.2, 0.0], [0.5, -0.1, 0.3]])[:, :, None, None]
    return AnalyticPrior(means, torch.tensor([0.1, 0.15]), torch.tensor([0.5, 0.5]), words=("left", "right"))


def draw(prior: AnalyticPrior, text: str, count: int = 4000, **settings) -> torch.Tensor:
    x = sample_images(prior, [text] * count, generator=torch.Generator().manual_seed(0), **settings)
    return 2.0 * x[:, :, 0, 0] - 1.0  # from what `decode` gives


@pytest.mark.parametrize(("text", "mean", "std"), [("left", (-0.5, 0.2, 0.0), 0.1), ("right", (0.5, -0.1, 0.3), 0.15)])
def test_samples_are_those_of_the_mode_that_the_text_names(text, mean, std) -> None:
    x = draw(mixture(), text, guidance_scale=1.0, steps=200)
    torch.testing.assert_close(x.mean(0), torch.tensor(mean), atol=0.03, rtol=0)
    torch.testing.assert_close(x.std(0), torch.full((3,), std), atol=0.03, rtol=0)


def test_guidance_goes_away_from_what_the_empty_text_means() -> None:
    plain, guided = (draw(mixture(), "right", guidance_scale=scale) for scale in (1.0, 4.0))
    assert guided[:, 0].mean() > plain[:, 0].mean() + 0.01


def test_below_the_limit_the_text_alone_is_asked(monkeypatch) -> None:
    prior, asked = mixture(), []
    predict = prior.predict_noise

    def recorded(x_t, t, embeddings, view=None):
        asked.append((float(t[0]), len(embeddings)))
        return predict(x_t, t, embeddings, view)

    monkeypatch.setattr(prior, "predict_noise", recorded)
    half = draw(prior, "right", 50, guidance_scale=4.0, guided_above=0.5)
    assert len(asked) == 25
    assert [count for _, count in asked] == [2 if t > 0.5 else 1 for t, _ in asked]
    assert {count for _, count in asked} == {1, 2}
    never = draw(prior, "right", 50, guidance_scale=4.0, guided_above=1.0)
    plain = draw(prior, "right", 50, guidance_scale=1.0)
    torch.testing.assert_close(never, plain)
    assert not torch.equal(half, plain)
