import pytest
import torch

from sds3d.guidance.base import cfg, cfg_rescale, weight


def test_cfg_convention_one_is_the_conditional_prediction() -> None:
    eps_y, eps_base = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 1.0)
    assert cfg(eps_y, eps_base, 0.0).item() == 1
    assert cfg(eps_y, eps_base, 1.0).item() == 3
    assert cfg(eps_y, eps_base, 7.5).item() == 1 + 7.5 * 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sigma_squared", 0.36), ("uniform", 1.0), ("alpha_sigma_squared", 0.8 * 0.36), ("sigma_over_alpha", 0.75)],
)
def test_weightings(name: str, expected: float) -> None:
    alpha, sigma = torch.full((2, 1, 1, 1), 0.8), torch.full((2, 1, 1, 1), 0.6)
    torch.testing.assert_close(weight(name, alpha, sigma), torch.full((2, 1, 1, 1), expected))


def spread(eps: torch.Tensor) -> torch.Tensor:
    return eps.std(dim=(1, 2, 3))


def guided() -> tuple[torch.Tensor, torch.Tensor]:
    """eps_w and eps_y of two views, the second with nine times the spread."""
    generator = torch.Generator().manual_seed(0)
    eps_y, eps_null = (torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=generator) for _ in range(2))
    scale = torch.tensor([1.0, 9.0], dtype=torch.float64)[:, None, None, None]
    return cfg(scale * eps_y, scale * eps_null, 7.5), scale * eps_y


def test_rescaling_gives_each_view_back_the_spread_of_its_conditional_prediction() -> None:  # section 14
    """The ratio of spreads R falls to (1 + R) / 2 at phi = 1/2, and to 1 at phi = 1."""
    eps_w, eps_y = guided()
    raw = spread(eps_w) / spread(eps_y)
    assert (raw > 8).all()
    torch.testing.assert_close(spread(cfg_rescale(eps_w, eps_y, 0.5)) / spread(eps_y), (1 + raw) / 2)
    torch.testing.assert_close(spread(cfg_rescale(eps_w, eps_y, 1.0)), spread(eps_y))
    assert torch.equal(cfg_rescale(eps_w, eps_y, 0.0), eps_w)


def test_rescaling_a_prediction_without_spread_changes_nothing() -> None:
    flat = torch.full((2, 3, 4, 4), 2.0)
    assert torch.equal(cfg_rescale(flat, torch.zeros_like(flat), 0.7), flat)
