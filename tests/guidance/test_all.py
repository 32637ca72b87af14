"""What holds for every guidance: tests over GUIDANCE, so that a new one is covered by its line there."""

import pytest
import torch

from sds3d.cameras import orbit
from sds3d.guidance import GUIDANCE
from sds3d.guidance.base import Query
from sds3d.priors.analytic import AnalyticConfig
from sds3d.prompts import Prompts
from sds3d.types import ViewCondition


def gradient(name: str, seed: int):
    prior, generator = AnalyticConfig(size=16).build("cpu"), torch.Generator().manual_seed(seed)
    cameras = orbit(3, size=16)
    x = torch.rand(3, 3, 16, 16, generator=generator).requires_grad_()
    noise = torch.randn(3, 3, 16, 16, generator=generator)
    t = torch.rand(3, generator=generator) * 0.9 + 0.05
    method = GUIDANCE[name]()
    view = ViewCondition(cameras, torch.rand(3, 3, generator=generator))
    out = method.step(Query(x, t, noise, prior, Prompts(prior, "red").at(cameras), view), method.init(prior, generator))
    return x, out


@pytest.mark.parametrize("name", GUIDANCE)
def test_the_gradient_has_the_shape_of_x_and_no_history(name: str) -> None:
    x, out = gradient(name, 0)
    assert out.grad.shape == x.shape
    assert not out.grad.requires_grad
    assert out.grad.abs().max() > 0
    assert torch.isfinite(out.grad).all()


@pytest.mark.parametrize("name", GUIDANCE)
def test_the_same_seed_gives_the_same_gradient(name: str) -> None:
    assert torch.equal(gradient(name, 1)[1].grad, gradient(name, 1)[1].grad)
    assert not torch.equal(gradient(name, 1)[1].grad, gradient(name, 2)[1].grad)


@pytest.mark.parametrize("name", GUIDANCE)
def test_the_name_is_the_key(name: str) -> None:
    assert GUIDANCE[name]().name == name
