"""CSD against the classifier that a mixture holds: its gradient by autograd."""

import pytest
import torch
from pydantic import ValidationError

from sds3d.guidance.base import weight
from sds3d.guidance.csd import CSD
from sds3d.options import Schedule
from tests.guidance.exact_priors import guidance_input, image_mixture, plane_mixture, points, predictions


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_it_climbs_the_prior_s_own_classifier(t: float) -> None:  # T11b
    """grad = -sigma d/dx_t log p(y | x_t), and log p(y | x_t) = log p(x_t | y) - log p(x_t) + a constant."""
    prior = plane_mixture()
    q = guidance_input(prior, points((0.3, 0.8), (-1, 2), (4, 0), (0, 0)), t, "right")
    x_t, _, sigma = q.diffuse()
    x_t.requires_grad_()
    log_classifier = prior.log_density(x_t, q.t, q.cond.positive) - prior.log_density(x_t, q.t, q.cond.null)
    (slope,) = torch.autograd.grad(log_classifier.sum(), x_t)
    grad = CSD(weighting="uniform").step(q, None).grad
    torch.testing.assert_close(grad, -sigma * slope, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("options", [{}, {"positive_scale": 7.5}, {"negative_scale": {"start": 1, "end": 0.5}}])
def test_the_coefficients_sum_to_zero(progress: float, options: dict) -> None:
    method = CSD(**options)
    assert sum(method.coefficients(progress)) == pytest.approx(0, abs=1e-12)
    q = guidance_input(image_mixture(), torch.zeros(2, 3, 8, 8).double(), 0.5, "left", "left", progress=progress)
    eps_y, eps_null, _ = predictions(q)
    c_y, c_neg, _ = method.coefficients(progress)
    grad = method.model_copy(update={"weighting": "uniform"}).step(q, None).grad
    torch.testing.assert_close(grad, (c_y + c_neg) * (eps_y - eps_null))


@pytest.mark.parametrize("progress", [0.0, 0.2, 0.7])
def test_the_negative_prompt_pushes_by_its_schedule(progress: float) -> None:
    """At the default, w1 = 1 and w2 goes from 0 to 1 over half of the run."""
    q = guidance_input(image_mixture(), torch.zeros(2, 3, 8, 8).double(), 0.5, "left", "top", progress=progress)
    eps_y, eps_null, eps_neg = predictions(q)
    w2 = {0.0: 0.0, 0.2: 0.4, 0.7: 1.0}[progress]
    _, alpha, sigma = q.diffuse()
    expected = weight("sigma_squared", alpha, sigma) * (eps_y - eps_null - w2 * (eps_neg - eps_null))
    torch.testing.assert_close(CSD().step(q, None).grad, expected)


def test_without_a_negative_prompt_its_scale_is_of_no_effect() -> None:
    q = guidance_input(image_mixture(), torch.zeros(2, 3, 8, 8).double(), 0.5, "left", progress=0.3)
    assert torch.equal(CSD(negative_scale=3.0).step(q, None).grad, CSD(negative_scale=0.0).step(q, None).grad)


@pytest.mark.parametrize("bad", [-0.1, 201.0, {"start": 0, "end": -1}, Schedule(start=300, end=1)])
def test_a_negative_scale_out_of_range_is_refused(bad: object) -> None:
    with pytest.raises(ValidationError, match=r"it must be in \[0, 200\]"):
        CSD(negative_scale=bad)
