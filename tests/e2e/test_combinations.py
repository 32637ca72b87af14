"""Every guidance on every scene with every prior that needs no download: it runs, and resumes bit for bit."""

from functools import cache

import pytest
import torch
from torch import Tensor

from sds3d import RunConfig, load_config
from sds3d.guidance import GUIDANCE
from sds3d.priors.base import Prior
from sds3d.scenes import SCENES
from sds3d.training.trainer import Trainer

PRIORS = {
    "analytic": {
        "prior": {"name": "analytic", "size": 24},
        "cameras.size": 24,
        "cameras.views": 2,
        "prompt": "a red ball",
    },
    "embedded": {"prior": "embedded", "cameras.size": 64, "cameras.views": 2, "prompt": "a red mug"},
}
STEPS = {"analytic": (12, 8), "embedded": (3, 2)}  # of the run, and before its checkpoint; the second is costly
SMALL = {
    "gaussians": {"scene.count": 200, "scene.densify.refine_every": 3},
    "nerf": {
        "scene.field": {"levels": 4, "finest_resolution": 32, "log2_table": 12, "start_levels": 2},
        "scene.step": 0.1,
    },
    "mesh": {"scene.samples": 1, "scene.colors": {"finest_resolution": 24, "log2_table": 10, "hidden": 8}},
    "image": {},
}


@cache
def loaded(name: str) -> Prior:
    return load_config(overrides=PRIORS[name]).prior.build("cpu")


def trainer(config: RunConfig) -> Trainer:
    generator = torch.Generator().manual_seed(config.seed)
    scene = config.scene.build(generator)
    return Trainer(config, scene, loaded(config.prior.name), generator, torch.device("cpu"))


def finish(run: Trainer) -> dict[str, Tensor]:
    for _ in run.run():
        pass
    return dict(run.checkpoint().tensors)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("guidance", GUIDANCE)
def test_it_runs_and_resumes_bit_for_bit(guidance: str, scene: str, prior: str) -> None:
    steps, saved = STEPS[prior]
    options = {**PRIORS[prior], "guidance": guidance, "scene": scene, **SMALL[scene], "steps": steps}
    if scene == "mesh" and (guidance, prior) != ("sds", "analytic"):  # one looks for a palette, which takes seconds
        options["scene.colors.palette"] = False
    config = load_config(overrides=options)
    whole = trainer(config)
    groups = [group for group in whole.scene.param_groups() if group.name != "palette"]  # it comes later
    parameter = groups[-1].parameters[0]  # colours, network or pixels
    before = parameter.detach().clone()
    whole.advance()
    assert not torch.equal(parameter, before)
    for _ in range(saved - 1):
        whole.advance()
    second = trainer(config)
    second.restore(whole.checkpoint())
    first, again = finish(whole), finish(second)
    assert first.keys() == again.keys()
    assert [name for name in first if not torch.equal(first[name], again[name])] == []
    assert all(torch.isfinite(value).all() for value in first.values() if value.is_floating_point())
