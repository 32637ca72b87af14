import pytest
import torch
from PIL import Image
from torch import nn

from sds3d.options import Schedule
from sds3d.scenes import GaussiansConfig
from sds3d.scenes.densify import SplatTrace
from sds3d.scenes.gaussians import LEARNING_RATES
from sds3d.scenes.optimizer import (
    BETAS,
    OptimConfig,
    SelectiveAdam,
    build_optimizer,
    set_learning_rates,
    take_step,
    visible_rows,
)
from sds3d.training.trainer import Trainer
from sds3d.types import RenderOutput


def scene():
    return GaussiansConfig(count=10).build(torch.Generator().manual_seed(0))


def rates(optimizer):
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def test_rates_are_the_scenes_times_both_factors() -> None:
    config = OptimConfig(lr_scale=Schedule(start=1, end=0.5), group_lr_scale={"means": Schedule(start=1, end=0.1)})
    optimizer = build_optimizer(config, scene(), None)
    set_learning_rates(config, optimizer, 0.0)
    assert rates(optimizer)["means"] == LEARNING_RATES["means"]
    set_learning_rates(config, optimizer, 1.0)
    assert rates(optimizer)["means"] == pytest.approx(LEARNING_RATES["means"] * 0.5 * 0.1)
    assert rates(optimizer)["colors"] == pytest.approx(LEARNING_RATES["colors"] * 0.5)


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
    assert build_optimizer(OptimConfig(), scene(), None).defaults["betas"] == BETAS == (0.9, 0.99)


def render_of(splats: nn.Module, visible: list[bool]) -> RenderOutput:
    """A render that shows those splats, with a gradient on every parameter."""
    parameters = tuple(splats.splats().values())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    trace = SplatTrace(torch.zeros(1, len(visible), 2), torch.tensor([visible]), parameters, 2, 2)
    blank = torch.zeros(1, 2, 2, 3)
    return RenderOutput(blank, blank[..., :1], blank[..., :1], None, trace)


def after(selective: bool, renders: list[list[bool]], parts: bool = False) -> list[torch.Tensor]:
    torch.manual_seed(0)
    splats, network = scene(), nn.Linear(2, 2)
    optimizer = build_optimizer(OptimConfig(selective=selective), splats, network)
    assert isinstance(optimizer, SelectiveAdam) == selective
    for visible in renders:
        out = render_of(splats, visible)
        network.weight.grad = torch.ones_like(network.weight)
        take_step(optimizer, [RenderOutput(out.rgb, out.opacity, out.depth, None, [out]) if parts else out])
    moved = [p for group in optimizer.param_groups for p in group["params"]]
    return [t.detach() for p in moved for t in (p, *optimizer.state.get(p, {}).values())]


@pytest.mark.parametrize("parts", [False, True])
def test_a_selective_step_on_all_splats_is_adams(parts: bool) -> None:
    got, want = after(True, [[True] * 10] * 3, parts), after(False, [[True] * 10] * 3)
    assert len(got) == len(want)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(got, want, strict=True))


def test_a_selective_step_leaves_unseen_splats_alone_and_moves_everything_else() -> None:
    visible = [True, False] * 5
    before = [parameter.detach() for parameter in scene().parameters()]
    got = after(True, [visible])
    for old, new in zip(before, got[::4], strict=False):  # parameter, step, two moments
        changed = (new != old).view(10, -1).all(dim=1)
        assert changed.tolist() == visible
    *_, weight, step, _, _ = got[: 4 * len(before) + 4]
    assert step == 1
    assert not torch.equal(weight, after(True, [])[len(before)])


def test_what_any_render_of_a_step_shows_is_moved() -> None:
    """The views of a step, the view of a reference image, and a render that is made of particles' own."""
    splats, other = scene(), scene()
    first, second = render_of(splats, [True, True] + [False] * 8), render_of(splats, [False, True, True] + [False] * 7)
    third = render_of(other, [False] * 9 + [True])
    rows = visible_rows([RenderOutput(first.rgb, first.opacity, first.depth, None, [first, third]), second])
    assert rows[splats.raw_means].nonzero()[:, 0].tolist() == [0, 1, 2]
    assert rows[other.raw_means].nonzero()[:, 0].tolist() == [9]
    assert set(rows) == {*splats.parameters(), *other.parameters()}


def test_a_reference_view_moves_the_splats_that_it_alone_shows(small_config, tmp_path) -> None:
    pixels = torch.zeros(24, 24, 4, dtype=torch.uint8)
    pixels[6:18, 6:18] = 255
    Image.fromarray(pixels.numpy()).save(tmp_path / "square.png")
    config = small_config(
        **{"optim.selective": True, "reference_image.path": str(tmp_path / "square.png"), "cameras.views": 1},
        **{"cameras.fov_deg": [4.0, 4.0], "cameras.elevation_deg": [0.0, 0.0], "reference_image.size": 24},
    )
    generator = torch.Generator().manual_seed(0)
    run = Trainer(config, config.scene.build(generator), config.prior.build("cpu"), generator, torch.device("cpu"))
    before = run.scene.raw_colors.detach().clone()
    run.advance()
    assert (run.scene.raw_colors != before).any(dim=1).all()  # the training view shows the middle alone
