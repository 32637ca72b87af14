import pytest
import torch

from sds3d.guidance.base import cfg, inject_gradient, weight


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


def test_the_injected_gradient_is_summed_over_elements_and_averaged_over_views() -> None:  # T17
    x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    grad = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    loss = inject_gradient(x, grad)
    loss.backward()
    torch.testing.assert_close(x.grad, grad / 3, atol=0, rtol=1e-6)
    assert loss.item() == pytest.approx(0.5 * grad.square().sum().item() / 3, rel=1e-6)


def test_it_is_the_squared_distance_to_a_fixed_target() -> None:
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    grad = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = (x - grad).detach()
    (expected,) = torch.autograd.grad(0.5 * (x - target).square().sum() / 2, x)
    (found,) = torch.autograd.grad(inject_gradient(x, grad), x)
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-12)


def test_small_half_precision_gradients_survive() -> None:
    x = torch.full((1, 1, 100, 100), 100.0, dtype=torch.float16, requires_grad=True)
    grad = torch.full((1, 1, 100, 100), 1e-2, dtype=torch.float16)
    loss = inject_gradient(x, grad)
    assert loss.dtype == torch.float32
    loss.backward()
    assert x.grad.dtype == torch.float16
    torch.testing.assert_close(x.grad, grad, atol=0, rtol=1e-3)


def test_the_weight_of_the_loss_scales_the_gradient() -> None:
    x = torch.zeros(2, 1, 1, 1, requires_grad=True)
    (4 * inject_gradient(x, torch.ones(2, 1, 1, 1))).backward()
    assert x.grad.flatten().tolist() == [2, 2]
