import pytest
import torch
from torch import nn

from sds3d.scenes.densify import DensifyConfig, Refinement, child_offsets, plan_refinement, replace_parameters


def plan(gradients, scales=None, opacities=None, **options):
    count = len(gradients)
    return plan_refinement(
        torch.tensor(gradients),
        torch.full((count, 3), 0.01) if scales is None else torch.tensor(scales)[:, None].expand(-1, 3),
        torch.full((count,), 0.5) if opacities is None else torch.tensor(opacities),
        DensifyConfig(**{"min_count": 1, "grow_share": 1.0, **options}),
    )


def test_plan_keeps_clones_splits_and_prunes():
    result = plan([0.0, 5.0, 5.0, 9.0], [0.01, 0.01, 0.1, 0.01], [0.5, 0.5, 0.5, 0.001], grad_threshold=1.0)
    assert result.source.tolist() == [0, 1, 2, 1, 2]  # 3 is too faint, whatever its gradient
    assert result.is_child.tolist() == [False, True, True, True, True]
    assert result.is_split.tolist() == [False, False, True, False, True]


def test_plan_grows_the_highest_gradients_up_to_the_share_and_the_cap():
    gradients = [float(i) for i in range(10)]
    assert plan(gradients, grow_share=0.2).source.tolist() == [*range(8), 8, 9, 8, 9]
    assert plan(gradients, max_count=11).source.tolist() == [*range(9), 9, 9]
    assert plan(gradients, max_count=3).source.tolist() == [*range(10)]


def test_plan_settles_equal_gradients_by_index():
    assert plan([1.0] * 4, grow_share=0.5).source.tolist() == [2, 3, 0, 1, 0, 1]


def test_plan_never_removes_the_last_splats():
    result = plan([0.0] * 4, opacities=[0.001, 0.004, 0.002, 0.003], min_count=2, grow_share=0.0)
    assert result.source.tolist() == [1, 3]


def test_optimizer_state_follows_its_splat_and_children_start_from_zero():
    parameters = {"a": nn.Parameter(torch.arange(4.0)), "b": nn.Parameter(torch.arange(8.0).reshape(4, 2))}
    other = nn.Parameter(torch.ones(3))
    groups = [{"params": [parameters["a"]], "lr": 0.1}, {"params": [other, parameters["b"]], "lr": 0.2}]
    optimizer = torch.optim.Adam(groups)
    (parameters["a"] ** 2).sum().backward()
    (parameters["b"] ** 3).sum().backward()
    other.sum().backward()
    optimizer.step()
    moments = {name: optimizer.state[p]["exp_avg_sq"].clone() for name, p in parameters.items()}

    move = Refinement(torch.tensor([0, 3, 2, 2]), torch.tensor([False, False, True, True]), torch.tensor([False] * 4))
    fresh = replace_parameters({k: p.detach()[move.source] for k, p in parameters.items()}, parameters, move, optimizer)

    assert optimizer.param_groups[0]["params"][0] is fresh["a"]
    assert optimizer.param_groups[1]["params"][0] is other
    assert optimizer.param_groups[1]["params"][1] is fresh["b"]
    assert set(optimizer.state) == {fresh["a"], fresh["b"], other}
    for name, parameter in fresh.items():
        state = optimizer.state[parameter]
        expected = torch.cat([moments[name][[0, 3]], torch.zeros_like(moments[name][:2])])
        assert torch.equal(state["exp_avg_sq"], expected)
        assert state["step"] == 1
    (fresh["a"].sum() + fresh["b"].sum()).backward()
    optimizer.step()


def test_children_are_drawn_from_their_splats_shape():
    quats = torch.tensor([2**-0.5, 0.0, 0.0, 2**-0.5]).repeat(20_000, 1)  # 90 degrees about z: x -> y
    scales = torch.tensor([0.3, 0.2, 0.1]).repeat(20_000, 1)
    spread = child_offsets(quats, scales, torch.Generator().manual_seed(0)).std(dim=0)
    assert torch.allclose(spread, torch.tensor([0.2, 0.3, 0.1]), rtol=0.03)


def test_grow_share_is_a_share():
    with pytest.raises(ValueError, match="grow_share"):
        DensifyConfig(grow_share=1.5)
