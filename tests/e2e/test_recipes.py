"""Every recipe runs in all of its stages on a tiny model of its family, and a run that is cut in each stage and resumed
is the run that was not, bit for bit. At full size all, 20 steps a stage."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from sds3d.config import RunConfig, load_config, read_recipe, recipe_names
from sds3d.export.mesh import Mesh
from sds3d.priors.base import Prior
from sds3d.priors.hub import zero123_prior
from sds3d.run import report
from sds3d.run.events import StageBegun, StepDone, Stop
from sds3d.scenes import SCENES, nerf, surface_color
from sds3d.training import take_over
from sds3d.training.session import Session
from tests.priors.hub.conftest import cache, model_folder  # noqa: F401
from tests.sizes import FULL

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("hub")]
STEPS = 20 if FULL else 2  # of each stage
TINY = {"diffusers": "sd", "multiview": "mvdream", "zero123": "zero123"}  # the model of each kind of prior
SMALL: dict[str, dict[str, Any]] = {  # in place of what a recipe says; all else stays
    "": {"cameras.size": 16, "cameras.later_sizes": [], "reference_image.size": 16, "guidance.inversion_steps": 2},
    "nerf": {
        "scene.field.levels": 3,
        "scene.field.finest_resolution": 32,
        "scene.field.log2_table": 8,
        "scene.field.hidden": 8,
        "scene.field.start_levels": 2,
        "scene.step": 0.1,
    },
    "gaussians": {"scene.count": 200, "scene.densify.max_count": 300},
    "mesh": {
        "scene.colors.finest_resolution": 16,
        "scene.colors.log2_table": 8,
        "scene.samples": 1,
        "scene.finish": 0,
    },
}


def small(options: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: SMALL[""].get(key, value) for key, value in options.items()}
    return {**own, **SMALL[options.get("scene.name", "")]} if "scene.name" in options else own


def tiny_run(name: str, model: Path, picture: Path) -> RunConfig:
    """The recipe with as many steps in each stage, on small views, scenes and a tiny model."""
    options = small(read_recipe(name).options())
    count = 1 + len(options["stages"])
    stages = [
        {"begin_at": number / count, "options": small(stage["options"])}
        for number, stage in enumerate(options["stages"], 1)
    ]
    needs = {"reference_image.path": str(picture)} if read_recipe(name).needs else {}
    own = {
        "prompt": "a red mug", "device": "cpu", "prior.model": str(model), "prior.image_size": 64,
        "prior.memory": "as_set", "steps": STEPS * count, "stages": stages, "preview_every": 0,
    }  # fmt: skip
    return load_config(overrides={**options, **needs, **own})


@pytest.fixture(scope="module")
def priors() -> dict[Any, Prior]:
    """Those that were loaded, by their options."""
    return {}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs hand nothing over and are not measured, and what a mesh takes over is a ball: all of that takes longer than
    the steps, and has tests of its own."""
    for scene in SCENES.values():
        monkeypatch.setattr(scene, "artifacts", ())
    for measured in ("view_metrics", "janus_metrics"):
        monkeypatch.setattr(report, measured, lambda *_: {})
    monkeypatch.setattr(nerf, "OCCUPANCY_RESOLUTION", 12)
    ball = trimesh.creation.icosphere(2, 0.5)
    vertices, faces = ball.vertices.astype(np.float32), ball.faces.astype(np.int64)
    surface = Mesh(vertices, faces, np.full_like(vertices, 0.5))
    monkeypatch.setattr(take_over, "extract_mesh", lambda *_: surface)
    monkeypatch.setattr(take_over, "FACES", 300)
    monkeypatch.setattr(take_over, "COLORED_POINTS", 300)
    fit = surface_color.ColorField.fit
    monkeypatch.setattr(surface_color.ColorField, "fit", lambda *given: fit(*given[:4], 3))
    monkeypatch.setattr(zero123_prior, "ANCHOR_STEPS", 2)


def finished(session: Session, cut_in: set[int]) -> tuple[dict[str, torch.Tensor], int]:
    """The run to its end, cut after each of those steps; its tensors, and the stages that it began."""
    begun, stops = 1, set(cut_in)
    while True:
        for event in session.run():
            begun += isinstance(event, StageBegun)
            if isinstance(event, StepDone) and event.step in stops:
                stops.remove(event.step)
                session.send(Stop())
        checkpoint, problems = session.folder.load_checkpoint()
        assert not problems
        assert checkpoint is not None
        if not stops and checkpoint.step == session.config.steps:
            return checkpoint.tensors, begun
        session = Session.resume(session.folder.path, session.prior())


NAMES = (
    recipe_names() if FULL else ["image-to-3d", "magic3d", "mvdream", "prolificdreamer"]
)  # each prior, 1 to 3 stages


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_resumes_in_every_stage(
    name: str,
    model_folder,  # noqa: F811
    priors: dict[Any, Prior],
    bare: None,
    tmp_path: Path,
) -> None:
    picture = Image.new("RGBA", (32, 32))
    picture.paste((200, 30, 30, 255), (8, 8, 24, 24))
    picture.save(tmp_path / "picture.png")
    recipe = read_recipe(name)
    config = tiny_run(name, model_folder(TINY[recipe.run["prior.name"].value]), tmp_path / "picture.png")
    key = json.dumps(config.prior.model_dump(mode="json"), sort_keys=True)
    prior = priors.setdefault(key, config.prior.build("cpu"))
    whole, stages = finished(Session(config, tmp_path / "whole", prior=prior), set())
    assert stages == len(recipe.stages)
    cuts = {begin + 1 for begin in config.stage_begins}
    again, _ = finished(Session(config, tmp_path / "cut", prior=prior), cuts)
    assert whole.keys() == again.keys()
    assert [key for key in whole if not torch.equal(whole[key], again[key])] == []
