"""SSD against its definition, and where its quotients have no value."""

import pytest
import torch

from sds3d.guidance.base import GuidanceInput
from sds3d.guidance.ssd import SSD
from sds3d.priors.analytic import AnalyticPrior
from tests.guidance.exact_priors import guidance_input, image_mixture, predictions


def input_at(*times: float, **rest) -> GuidanceInput:
    x = torch.randn(len(times), 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return guidance_input(image_mixture(), x, torch.tensor(times), "left", **rest)


def norm(value: torch.Tensor) -> torch.Tensor:
    return value.flatten(1).norm(dim=1)


def test_up_to_t_seek_it_is_orthogonal_to_the_noise_and_as_long_as_h() -> None:
    q = input_at(0.05, 0.2, 0.3)
    grad = SSD(weighting="uniform").step(q, None).grad
    eps_y, eps_null, _ = predictions(q)
    h = eps_y - eps_null
    overlap = (grad * q.noise).flatten(1).sum(dim=1) / (norm(grad) * norm(q.noise))
    assert overlap.abs().max() < 1e-12
    torch.testing.assert_close(norm(grad), norm(h))
    assert ((grad * eps_y).flatten(1).sum(dim=1) > 0).all()  # what is left of eps_y, not its opposite


def test_above_t_seek_it_is_h() -> None:
    q = input_at(0.301, 0.5, 0.95)
    eps_y, eps_null, _ = predictions(q)
    _, _, sigma = q.diffuse()
    torch.testing.assert_close(SSD().step(q, None).grad, sigma**2 * (eps_y - eps_null))


def test_each_view_is_judged_by_itself() -> None:
    q = input_at(0.1, 0.8)
    together = SSD().step(q, None).grad
    for view in (0, 1):
        alone = guidance_input(q.prior, q.x[[view]], q.t[[view]], "left", noise=q.noise[[view]])
        torch.testing.assert_close(SSD().step(alone, None).grad, together[[view]])


def test_a_negative_prompt_takes_the_place_of_the_empty_text() -> None:
    q = input_at(0.6, negative="top")
    eps_y, _, eps_neg = predictions(q)
    torch.testing.assert_close(SSD(weighting="uniform").step(q, None).grad, eps_y - eps_neg)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_there_is_no_direction_the_gradient_is_zero(dtype: torch.dtype) -> None:
    """Three views: eps_y along eps (m' = 0, up to rounding), eps_y = 0 (m = 0), eps = 0 (m' = m, a plain direction).

    The mode "left" is at 0, so eps_y is a multiple of x_t.
    """
    generator = torch.Generator().manual_seed(2)
    means = torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.05)]).to(dtype)
    prior = AnalyticPrior(means, torch.tensor([0.5, 0.5]).to(dtype), torch.ones(2).to(dtype), words=("left", "right"))
    eps = torch.randn(3, 3, 8, 8, dtype=dtype, generator=generator)
    noise = torch.stack([eps[0], torch.zeros_like(eps[1]), torch.zeros_like(eps[2])])
    x = torch.stack([0.7 * eps[0], torch.zeros_like(eps[1]), eps[2]])
    q = guidance_input(prior, x, 0.2, "left", noise=noise)
    eps_y, eps_null, _ = predictions(q)
    assert (norm(eps_y - eps_null) > 1e-3).all()  # h has a direction everywhere
    grad = SSD().step(q, None).grad
    assert torch.isfinite(grad).all()
    assert (grad[:2] == 0).all()
    assert grad[2].norm() > 0


@pytest.mark.parametrize("t", [0.1, 0.8])
def test_where_prompt_and_base_agree_the_gradient_is_zero(t: float) -> None:
    q = guidance_input(image_mixture(), torch.ones(2, 3, 8, 8).double(), t, "", "")
    assert (SSD().step(q, None).grad == 0).all()
