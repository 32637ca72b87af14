"""SJC as its paper writes it: noise that grows (VE form)."""

import pytest
import torch

from sds3d.guidance.sds import SDS
from sds3d.guidance.sjc import SJC
from tests.guidance.exact_priors import guidance_input, image_mixture


@pytest.mark.parametrize("t", [0.02, 0.4, 0.95])
def test_it_is_the_perturb_and_average_step_on_growing_noise(t: float) -> None:  # T14
    """(x - D(z)) / lambda with z = x + lambda eps, D = z - lambda eps_w(z / sqrt(1 + lambda^2))."""
    prior = image_mixture()
    q = guidance_input(
        prior, torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), t, "left"
    )
    tick = (q.t * 1000).round().long()
    growing = (1 / prior.alphas_cumprod[tick].double() - 1).sqrt()[:, None, None, None]
    z = q.x + growing * q.noise
    eps_y, eps_null = prior.predict_noise(z / (1 + growing**2).sqrt(), q.t, [q.cond.positive, q.cond.null])
    denoised = z - growing * (eps_null + 101 * (eps_y - eps_null))
    grad = SJC(guidance_scale=101).step(q, None).grad
    torch.testing.assert_close(grad, (q.x - denoised) / growing, atol=1e-4, rtol=1e-5)


def test_it_is_sds_with_one_default_changed() -> None:
    q = guidance_input(image_mixture(), torch.ones(2, 3, 8, 8).double(), 0.3, "left")
    assert torch.equal(SJC().step(q, None).grad, SDS(weighting="uniform").step(q, None).grad)
    assert not torch.equal(SJC().step(q, None).grad, SDS().step(q, None).grad)
    assert {**SDS().model_dump(), "name": "sjc", "weighting": "uniform"} == SJC().model_dump()
