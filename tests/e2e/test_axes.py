"""The axes beside the guidance, from the option to the run: each can be asked for by name, and each changes the run."""

from functools import cache
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from sds3d import RunConfig, load_config
from sds3d.priors.analytic import AnalyticConfig, AnalyticPrior
from sds3d.prompts import ViewPrompting
from sds3d.training.trainer import Trainer

SMALL = {
    **{"prompt": "a red ball", "prior": {"name": "analytic", "size": 16}, "scene": "image", "scene.size": 16},
    **{"cameras.size": 16, "cameras.views": 3, "steps": 4, "loss_weights": {}},
}
NEGATIVE = {"negative_prompt": "blue"}

# the options of a run, and those that are to change it
AXES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    *(({}, {"timesteps": name}) for name in ("uniform", "descending", "hifa", "dreamtime")),
    ({}, {"timesteps.t_max": {"start": 0.98, "end": 0.5, "begin_at": 0.5, "end_at": 0.5}}),  # the step down
    *(({}, {"noise": name}) for name in ("fixed", "surface")),
    *(({}, {"guidance.weighting": name}) for name in ("uniform", "alpha_sigma_squared", "sigma_over_alpha")),
    *(({"guidance": name}, {"guidance.rescale": 0.7}) for name in ("sds", "sjc", "ism", "sdi", "vsd", "cfd")),
    ({}, {"optim.clip_gradient": 0.01}),
    ({}, {"optim.clip_gradient": {"start": 0.01, "end": 0.1}}),
    ({}, NEGATIVE),
    ({"guidance": "csd", **NEGATIVE}, {"guidance.negative_scale": 0.5}),
    ({"guidance": "csd", **NEGATIVE}, {"guidance.negative_scale": {"start": 1, "end": 0.5}}),
    ({"guidance": "nfsd", **NEGATIVE}, {"guidance.guidance_scale": 3.0}),
    ({"guidance": "cfd"}, {"noise.background": "fresh"}),
    ({"guidance": "vsd"}, {"guidance.normalize": True}),
    *(({"guidance": "vsd"}, {"guidance.divergence": name}) for name in ("forward_kl", "jensen_shannon")),
    ({"guidance": "vsd"}, {"optim.guidance_lr": 1e-3}),
]


def pixels(config: RunConfig, prior: AnalyticPrior | None = None) -> Tensor:
    """What the run makes; the optimizer is Adam, so a factor on all gradients alone would not show in one step."""
    generator = torch.Generator().manual_seed(0)
    scene = config.scene.build(generator)
    run = Trainer(config, scene, prior or config.prior.build("cpu"), generator, torch.device("cpu"))
    for _ in run.run():
        pass
    return scene.raw_pixels.detach()


@cache
def plain(options: tuple[tuple[str, Any], ...]) -> Tensor:
    return pixels(load_config(overrides={**SMALL, **dict(options)}))


@pytest.mark.parametrize(("options", "asked"), AXES)
def test_an_axis_is_reached_from_the_config_and_changes_the_run(options: dict[str, Any], asked: dict[str, Any]) -> None:
    config = load_config(overrides={**SMALL, **options, **asked})
    assert RunConfig.from_dict(config.to_dict()) == config
    found = pixels(config)
    assert torch.isfinite(found).all()
    assert not torch.equal(found, plain(tuple(options.items())))


class Reader(AnalyticPrior):
    """Knows the words for sides: each is a mode of its own."""

    def __init__(self) -> None:
        words = ("red", "front", "side", "back", "overhead", "view")
        means = torch.randn(len(words), 3, 16, 16, generator=torch.Generator().manual_seed(0))
        super().__init__(means, torch.full((len(words),), 0.5), torch.ones(len(words)), words=words)


class ReaderConfig(AnalyticConfig):
    reads_views: ClassVar[bool] = True


@pytest.mark.parametrize(("mode", "forwards"), [("none", 2), ("words", 2), ("interpolated", 2), ("perp_neg", 4)])
def test_words_for_sides_reach_the_run_and_perp_neg_costs_twice(mode: str, forwards: int) -> None:
    config = load_config(overrides={**SMALL, "cameras.azimuth_deg": [100, 100]})  # neither side nor back
    config = config.model_copy(update={"prior": ReaderConfig()})
    generator, seen = torch.Generator().manual_seed(0), {}
    for name in ("none", "words", "interpolated", "perp_neg"):
        asked = config.model_copy(update={"view_prompting": ViewPrompting(mode=name)})
        seen[name] = pixels(asked, Reader())
    run = Trainer(
        config.model_copy(update={"view_prompting": ViewPrompting(mode=mode)}),
        config.scene.build(generator), Reader(), generator, torch.device("cpu"),
    )  # fmt: skip
    run.advance()
    assert run.forwards() == forwards * config.cameras.views
    assert not any(torch.equal(seen[mode], other) for name, other in seen.items() if name != mode)
