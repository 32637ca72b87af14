"""NFSD against its definition. That it varies less than SDS is no part of it: that does not hold in general."""

import pytest
import torch

from sds3d.guidance.base import GuidanceInput
from sds3d.guidance.csd import CSD
from sds3d.guidance.nfsd import NFSD
from tests.guidance.exact_priors import guidance_input, image_mixture, predictions


def input_at(*times: float, negative: str = "top") -> GuidanceInput:
    x = torch.randn(len(times), 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return guidance_input(image_mixture(), x, torch.tensor(times), "left", negative)


def test_each_view_is_judged_by_its_own_time() -> None:
    q = input_at(0.1, 0.199, 0.2, 0.7)
    eps_y, eps_null, eps_neg = predictions(q)
    _, _, sigma = q.diffuse()
    delta_d = torch.cat([eps_null[:2], (eps_null - eps_neg)[2:]])
    grad = NFSD().step(q, None).grad
    torch.testing.assert_close(grad, sigma**2 * (delta_d + 7.5 * (eps_y - eps_null)))


@pytest.mark.parametrize("negative", ["top", ""])
def test_a_view_s_gradient_does_not_depend_on_the_other_views(negative: str) -> None:
    together = NFSD().step(input_at(0.1, 0.7, negative=negative), None).grad
    q = input_at(0.1, 0.7, negative=negative)
    for view in (0, 1):
        alone = guidance_input(q.prior, q.x[[view]], q.t[[view]], "left", negative, noise=q.noise[[view]])
        torch.testing.assert_close(NFSD().step(alone, None).grad, together[[view]])


def test_without_a_negative_prompt_it_is_csd_above_t_clean_and_says_so() -> None:
    q = input_at(0.3, 0.8, negative="")
    out = NFSD().step(q, None)
    torch.testing.assert_close(out.grad, 7.5 * CSD().step(q, None).grad)
    assert out.stats["csd_share"] == 1


@pytest.mark.parametrize(
    ("times", "negative", "share"), [((0.1, 0.7), "", 0.5), ((0.1, 0.1), "", 0), ((0.1, 0.7), "top", 0)]
)
def test_the_share_of_views_that_get_csd_only_is_logged(times, negative: str, share: float) -> None:
    assert NFSD().step(input_at(*times, negative=negative), None).stats["csd_share"] == share


@pytest.mark.parametrize(("t", "is_clean"), [(0.02, True), (0.98, False)])
def test_its_scale_weights_the_direction_to_the_prompt_only(t: float, is_clean: bool) -> None:
    q = input_at(t, t)
    eps_y, eps_null, eps_neg = predictions(q)
    delta_d = eps_null if is_clean else eps_null - eps_neg
    grad = NFSD(weighting="uniform", guidance_scale=2.0).step(q, None).grad
    torch.testing.assert_close(grad, delta_d + 2 * (eps_y - eps_null))
