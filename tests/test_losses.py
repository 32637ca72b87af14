import math

import pytest
import torch

from sds3d.losses import opacity_entropy, opacity_sparsity, scale_penalty, total_variation, weighted_sum


def test_entropy_is_log_two_at_one_half_and_small_at_both_ends() -> None:
    assert opacity_entropy(torch.full((4,), 0.5)) == pytest.approx(math.log(2))
    assert opacity_entropy(torch.tensor([0.0, 1.0])) < 0.01


def test_entropy_pushes_away_from_one_half() -> None:
    opacity = torch.tensor([0.3, 0.7], requires_grad=True)
    opacity_entropy(opacity).backward()
    assert opacity.grad[0] > 0 > opacity.grad[1]  # downhill: 0.3 falls, 0.7 rises


def test_sparsity_is_zero_when_empty_and_pushes_down() -> None:
    assert opacity_sparsity(torch.zeros(3)) == pytest.approx(0, abs=1e-7)
    assert opacity_sparsity(torch.ones(3)) == pytest.approx(math.sqrt(1.01) - 0.1)


def test_scale_penalty_is_the_mean_size() -> None:
    assert scale_penalty(torch.tensor([[1.0, 2.0, 3.0]])) == pytest.approx(2)


def test_total_variation_of_a_ramp() -> None:
    ramp = torch.arange(4.0)[None, :, None, None].expand(1, 4, 5, 3)
    assert total_variation(ramp) == pytest.approx(1)  # 1 down, 0 across
    assert total_variation(ramp.transpose(1, 2)) == pytest.approx(1)
    assert total_variation(torch.ones(1, 4, 4, 3)) == 0


def test_losses_without_weight_get_no_gradient() -> None:
    a, b = torch.ones((), requires_grad=True), torch.ones((), requires_grad=True)
    weighted_sum({"a": a * 2, "b": b.log()}, {"a": 3.0, "b": 0.0}).backward()
    assert a.grad == 6
    assert b.grad is None
