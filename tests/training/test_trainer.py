"""The loop: reproducible, resumable at any step, and it stops before a bad number reaches the scene."""

from typing import Any, Literal

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sds3d.errors import ConfigError, NumericsError
from sds3d.guidance.base import Guidance, GuidanceInput, GuidanceOutput
from sds3d.options import Schedule
from sds3d.priors.analytic import AnalyticPrior
from sds3d.scenes import SCENES
from sds3d.scenes.particles import build_scene
from sds3d.training.trainer import Trainer


def trainer(config, prior=None) -> Trainer:
    generator = torch.Generator().manual_seed(config.seed)
    scene = config.scene.build(generator)
    return Trainer(config, scene, prior or config.prior.build("cpu"), generator, torch.device("cpu"))


def finish(run: Trainer) -> dict[str, Tensor]:
    for _ in run.run():
        pass
    return dict(run.checkpoint().tensors)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def each_step_tells_its_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds3d.training.trainer.LOG_EVERY", 1)


def test_steps_count_from_one_and_losses_come_every_log_every(small_config, monkeypatch) -> None:
    monkeypatch.setattr("sds3d.training.trainer.LOG_EVERY", 4)
    events = list(trainer(small_config(steps=10)).run())
    assert [event.step for event in events] == list(range(1, 11))
    assert [event.step for event in events if event.losses] == [4, 8, 10]
    assert set(events[3].losses) == {"guidance", "sparsity", "grad_rms"}
    assert all(event.seconds > 0 for event in events)


def test_the_same_seed_gives_the_same_run_whatever_the_global_generator_does(small_config) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = finish(trainer(small_config()))
    assert torch.equal(torch.get_rng_state(), before), "something drew from the global generator"
    torch.manual_seed(2)
    assert same(first, finish(trainer(small_config())))
    assert not same(first, finish(trainer(small_config(seed=1))))


@pytest.mark.parametrize("cut", [1, 5, 13, 23])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(small_config, cut: int) -> None:
    config = small_config()
    whole = finish(trainer(config))
    first = trainer(config)
    for _ in range(cut):
        first.advance()
    second = trainer(config)
    second.restore(first.checkpoint())
    assert second.step == cut
    assert second.forwards() == first.forwards() == 2 * config.views_until(cut)
    assert same(whole, finish(second))


def test_time_is_measured_by_part_and_carried_over(small_config) -> None:
    run = trainer(small_config(steps=3))
    finish(run)
    assert set(run.seconds) == {"prior", "render", "backward", "optimizer"}
    assert min(run.seconds.values()) > 0
    again = trainer(small_config(steps=3))
    again.restore(run.checkpoint())
    assert again.seconds == run.seconds


def test_regularizers_count_by_their_weight_only(small_config) -> None:
    free = finish(trainer(small_config(loss_weights={})))
    assert same(free, finish(trainer(small_config(loss_weights={"sparsity": 0.0}))))
    late = Schedule(start=0, end=100, begin_at=1, end_at=1)
    assert same(free, finish(trainer(small_config(loss_weights={"sparsity": late.model_dump()}))))
    assert not same(free, finish(trainer(small_config(loss_weights={"sparsity": 50.0}))))


ALL_OFF = {"guidance": 0.0, "guidance_params": 0.0}
LATE = Schedule(start=0, end=1, begin_at=0.5, end_at=0.5).model_dump()


@pytest.mark.usefixtures("each_step_tells_its_losses")
@pytest.mark.parametrize("selective", [False, True])
@pytest.mark.parametrize("guidance", ["sds", "vsd"])
@pytest.mark.parametrize("scene", SCENES)
def test_a_step_whose_weights_are_all_0_leaves_parameters_and_moments_alone(
    small_config, scene: str, guidance: str, selective: bool
) -> None:
    """As torch does without a gradient. The first half of the run is such, also after steps that had one."""
    off = dict.fromkeys(SCENES[scene].losses, 0.0) | ALL_OFF
    options = {"scene": scene, "guidance": guidance, "optim.selective": selective, "steps": 8}
    run = trainer(small_config(**options, loss_weights={**off, "guidance": LATE}))
    other = trainer(small_config(**options, loss_weights={**off, "guidance": 1.0}))
    for _ in range(2):
        other.advance()
    run.restore(other.checkpoint())
    before = run.checkpoint().tensors
    assert run.advance().losses.keys().isdisjoint(off)
    after = run.checkpoint().tensors
    kept = [name for name in before if name.startswith("optimizer") or name.removeprefix("scene.").startswith("raw_")]
    assert len(kept) > 3
    assert same({name: before[name] for name in kept}, {name: after[name] for name in kept})
    assert not torch.equal(before["generator"], after["generator"])  # draws do not depend on weights
    for _ in range(3):
        run.advance()
    assert not same({name: before[name] for name in kept}, {name: run.checkpoint().tensors[name] for name in kept})


@pytest.mark.usefixtures("each_step_tells_its_losses")
def test_a_step_without_any_weight_is_no_error_with_a_reference_image_and_particles_too(small_config, tmp_path) -> None:
    pixels = torch.zeros(24, 24, 4, dtype=torch.uint8)
    pixels[6:18, 6:18] = 255
    Image.fromarray(pixels.numpy()).save(tmp_path / "square.png")
    off = {**ALL_OFF, "sparsity": 0.0, "z_variance": 0.0, "reference_image": 0.0, "reference_mask": 0.0}
    assert (
        not trainer(small_config(loss_weights=off, **{"reference_image.path": str(tmp_path / "square.png")}))
        .advance()
        .losses.keys()
        & off.keys()
    )
    config = small_config(loss_weights={**ALL_OFF, "sparsity": 0.0, "z_variance": 0.0}, particles=2)
    generator = torch.Generator().manual_seed(0)
    scene = build_scene(config.scene, 2, generator)
    run = Trainer(config, scene, config.prior.build("cpu"), generator, torch.device("cpu"))
    before = [parameter.clone() for parameter in scene.parameters()]
    run.advance()
    assert all(torch.equal(old, new) for old, new in zip(before, scene.parameters(), strict=True))


def test_a_weight_for_a_loss_that_does_not_exist_is_the_users_mistake(small_config) -> None:
    with pytest.raises(ConfigError, match=r"loss_weights.sparsty .*did you mean loss_weights.sparsity"):
        trainer(small_config(loss_weights={"sparsty": 1.0})).advance()


class Broken(AnalyticPrior):
    """Right until call number `good`, then not a number in one place."""

    def __init__(self, base: AnalyticPrior, good: int) -> None:
        self.__dict__.update(base.__dict__)
        self.good = good

    def predict_noise(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        predictions = super().predict_noise(*args, **kwargs)
        self.good -= 1
        if self.good < 0:
            predictions[0][0, 0, 0, 0] = float("nan")
        return predictions


@pytest.mark.parametrize("good", [0, 3])
def test_a_prior_that_breaks_stops_the_run_before_the_scene_changes(small_config, good: int) -> None:
    config = small_config()
    run = trainer(config, Broken(config.prior.build("cpu"), good))
    for _ in range(good):
        run.advance()
    before = {name: value.clone() for name, value in run.scene.state_dict().items()}
    with pytest.raises(NumericsError, match=rf"loss of guidance is not finite at step {good} \(t = 0\.") as caught:
        run.advance()
    assert "lower" in caught.value.hint
    assert same(before, run.scene.state_dict())
    assert run.step == good
    assert all(parameter.grad is None for parameter in run.scene.parameters())


def test_a_gradient_that_breaks_is_noticed_too(small_config) -> None:
    run = trainer(small_config())
    run.scene.raw_colors.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(NumericsError, match="gradient of colors"):
        run.advance()


class Learner(Guidance):
    """Pulls x towards a colour that it learns itself: stands for every guidance with a state."""

    name: Literal["learner"] = "learner"

    def init(self, prior: Any, generator: torch.Generator) -> nn.Module:
        module = nn.Module()
        module.color = nn.Parameter(torch.rand(3, 1, 1, generator=generator))
        return module

    def step(self, query: GuidanceInput, state: Any) -> GuidanceOutput:
        return GuidanceOutput((query.x - state.color).detach(), loss=(state.color - 1).square().sum())


def test_a_guidances_own_state_is_trained_and_resumed(small_config) -> None:
    config = small_config().model_copy(update={"guidance": Learner()})
    first = trainer(config)
    start = first.state.color.detach().clone()
    for _ in range(5):
        first.advance()
    assert (first.state.color > start).all()
    second = trainer(config)
    second.restore(first.checkpoint())
    assert same(finish(first), finish(second))


@pytest.mark.usefixtures("each_step_tells_its_losses")
def test_the_gradient_is_clipped_where_asked_for_by_a_schedule_too(small_config) -> None:
    limits = {"start": 1e-4, "end": 1e4, "begin_at": 0.5, "end_at": 0.5}
    run = trainer(small_config(steps=8, **{"optim.clip_gradient": limits}))
    shares = [event.losses["clipped_share"] for event in run.run() if event.losses]
    assert shares[0] > 0.5
    assert shares[-1] == 0
    assert "clipped_share" not in next(trainer(small_config()).run()).losses


@pytest.mark.usefixtures("each_step_tells_its_losses")
def test_a_learned_background_is_trained_and_resumed_and_the_prior_is_not_told_a_colour(small_config) -> None:
    config = small_config(**{"scene.background": {"name": "learned"}})

    class Asked(AnalyticPrior):
        def __init__(self, base: AnalyticPrior) -> None:
            self.__dict__.update(base.__dict__)
            self.told = []

        def predict_noise(self, *args: Any, **kwargs: Any) -> list[Tensor]:
            self.told.append(args[3].background)
            return super().predict_noise(*args, **kwargs)

    prior = Asked(config.prior.build("cpu"))
    first = trainer(config, prior)
    for _ in range(5):
        first.advance()
    assert prior.told
    assert all(background is None for background in prior.told)
    assert first.environment_map.raw_colors.abs().max() > 0.01
    second = trainer(config)
    second.restore(first.checkpoint())
    assert same(finish(first), finish(second))


def test_views_of_a_growing_size_reach_the_scene(small_config) -> None:
    run = trainer(small_config(steps=4, **{"cameras.later_sizes": [{"begin_at": 0.5, "size": 32}]}))
    sizes, render = [], run.scene.render
    run.scene.render = lambda cameras, *rest: sizes.append(cameras.width) or render(cameras, *rest)
    finish(run)
    assert sizes == [24, 24, 32, 32]


@pytest.mark.parametrize("steps", [150, 200, 250, 600, 2000])
def test_the_last_step_of_a_run_adds_no_splats_that_no_step_optimizes(small_config, steps: int) -> None:
    run = trainer(small_config(steps=steps, scene={"count": 150}))
    run.step = steps - 1
    before = list(run.scene.parameters())
    run.advance()
    assert all(old is new for old, new in zip(before, run.scene.parameters(), strict=True))
    assert run.step == steps
