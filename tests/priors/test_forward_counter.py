import gc
from collections.abc import Iterator
from weakref import ref

import pytest
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
    counted, expected = (p.predict_noise(x_t, t, embeddings) for p in (prior, plain))
    assert all(torch.equal(a, b) for a, b in zip(counted, expected, strict=True))
    prior.predict_noise(x_t, t, embeddings[:1])
    assert counter.forwards == 9
    assert ForwardCounter.of(prior) is counter
    assert isinstance(prior, Prior)


def test_a_function_set_on_the_prior_is_counted_too() -> None:
    prior = AnalyticConfig(size=8).build("cpu")
    ask = prior.predict_noise
    prior.predict_noise = lambda *inputs: [2.0 * eps for eps in ask(*inputs)]
    x_t, t, embedding = torch.ones(2, 3, 8, 8), torch.full((2,), 0.5), prior.embed(["red"] * 2)
    counter = ForwardCounter.of(prior)
    assert torch.equal(prior.predict_noise(x_t, t, [embedding])[0], 2.0 * ask(x_t, t, [embedding])[0])
    assert counter.forwards == 2


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_counted_prior_is_freed_when_its_last_reference_goes(no_collector: None) -> None:
    prior = AnalyticConfig(size=8).build("cpu")
    counter, freed = ForwardCounter.of(prior), ref(prior)
    del prior
    assert freed() is None
    assert counter.forwards == 0
