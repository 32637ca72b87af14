import pytest
import torch

from sds3d.guidance.base import clip_gradient, inject_gradient


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
    (injected,) = torch.autograd.grad(inject_gradient(x, grad), x)
    torch.testing.assert_close(injected, expected, atol=0, rtol=1e-12)


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


def test_clipping_bounds_every_element_and_says_how_many() -> None:
    grad = torch.tensor([-3.0, -0.5, 0.0, 2.0, 5.0, 1.0, 1.0, 1.0]).reshape(1, 2, 2, 2)
    clipped, share = clip_gradient(grad, 2.0)
    assert clipped.flatten().tolist() == [-2.0, -0.5, 0.0, 2.0, 2.0, 1.0, 1.0, 1.0]
    assert share.item() == 0.25


def test_clipping_hides_nothing_that_broke() -> None:
    grad = torch.tensor([float("inf"), -float("inf"), float("nan"), 3.0]).reshape(1, 1, 2, 2)
    torch.testing.assert_close(
        clip_gradient(grad, 2.0)[0].flatten(), torch.tensor([*grad.flatten()[:3], 2.0]), equal_nan=True
    )
