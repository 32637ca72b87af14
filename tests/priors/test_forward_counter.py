import torch

from sds3d.priors.analytic import AnalyticConfig
from sds3d.priors.base import Prior
from sds3d.priors.forward_counter import ForwardCounter


def test_views_times_conditions_are_counted_and_answers_stay_the_same() -> None:
    prior, plain = (AnalyticConfig(size=8).build("cpu") for _ in range(2))
    counter = ForwardCounter.of(prior)
    x_t, t = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((3,), 0.5)
    rows = prior.embed(["red", ""])
    embeddings = [rows[[0] * 3], rows[[1] * 3]]
    found, expected = (p.predict_noise(x_t, t, embeddings) for p in (prior, plain))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    prior.predict_noise(x_t, t, embeddings[:1])
    assert counter.forwards == 9
    assert ForwardCounter.of(prior) is counter
    assert isinstance(prior, Prior)
