"""What holds for every guidance: tests over GUIDANCE, so that a new one is covered by its line there."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from torch import Tensor, nn

from sds3d.cameras import orbit
from sds3d.errors import NumericsError
from sds3d.guidance import GUIDANCE, Guidance
from sds3d.guidance.base import GuidanceInput
from sds3d.guidance.noise import NOISE
from sds3d.options import Options
from sds3d.priors.analytic import AnalyticConfig, AnalyticPrior
from sds3d.prompts import Prompts
from sds3d.training.trainer import Trainer
from sds3d.types import ViewCondition
from tests.guidance.exact_priors import guidance_input, image_mixture


def gradient(name: str, seed: int):
    prior, generator = AnalyticConfig(size=16).build("cpu"), torch.Generator().manual_seed(seed)
    cameras = orbit(3, size=16)
    x = torch.rand(3, 3, 16, 16, generator=generator).requires_grad_()
    noise = torch.randn(3, 3, 16, 16, generator=generator)
    t = torch.rand(3, generator=generator) * 0.9 + 0.05
    method = GUIDANCE[name]()
    view = ViewCondition(cameras, torch.rand(3, 3, generator=generator))
    out = method.step(
        GuidanceInput(x, t, noise, prior, Prompts(prior, "red").at(cameras), view), method.init(prior, generator)
    )
    return x, out


@pytest.mark.parametrize("name", GUIDANCE)
def test_the_gradient_has_the_shape_of_x_and_no_history(name: str) -> None:
    x, out = gradient(name, 0)
    assert out.grad.shape == x.shape
    assert not out.grad.requires_grad
    assert out.grad.abs().max() > 0
    assert torch.isfinite(out.grad).all()


@pytest.mark.parametrize("name", GUIDANCE)
def test_the_same_seed_gives_the_same_gradient(name: str) -> None:
    assert torch.equal(gradient(name, 1)[1].grad, gradient(name, 1)[1].grad)
    assert not torch.equal(gradient(name, 1)[1].grad, gradient(name, 2)[1].grad)


@pytest.mark.parametrize("name", GUIDANCE)
def test_the_name_is_the_key(name: str) -> None:
    assert GUIDANCE[name]().name == name


def declared_state(method: type[Any]) -> Any:
    """X of `Method(Guidance[X])` or `Kind(Noise[X])`."""
    arguments = [base.__pydantic_generic_metadata__["args"] for base in method.__mro__ if issubclass(base, Options)]
    return next(args[0] for args in arguments if args)


@pytest.mark.parametrize("method", [*GUIDANCE.values(), *NOISE.values()])
def test_init_returns_the_state_that_the_class_declares(method: type[Any]) -> None:
    generator, declared = torch.Generator().manual_seed(0), declared_state(method)
    prior = AnalyticConfig(size=8).build("cpu")
    state = method().init(prior if issubclass(method, Guidance) else prior.latent_shape, generator)
    if declared is None:
        assert state is None
    else:
        assert isinstance(state, declared)
        assert isinstance(state, nn.Module)


def other_gradient(name: str, t: float, change: Callable[[GuidanceInput], GuidanceInput]) -> tuple[Tensor, Tensor]:
    """The gradient of an input, and that of the same input with something changed."""
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inputs, method = guidance_input(image_mixture(), x, t, "left", "top"), GUIDANCE[name]()
    state = method.init(inputs.prior, torch.Generator())
    return method.step(inputs, state).grad, method.step(change(inputs), state).grad


@pytest.mark.parametrize("t", [0.1, 0.6])
@pytest.mark.parametrize("name", GUIDANCE)
def test_uses_noise_says_whether_the_noise_matters(name: str, t: float) -> None:
    grad, changed = other_gradient(name, t, lambda inputs: replace(inputs, noise=-inputs.noise))
    assert torch.equal(grad, changed) == (not GUIDANCE[name].uses_noise)


@pytest.mark.parametrize("t", [0.1, 0.6])
@pytest.mark.parametrize("name", GUIDANCE)
def test_uses_cfg_says_whether_perp_neg_matters(name: str, t: float) -> None:
    def against(inputs: GuidanceInput) -> GuidanceInput:
        side = inputs.prior.embed(["right"]).expand(2, -1, -1)
        return replace(inputs, cond=replace(inputs.cond, against=((side, torch.tensor([-1.0, -0.5])),)))

    grad, changed = other_gradient(name, t, against)
    assert torch.equal(grad, changed) == (not GUIDANCE[name].uses_cfg)


SCHEDULED = {  # bounds of options that may change over the run
    "csd": [{"negative_scale": 0.0}, {"negative_scale": 200.0}],
    "ism": [{"delta_t": math.nextafter(0.0, 1.0)}, {"delta_t": math.nextafter(1.0, 0.0)}],
}


def settings(name: str) -> Iterator[dict[str, Any]]:
    """The defaults, then one field at a time at each of its bounds (or next to it), and at each of a choice."""
    yield {}
    yield from SCHEDULED.get(name, [])
    for key, field in GUIDANCE[name].model_fields.items():
        bounds = [getattr(part, side) for part in field.metadata for side in ("ge", "le") if hasattr(part, side)]
        bounds += [math.nextafter(part.gt, math.inf) for part in field.metadata if hasattr(part, "gt")]
        if get_origin(field.annotation) is Literal:
            bounds = list(get_args(field.annotation))
        elif field.annotation is bool:
            bounds = [False, True]
        yield from ({key: value} for value in bounds)


@pytest.mark.parametrize("negative", ["", "blue"])
@pytest.mark.parametrize("name", GUIDANCE)
def test_nothing_valid_is_refused(name: str, negative: str) -> None:
    """Every bound of every field, at the ends of time and of the run, for one view: a finite gradient."""
    x, noise = torch.full((1, 3, 8, 8), 0.3), torch.ones(1, 3, 8, 8)
    for options in settings(name):
        prior, method = AnalyticConfig(size=8).build("cpu"), GUIDANCE[name](**options)
        state = method.init(prior, torch.Generator().manual_seed(0))
        cameras = orbit(1, size=8)
        view, cond = ViewCondition(cameras, torch.ones(1, 3)), Prompts(prior, "red", negative).at(cameras)
        for t, progress in ((0.001, 0.0), (0.02, 0.5), (0.999, 1.0)):
            out = method.step(GuidanceInput(x, torch.tensor([t]), noise, prior, cond, view, progress), state)
            assert torch.isfinite(out.grad).all(), (options, t)
            assert all(torch.isfinite(value) for value in out.stats.values()), (options, t)


def trainer(config, prior: AnalyticPrior | None = None) -> Trainer:
    generator = torch.Generator().manual_seed(config.seed)
    scene = config.scene.build(generator)
    return Trainer(config, scene, prior or config.prior.build("cpu"), generator, torch.device("cpu"))


def advance(run: Trainer, steps: int) -> dict[str, Tensor]:
    for _ in range(steps):
        run.advance()
    return dict(run.checkpoint().tensors)


@pytest.mark.parametrize("negative", ["", "blue"])
@pytest.mark.parametrize("name", GUIDANCE)
def test_a_run_works_and_resumes_bit_for_bit(small_config, name: str, negative: str) -> None:
    config = small_config(guidance=name, negative_prompt=negative, steps=3)
    run = trainer(config)
    before = {key: value.clone() for key, value in run.scene.state_dict().items()}
    whole = advance(run, 3)
    assert any(not torch.equal(value, before[key]) for key, value in run.scene.state_dict().items())
    first, second = trainer(config), trainer(config)
    advance(first, 1)
    second.restore(first.checkpoint())
    resumed = advance(second, 2)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("t", [0.1, 0.6])  # below and above what the methods decide by
@pytest.mark.parametrize("name", GUIDANCE)
def test_a_prediction_that_is_no_number_never_reaches_the_scene(small_config, name: str, t: float, bad: float) -> None:
    """One element of one view, in whichever condition of whichever call: no method may lose it on the way."""
    times = {"name": "descending" if GUIDANCE[name].needs_monotonic_t else "uniform", "t_min": t, "t_max": t}
    options = {"guidance": name, "timesteps": times, "negative_prompt": "blue", "optim.clip_gradient": 1.0}
    config = small_config(scene="image", loss_weights={}, **options)
    calls = Numbered(config.prior.build("cpu"))
    trainer(config, calls).advance()
    assert calls.number > 1
    for place in range(calls.number):
        run = trainer(config, Numbered(config.prior.build("cpu"), place, bad))
        before = run.scene.raw_pixels.detach().clone()
        with pytest.raises(NumericsError, match="not finite at step 0"):
            run.advance()
        assert torch.equal(run.scene.raw_pixels, before)


class Numbered(AnalyticPrior):
    """Counts its predictions; that of number `place` has `bad` in its last element."""

    def __init__(self, base: AnalyticPrior, place: int = -1, bad: float = 0.0) -> None:
        self.__dict__.update(base.__dict__)
        self.number, self.place, self.bad = 0, place, bad

    def predict_noise(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        predictions = super().predict_noise(*args, **kwargs)
        for eps in predictions:
            if self.number == self.place:
                eps[-1, -1, -1, -1] = self.bad
            self.number += 1
        return predictions
