import pytest
import torch
from torch import nn

from sds3d.config import PRESETS, load_config
from sds3d.scenes.densify import (
    DensifyConfig,
    Refinement,
    child_offsets,
    plan_refinement,
    replace_parameters,
)


@pytest.fixture(autouse=True)
def no_least_number(monkeypatch):
    """Four splats are enough here."""
    monkeypatch.setattr("sds3d.scenes.densify.MIN_COUNT", 1)


def plan(gradients, scales=None, opacities=None, **options):
    count = len(gradients)
    return plan_refinement(
        torch.tensor(gradients),
        torch.full((count, 3), 0.01) if scales is None else torch.tensor(scales)[:, None].expand(-1, 3),
        torch.full((count,), 0.5) if opacities is None else torch.tensor(opacities),
        DensifyConfig(**{"grow_share": 1.0, **options}),
    )


def test_plan_keeps_clones_splits_and_prunes():
    result = plan([0.0, 5.0, 5.0, 9.0], [0.01, 0.01, 0.1, 0.01], [0.5, 0.5, 0.5, 0.001])
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


def test_plan_never_removes_the_last_splats(monkeypatch):
    monkeypatch.setattr("sds3d.scenes.densify.MIN_COUNT", 2)
    result = plan([0.0] * 4, opacities=[0.001, 0.004, 0.002, 0.003], grow_share=0.0)
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grow_share": 1.5}, "grow_share"),
        ({"refine_start": 0.8, "refine_stop": 0.2}, "must not be above refine_stop = 0.2"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DensifyConfig(**options)


def refinements(steps: int, **options) -> list[int]:
    """After how many steps a run refines."""
    config = DensifyConfig(**options)
    return [step + 1 for step in range(steps) if config.is_due(step, steps)]


def test_a_run_of_splats_refines_every_fifty_steps_from_150_to_550():
    assert refinements(600) == list(range(150, 600, 50))


@pytest.mark.parametrize("steps", [100, 151, 200, 201, 250, 300, 601, 1000, 1999, 2000, 30_000])
@pytest.mark.parametrize("every", [1, 7, 50, 100])
def test_children_have_an_interval_and_a_twentieth_of_the_run_to_be_optimized_in(steps: int, every: int):
    times = refinements(steps, refine_every=every)
    assert all(steps - done >= every and done <= 0.95 * steps + 1 for done in times)
    # and none is left out for another reason
    assert times == [done for done in range(3 * every, steps - every + 1, every) if done - 1 < 0.95 * steps]


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_ends_on_a_refinement(preset: str):
    """Neither of the stage that has the splats, nor of splats alone."""
    for options in ({}, {"scene": "gaussians"}):
        steps = load_config(preset=preset, overrides={"prompt": "a red mug", **options}).in_stage(0).steps
        assert steps < 200 or steps - 100 <= refinements(steps)[-1]
        assert all(step <= steps - 50 for step in refinements(steps))


def test_a_run_that_is_continued_with_more_steps_goes_on_refining():
    assert not DensifyConfig().is_due(599, 600)
    assert DensifyConfig().is_due(649, 1200)
    assert refinements(600, refine_stop=0.0) == []
