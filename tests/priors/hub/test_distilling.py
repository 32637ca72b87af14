"""Steps of distillation from every family, cut in the middle and resumed.

A scene is told gradients of its pictures, whatever made them: every kind of scene is distilled into from one family in
latent space and the one in pixels, and with every guidance in tests/e2e/test_combinations.py. At full size: ten steps
of every family on every kind of scene with every method.
"""

from functools import cache
from itertools import combinations, product

import pytest
import torch

from sds3d.config.run_config import RunConfig
from sds3d.priors.base import Prior
from sds3d.training.trainer import Trainer
from tests.priors.hub.tiny_models import MODELS
from tests.sizes import FULL

pytestmark = pytest.mark.xdist_group("hub")
FAMILIES = ("sd", "sdxl", "sd3", "flux", "pixart-alpha", "sana", "deepfloyd")
STEPS = 10 if FULL else 2
SCENES = {
    "gaussians": {"name": "gaussians", "count": 200},
    "nerf": {"name": "nerf"},
    "mesh": {"name": "mesh", "samples": 1},
}
METHODS = {"sds": {"name": "sds"}, "vsd": {"name": "vsd", "lora_rank": 2}, "cfd": {"name": "cfd"}}
FURTHER = (
    product(FAMILIES, ("nerf", "mesh"), METHODS) if FULL else product(("sd", "deepfloyd"), ("nerf", "mesh"), ["sds"])
)


def config_of(folder, family, scene, method) -> RunConfig:
    return RunConfig.from_dict(
        {
            "prompt": "a red mug",
            "steps": STEPS,
            "device": "cpu",
            "prior": {"name": "diffusers", "model": str(folder), "image_size": 16 if family == "deepfloyd" else 64},
            "scene": SCENES[scene],
            "guidance": METHODS[method],
            "cameras": {"views": 2, "size": 16},
        }
    )


@cache
def loaded(config) -> Prior:
    return config.build("cpu")


def trainer(config, prior) -> Trainer:
    generator = torch.Generator().manual_seed(config.seed)
    return Trainer(config, config.scene.build(generator), prior, generator, torch.device("cpu"))


@pytest.mark.parametrize(
    ("family", "scene", "method"),
    [*product(FAMILIES, ["gaussians"], METHODS), *FURTHER],
)
def test_steps_move_the_scene_and_resume_bit_for_bit(model_folder, family, scene, method):
    config = config_of(model_folder(family), family, scene, method)
    prior = loaded(config.prior)
    whole = trainer(config, prior)
    start = {name: tensor.clone() for name, tensor in whole.checkpoint().tensors.items()}
    checkpoint = None
    for event in whole.run():
        if event.step == STEPS // 2:
            saved = whole.checkpoint()
            tensors = {name: tensor.clone() for name, tensor in saved.tensors.items()}
            checkpoint = type(saved)(saved.step, tensors, saved.seconds, saved.forwards)
    after = whole.checkpoint().tensors
    moved = [name for name in after if name.startswith("scene.") and not torch.equal(after[name], start[name])]
    assert moved
    resumed = trainer(config, prior)
    resumed.restore(checkpoint)
    for _ in resumed.run():
        pass
    again = resumed.checkpoint().tensors
    assert all(torch.equal(after[name], again[name]) for name in after)


def test_every_family_is_distilled_from():
    assert {name.split("-")[0] for name in MODELS} == {name.split("-")[0] for name in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_words_for_sides_are_blended_and_held_against_in_every_family(model_folder, family):
    """What a family packs into an embedding (pooled vectors, masks) survives mixing by azimuth."""
    config = config_of(model_folder(family), family, "gaussians", "sds").model_copy(update={"steps": 2})
    prior, colors = loaded(config.prior), []
    for mode in (config.view_prompting.mode, "interpolated", "perp_neg"):
        words = config.view_prompting.model_copy(update={"mode": mode})
        run = trainer(config.model_copy(update={"view_prompting": words}), prior)
        for _ in run.run():
            pass
        colors.append(run.checkpoint().tensors["scene.raw_colors"])
    assert all(torch.isfinite(found).all() for found in colors)
    assert not any(torch.equal(first, second) for first, second in combinations(colors, 2))
