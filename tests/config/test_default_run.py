"""The run that the embedded prior brings: splats, then a mesh, unless a person names a scene or stages."""

import json
from pathlib import Path
from typing import Any

import pytest

from sds3d.config import RunConfig, load_config, resolve
from sds3d.errors import ConfigError
from sds3d.scenes import GaussiansConfig
from sds3d.training import take_over
from sds3d.training.session import Session

PROMPT = "a red mug"
HUB = {"name": "diffusers", "model": "org/model"}


def shape(config: RunConfig) -> tuple[int, list[tuple[str, int]]]:
    """(steps, the scene and the first step of each stage)."""
    names = [config.in_stage(number).scene.name for number in range(len(config.stages) + 1)]
    return config.steps, list(zip(names, config.stage_begins, strict=True))


def splats(steps: int) -> tuple[int, list[tuple[str, int]]]:
    return steps, [("gaussians", 0)]


def staged(steps: int, begin: int) -> tuple[int, list[tuple[str, int]]]:
    return steps, [("gaussians", 0), ("mesh", begin)]


def test_it_is_the_preset_mesh_and_says_that_the_prior_brings_it() -> None:
    config = resolve({"prompt": PROMPT})
    assert shape(config) == staged(450, 200)
    assert config == load_config(preset="mesh", overrides={"prompt": PROMPT})
    assert config == load_config(preset="default", overrides={"prompt": PROMPT})
    assert (config.sources["steps"], config.sources["stages"]) == ("prior embedded", "prior embedded")
    assert config.said == {"prompt": PROMPT}
    assert RunConfig(prompt=PROMPT) == config


def test_a_config_of_keywords_has_whole_stages_too() -> None:
    """A validator of pydantic that gave back a copy was passed over, with a warning."""
    stages = [{"begin_at": 0.5, "options": {"cameras": {"views": 2}}}]
    config = RunConfig(prompt=PROMPT, stages=stages)
    assert config == resolve({"prompt": PROMPT, "stages": stages})
    assert config.stages[0].options["cameras"]["size"] == config.cameras.size


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"steps": 90}, staged(90, 40)),
        ({"guidance": "cfd", "cameras.size": 48}, staged(450, 200)),
        # options of the first scene name none
        ({"scene.count": 300, "scene.densify.refine_stop": 0.5}, staged(450, 200)),
        ({"scene": {"rasterizer": "torch"}}, staged(450, 200)),
        ({"scene": "gaussians"}, splats(600)),
        ({"scene": {"name": "gaussians", "count": 300}}, splats(600)),
        ({"scene.count": 300, "scene.name": "gaussians"}, splats(600)),
        ({"scene": GaussiansConfig(count=300)}, splats(600)),
        ({"scene": "gaussians", "steps": 90}, splats(90)),
        ({"scene": "nerf"}, (600, [("nerf", 0)])),
        ({"scene": "mesh"}, (600, [("mesh", 0)])),
        ({"scene": "image"}, (600, [("image", 0)])),
        ({"stages": []}, splats(600)),
        ({"stages": [{"begin_at": 0.5, "options": {}}]}, (600, [("gaussians", 0), ("gaussians", 300)])),
        ({"stages": [{"begin_at": 0.5, "options": {"scene": "mesh"}}], "steps": 90}, staged(90, 45)),
        ({"prior": "analytic"}, splats(600)),
        ({"prior": HUB}, splats(600)),
        ({"prior": "embedded"}, staged(450, 200)),
        ({"prior.weights": "/folder"}, staged(450, 200)),
    ],
)  # fmt: skip
def test_a_scene_or_stages_that_are_named_are_all_there_is(said: dict[str, Any], expected: Any, tmp_path: Path) -> None:
    config = resolve({"prompt": PROMPT, **said})
    assert shape(config) == expected
    assert resolve(json.loads(json.dumps(config.said))) == config
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    (tmp_path / "options.json").write_text(json.dumps(config.said))
    assert load_config(tmp_path / "options.json") == config


@pytest.mark.parametrize(
    ("preset", "steps", "begin"), [("draft", 250, 111), ("default", 450, 200), ("fine", 2000, 889), ("mesh", 450, 200)]
)
def test_presets_have_it_with_the_embedded_prior_alone(preset: str, steps: int, begin: int) -> None:
    assert shape(load_config(preset=preset, overrides={"prompt": PROMPT})) == staged(steps, begin)
    plain = load_config(preset=preset, overrides={"prompt": PROMPT, "prior": "analytic"})
    if preset == "mesh":
        assert shape(plain) == staged(steps, begin)
    else:
        assert shape(plain) == splats(600 if preset == "default" else steps)
        assert shape(load_config(preset=preset, overrides={"prompt": PROMPT, "scene": "gaussians"})) == shape(plain)


def test_what_is_said_of_splats_and_of_all_scenes_reaches_the_stages_that_have_it() -> None:
    weights = {"z_variance": 3, "guidance": 0.5, "reference_mask": 7}
    config = resolve({"prompt": PROMPT, "scene.count": 300, "loss_weights": weights, "cameras.views": 2})
    first, second = config.in_stage(0), config.in_stage(1)
    assert (first.scene.count, first.loss_weights["z_variance"]) == (300, 3)
    assert "z_variance" not in second.loss_weights
    for stage in (first, second):
        assert (stage.loss_weights["guidance"], stage.loss_weights["reference_mask"], stage.cameras.views) == (
            0.5,
            7,
            2,
        )


@pytest.mark.parametrize("key", ["export.level", "export.resolution"])
def test_options_of_the_search_for_a_surface_say_which_scene_has_it(key: str) -> None:
    with pytest.raises(ConfigError, match=r"does not go with the scene mesh.*scene=gaussians") as caught:
        resolve({"prompt": PROMPT, key: 64})
    assert caught.value.field == key
    assert shape(resolve({"prompt": PROMPT, key: 64, "scene": "gaussians"})) == splats(600)
    assert resolve({"prompt": PROMPT, "export.faces": 500}).export.faces == 500


def test_too_few_steps_for_two_stages_say_so() -> None:
    assert shape(resolve({"prompt": PROMPT, "steps": 2})) == staged(2, 1)
    with pytest.raises(ConfigError, match=r"the stage before has no step.*more steps, or stages=\[\]"):
        resolve({"prompt": PROMPT, "steps": 1})
    assert shape(resolve({"prompt": PROMPT, "steps": 1, "stages": []})) == splats(1)


def test_a_change_on_the_way_leaves_the_stages_to_the_prior() -> None:
    changes = {"guidance.guidance_scale": 7, "steps": 900}
    changed = resolve({"prompt": PROMPT}).with_changes(changes, tuple(changes))
    assert shape(changed) == staged(900, 400)
    assert changed.in_stage(1).guidance.guidance_scale == 7
    assert changed.said == {"prompt": PROMPT, "guidance": {"guidance_scale": 7}, "steps": 900}
    assert resolve(changed.said) == changed


def test_a_saved_run_of_splats_alone_stays_that() -> None:
    old = resolve({"prompt": PROMPT, "scene": "gaussians"}).to_dict()
    said = {"prompt": PROMPT, "export": {"level": 5.0}}
    old["export"]["level"] = 5.0
    saved = RunConfig.restore(said, old)
    assert shape(saved) == splats(600)
    assert saved.to_dict() == old
    assert {saved.sources[key] for key in ("steps", "stages")} == {"the saved run"}
    assert shape(saved.with_changes({"prompt": "a mug"})) == splats(600)
    assert shape(RunConfig.restore(said, {key: value for key, value in old.items() if key != "stages"})) == splats(600)


def test_a_machine_without_kernels_is_told_how_to_do_without_stages(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(take_over, "compiled", lambda: False)
    with pytest.raises(ConfigError, match=r"mesh that takes over needs sds3d's compiled kernels.*stages=\[\]"):
        Session(resolve({"prompt": PROMPT}), tmp_path / "run").check()
