import pytest
import torch
from torch import nn

from sds3d.optim import OptimConfig, build_optimizer, set_learning_rates
from sds3d.options import Schedule
from sds3d.scenes import GaussiansConfig


def scene():
    return GaussiansConfig(count=10, lr_means=0.1, lr_colors=0.2).build(torch.Generator().manual_seed(0))


def rates(optimizer):
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def test_rates_are_the_scenes_times_both_factors() -> None:
    config = OptimConfig(lr_scale=Schedule(start=1, end=0.5), group_lr_scale={"means": Schedule(start=1, end=0.1)})
    optimizer = build_optimizer(config, scene(), None)
    set_learning_rates(config, optimizer, 0.0)
    assert rates(optimizer)["means"] == pytest.approx(0.1)
    set_learning_rates(config, optimizer, 1.0)
    assert rates(optimizer)["means"] == pytest.approx(0.1 * 0.5 * 0.1)
    assert rates(optimizer)["colors"] == pytest.approx(0.2 * 0.5)


def test_the_guidances_own_parameters_are_a_group() -> None:
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    optimizer = build_optimizer(OptimConfig(guidance_lr=0.03), scene(), network)
    group = next(g for g in optimizer.param_groups if g["name"] == "guidance")
    assert group["params"] == [network.weight]
    assert group["lr"] == 0.03


def test_a_guidance_without_parameters_adds_no_group() -> None:
    assert "guidance" not in rates(build_optimizer(OptimConfig(), scene(), nn.Identity()))


def test_betas_arrive() -> None:
    assert build_optimizer(OptimConfig(beta1=0.5, beta2=0.7), scene(), None).defaults["betas"] == (0.5, 0.7)
