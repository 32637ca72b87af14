"""Classifier-free guidance and what may be done to it, against their formulas."""

from dataclasses import replace

import pytest
import torch

from sds3d.guidance import GUIDANCE
from sds3d.guidance import cfg as cfg_module
from sds3d.guidance.cfg import cfg, cfg_rescale, guided_noise, perp_neg
from sds3d.priors.forward_counter import ForwardCounter
from tests.guidance.exact_priors import guidance_input, image_mixture, predictions


def test_cfg_convention_one_is_the_conditional_prediction() -> None:
    eps_y, eps_base = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 1.0)
    assert cfg(eps_y, eps_base, 0.0).item() == 1
    assert cfg(eps_y, eps_base, 1.0).item() == 3
    assert cfg(eps_y, eps_base, 7.5).item() == 1 + 7.5 * 2


def spread(eps: torch.Tensor) -> torch.Tensor:
    return eps.std(dim=(1, 2, 3))


def two_views() -> tuple[torch.Tensor, torch.Tensor]:
    """eps_w and eps_y of two views, the second with nine times the spread."""
    generator = torch.Generator().manual_seed(0)
    eps_y, eps_null = (torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=generator) for _ in range(2))
    scale = torch.tensor([1.0, 9.0], dtype=torch.float64)[:, None, None, None]
    return cfg(scale * eps_y, scale * eps_null, 7.5), scale * eps_y


def test_rescaling_gives_each_view_back_the_spread_of_its_conditional_prediction() -> None:  # section 14
    """The ratio of spreads R falls to (1 + R) / 2 at phi = 1/2, and to 1 at phi = 1."""
    eps_w, eps_y = two_views()
    raw = spread(eps_w) / spread(eps_y)
    assert (raw > 8).all()
    torch.testing.assert_close(spread(cfg_rescale(eps_w, eps_y, 0.5)) / spread(eps_y), (1 + raw) / 2)
    torch.testing.assert_close(spread(cfg_rescale(eps_w, eps_y, 1.0)), spread(eps_y))
    assert torch.equal(cfg_rescale(eps_w, eps_y, 0.0), eps_w)


def test_rescaling_a_prediction_without_spread_changes_nothing() -> None:
    flat = torch.full((2, 3, 4, 4), 2.0)
    assert torch.equal(cfg_rescale(flat, torch.zeros_like(flat), 0.7), flat)


def test_perp_neg_takes_away_only_what_is_orthogonal_to_the_prompt() -> None:  # T24
    generator = torch.Generator().manual_seed(0)
    eps_y, eps_base, eps_1, eps_2 = (
        torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator) for _ in range(4)
    )
    shares = [torch.tensor([-1.0, -0.5]), torch.tensor([0.0, -2.0])]
    eps = perp_neg(eps_y, eps_base, [(eps_1, shares[0]), (eps_2, shares[1])])
    towards = eps_y - eps_base
    change = eps - eps_y
    assert (change * towards).sum(dim=(1, 2, 3)).abs().max() < 1e-12
    for view in range(2):
        d_0, expected = towards[view].flatten(), torch.zeros(48, dtype=torch.float64)
        for eps, share in ((eps_1, shares[0]), (eps_2, shares[1])):
            d_i = (eps - eps_base)[view].flatten()
            expected += share[view] * (d_i - (d_i @ d_0) / (d_0 @ d_0) * d_0)
        torch.testing.assert_close(change[view].flatten(), expected)
    assert torch.equal(perp_neg(eps_y, eps_base, []), eps_y)
    same = perp_neg(eps_base, eps_base, [(eps_1, shares[0])])  # no direction: nothing is divided by zero
    torch.testing.assert_close(same, eps_base + shares[0][:, None, None, None] * (eps_1 - eps_base))


def test_guided_noise_is_the_formula_and_costs_two_forwards_or_four() -> None:
    prior = image_mixture()
    counter = ForwardCounter.of(prior)
    q = guidance_input(prior, torch.zeros(2, 3, 8, 8, dtype=torch.float64), 0.5, "left", "right")
    eps_y, eps_null, eps_neg = predictions(q)
    before = counter.forwards
    eps_w = guided_noise(q, q.diffuse()[0], q.t, 3.0)
    assert counter.forwards - before == 2 * 2
    torch.testing.assert_close(eps_w, eps_neg + 3 * (eps_y - eps_neg))
    plain = replace(q, cond=replace(q.cond, negative=None))
    torch.testing.assert_close(guided_noise(plain, q.diffuse()[0], q.t, 3.0), eps_null + 3 * (eps_y - eps_null))

    share = torch.tensor([-1.0, -0.3])
    sides = tuple((prior.embed([side]).expand(2, -1, -1), share) for side in ("right", "top"))
    eps_sides = prior.predict_noise(q.diffuse()[0], q.t, [side for side, _ in sides])
    against = replace(q, cond=replace(q.cond, negative=None, against=sides))
    before = counter.forwards
    eps_w = guided_noise(against, q.diffuse()[0], q.t, 3.0)
    assert counter.forwards - before == 2 * 4
    expected = cfg(perp_neg(eps_y, eps_null, [(eps, share) for eps in eps_sides]), eps_null, 3.0)
    torch.testing.assert_close(eps_w, expected)
    rescaled = guided_noise(against, q.diffuse()[0], q.t, 3.0, rescale=0.7)  # to the spread of eps_y without Perp-Neg
    torch.testing.assert_close(rescaled, cfg_rescale(expected, eps_y, 0.7))


@pytest.mark.parametrize("name", [name for name, method in GUIDANCE.items() if method.uses_cfg])
def test_every_method_that_guides_can_rescale_its_prediction_and_nothing_else(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """grad(phi) - grad(0) = w(t) (cfg_rescale(eps_w) - eps_w); inversions stay as they are."""
    seen: list[tuple[torch.Tensor, torch.Tensor, float]] = []

    def spy(eps_w: torch.Tensor, eps_y: torch.Tensor, rescale: float) -> torch.Tensor:
        seen.append((eps_w, eps_y, rescale))
        return cfg_rescale(eps_w, eps_y, rescale)

    monkeypatch.setattr(cfg_module, "cfg_rescale", spy)
    q = guidance_input(image_mixture(), torch.ones(2, 3, 8, 8, dtype=torch.float64), 0.5, "left", "right")
    grads = []
    for rescale in (0.0, 0.7):
        method = GUIDANCE[name](guidance_scale=9.0, rescale=rescale, weighting="uniform")
        grads.append(method.step(q, method.init(q.prior, torch.Generator())).grad)
    rescaled = [(eps_w, eps_y) for eps_w, eps_y, rescale in seen if rescale == 0.7]
    assert len(rescaled) == 1
    eps_w, eps_y = rescaled[0]
    change = cfg_rescale(eps_w, eps_y, 0.7) - eps_w
    assert change.abs().max() > 1e-3
    torch.testing.assert_close(grads[1] - grads[0], change)
