"""ISM against its definition, step by step, and its variance against that of SDS."""

from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError

from sds3d.guidance.base import Guidance, GuidanceInput
from sds3d.guidance.ism import ISM
from sds3d.guidance.sds import SDS
from tests.guidance.exact_priors import guidance_input, image_mixture, plane_mixture, points

STILL = {"delta_t": 0.1, "inversion_start": 0.0}


def input_at(t: float, negative: str = "", progress: float = 0.0) -> GuidanceInput:
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return guidance_input(image_mixture(), x, t, "left", negative, progress=progress)


def by_hand(q: GuidanceInput, times: list[float]) -> torch.Tensor:
    """eps_w - eps_s, with the inversion through `times`; the last two are s and t."""
    count = len(q.x)

    def predict(x_t: torch.Tensor, t: float, *conditions: torch.Tensor) -> list[torch.Tensor]:
        return q.prior.predict_noise(x_t, torch.full((count,), t), conditions)

    alpha, sigma = q.prior.alpha_sigma(torch.full((count,), times[0]))
    x_t = alpha * q.x + sigma * q.noise
    for t, to in pairwise(times):
        alpha, sigma = q.prior.alpha_sigma(torch.full((count,), t))
        (eps_s,) = predict(x_t, t, q.cond.null)
        x0_hat = (x_t - sigma * eps_s) / alpha
        alpha, sigma = q.prior.alpha_sigma(torch.full((count,), to))
        x_t = alpha * x0_hat + sigma * eps_s
    eps_y, eps_base = predict(
        x_t, times[-1], q.cond.positive, q.cond.null if q.cond.negative is None else q.cond.negative
    )
    return eps_base + 7.5 * (eps_y - eps_base) - eps_s


@pytest.mark.parametrize("negative", ["", "top"])
@pytest.mark.parametrize(("t", "times"), [(0.5, [0.0, 0.2, 0.4, 0.5]), (0.3, [0.0, 0.2, 0.3]), (0.1, [0.0, 0.1])])
def test_it_is_the_published_step(t: float, times: list[float], negative: str) -> None:
    q = input_at(t, negative)
    alpha, sigma = q.prior.alpha_sigma(q.t)
    grad = ISM(**STILL).step(q, None).grad
    torch.testing.assert_close(grad, sigma / alpha * by_hand(q, times), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize(("progress", "s"), [(0.0, 0.4), (0.15, 0.4375), (0.3, 0.475), (1.0, 0.475)])
def test_the_interval_shrinks_by_its_schedule(progress: float, s: float) -> None:
    q = input_at(0.5, progress=progress)
    grad = ISM(inversion_start=0.3, weighting="uniform").step(q, None).grad
    torch.testing.assert_close(grad, by_hand(q, [0.3, s, 0.5]), atol=1e-5, rtol=1e-4)


def test_s_stays_at_the_start_or_at_t_where_t_is_small() -> None:
    q = input_at(0.08)
    grad = ISM(weighting="uniform").step(q, None).grad
    torch.testing.assert_close(grad, by_hand(q, [0.05, 0.08]))
    q = input_at(0.03)
    eps_y, eps_null = q.prior.predict_noise(q.diffuse()[0], q.t, [q.cond.positive, q.cond.null])
    torch.testing.assert_close(ISM(weighting="uniform").step(q, None).grad, 7.5 * (eps_y - eps_null))


def relative_variance(method: Guidance, t: float) -> tuple[float, float]:
    """Trace of the gradient's covariance over the noise by its squared mean, and the mean's length; at (1, 4)."""
    q = guidance_input(plane_mixture(), points((1, 4)).expand(4000, 2, 1, 1), t)
    grad = method.step(q, None).grad
    mean = grad.mean(dim=0).norm()
    return (grad.var(dim=0).sum() / mean**2).item(), mean.item()


@pytest.mark.parametrize("t", [0.2, 0.5])
def test_from_the_official_start_it_varies_far_less_than_sds(t: float) -> None:  # T10
    plain = {"guidance_scale": 1.0, "weighting": "uniform"}
    ism, ism_mean = relative_variance(ISM(delta_t=0.025, inversion_start=0.0, **plain), t)
    sds, sds_mean = relative_variance(SDS(**plain), t)
    assert sds / ism > 10
    assert 5 < sds_mean / ism_mean < 100


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.1, {"start": 0.1, "end": 0}])
def test_an_interval_out_of_range_is_refused(bad: object) -> None:
    with pytest.raises(ValidationError, match=r"it must be in \(0, 1\)"):
        ISM(delta_t=bad)
