"""One way to a config: the same defaults however it is made, and for each value who gave it."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sds3d.cameras import CamerasConfig, SizeStage
from sds3d.config import PARTS, RunConfig, load_config, local_files, option, printable, resolve
from sds3d.config.layers import flatten
from sds3d.errors import ConfigError
from sds3d.guidance import GUIDANCE, SDS
from sds3d.guidance.timesteps import Uniform
from sds3d.priors import EmbeddedConfig
from sds3d.scenes import ImageConfig, MeshConfig, NerfConfig
from sds3d.scenes.shading import Sun
from tests.sizes import FULL

PROMPT = "a red mug"
REQUIRED = {
    "diffusers": {"model": "org/model"},
    "multiview": {"model": "org/model"},
    "zero123": {"model": "org/model", "reference_image": {"path": "/mug.png"}},
}
CHOICES: dict[str, list[Any]] = {
    key: [{"name": name, **(REQUIRED.get(name, {}) if key == "prior" else {})} for name in PARTS[key]]
    for key in ("scene", "prior", "guidance")
}
TABLE = [dict(zip(CHOICES, parts, strict=True)) for parts in itertools.product(*CHOICES.values())]


def test_a_config_has_the_same_defaults_however_it_is_made() -> None:
    assert len(TABLE) == len(PARTS["scene"]) * len(PARTS["prior"]) * len(PARTS["guidance"]) >= 135
    assert RunConfig(prompt=PROMPT) == resolve({"prompt": PROMPT}) == load_config(overrides={"prompt": PROMPT})
    for choice in TABLE:
        config = RunConfig(prompt=PROMPT, **choice)
        for key in ("scene", "guidance"):  # of the class, whichever part stood there before
            drawn = {
                "light": config.prior.light,
                "colors": {"palette": config.prior.flat_colors},
                "primitives": config.prior.simple_shapes,
            }
            drawn = drawn if choice[key]["name"] == "mesh" else {}  # by the prior
            assert getattr(config, key) == PARTS[key][choice[key]["name"]](**drawn)
        assert config == resolve({"prompt": PROMPT, **choice}) == load_config(overrides={"prompt": PROMPT, **choice})
        assert config == RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        again = resolve(config.said)
        assert (config, hash(config)) == (again, hash(again))
        assert config.said == {"prompt": PROMPT, **choice}
        assert set(config.sources) == set(flatten(config.to_dict()))


def test_the_objects_of_parts_bring_the_same_defaults_as_their_names() -> None:
    by_name = resolve({"prompt": PROMPT, "scene": "nerf", "guidance": "cfd", "prior": "analytic"})
    by_object = RunConfig(
        prompt=PROMPT, scene=NerfConfig(), guidance=GUIDANCE["cfd"](), prior=PARTS["prior"]["analytic"]()
    )
    assert by_name == by_object
    assert by_object.noise.name == "surface"
    assert RunConfig(prompt=PROMPT, timesteps=Uniform()).timesteps == Uniform()


def test_a_mesh_is_lit_as_the_pictures_of_the_prior_are_unless_somebody_says_otherwise() -> None:
    lit = resolve({"prompt": PROMPT, "scene": "mesh"})
    assert lit.scene.light == Sun(**EmbeddedConfig.light)
    assert lit.sources["scene.light.ambient"] == "prior embedded"
    assert RunConfig(prompt=PROMPT, scene=MeshConfig()).scene.light is None  # an object says all of its options
    assert resolve({"prompt": PROMPT, "scene": "mesh", "prior": "analytic"}).scene.light is None
    assert resolve({"prompt": PROMPT, "scene": "mesh", "scene.light": None}).scene.light is None
    assert resolve({"prompt": PROMPT, "scene": "mesh", "scene.light.ambient": 0.5}).scene.light.diffuse == 0.34
    # and so are its colours flat, or not
    assert lit.scene.colors.palette
    assert lit.scene.primitives
    assert not resolve({"prompt": PROMPT, "scene": "mesh", "scene.primitives": False}).scene.primitives
    file = {"prompt": PROMPT, "scene": "mesh", "scene.source.path": "mug.glb"}
    assert not resolve(file).scene.primitives  # the shape is somebody's
    assert resolve(file | {"scene.primitives": True}).scene.primitives
    assert not resolve({"prompt": PROMPT, "scene": "mesh", "prior": "analytic"}).scene.primitives
    assert lit.sources["scene.colors.palette"] == "prior embedded"
    assert lit.sources["scene.colors.hidden"] == "default"
    assert not RunConfig(prompt=PROMPT, scene=MeshConfig()).scene.colors.palette
    assert not resolve({"prompt": PROMPT, "scene": "mesh", "prior": "analytic"}).scene.colors.palette
    assert not resolve({"prompt": PROMPT, "scene": "mesh", "scene.colors.palette": False}).scene.colors.palette
    assert resolve({"prompt": PROMPT, "scene": "mesh", "scene.colors.hidden": 16}).scene.colors.palette
    with pytest.raises(ConfigError, match=r"scene.colors.palette = 'red' is not allowed"):
        resolve({"prompt": PROMPT, "scene": "mesh", "scene.colors.palette": "red"})
    assert RunConfig(prompt=PROMPT, cameras=CamerasConfig(later_sizes=(SizeStage(begin_at=0.5, size=128),))).said == {
        "prompt": PROMPT,
        "cameras": {**CamerasConfig().model_dump(mode="json"), "later_sizes": [{"begin_at": 0.5, "size": 128}]},
    }
    assert RunConfig(prompt=PROMPT, scene=ImageConfig()).cameras.azimuth_deg == (30.0, 30.0)


class Unlisted(SDS):
    name: Literal["unlisted"] = "unlisted"  # type: ignore[assignment]
    default_overrides: ClassVar[Mapping[str, str]] = {"noise": "fixed"}


def test_an_object_of_a_class_that_no_name_leads_to_is_taken_as_it_is() -> None:
    method = Unlisted(guidance_scale=3)
    config = RunConfig(prompt=PROMPT, guidance=method)
    assert config.guidance is method
    assert config.noise.name == "fixed"
    assert config.said["guidance"]["guidance_scale"] == 3
    with pytest.raises(ConfigError, match="'unlisted' is unknown"):
        load_config(overrides={"prompt": PROMPT, "guidance": method, "guidance.guidance_scale": 7})


@pytest.mark.slow
@pytest.mark.parametrize("key", CHOICES)
def test_a_runs_config_file_goes_with_any_other_part(key: str, tmp_path: Path) -> None:
    """Any two choices after each other, and any choice with any of another part; all three with SDS3D_FULL."""
    path, choices = tmp_path / "config.json", list(CHOICES[key])
    rest = [{other: choice} for other in CHOICES if other != key for choice in CHOICES[other]]
    for first, second in itertools.product(choices, choices):
        follows = choices.index(second) == (choices.index(first) + 1) % len(choices)
        for others in [{}, *(rest if FULL or follows else ())]:
            path.write_text(json.dumps(resolve({"prompt": PROMPT, **others, key: first}).said))
            config = load_config(path, overrides={key: second})
            assert config == resolve({"prompt": PROMPT, **others, key: second})


def test_each_value_tells_who_gave_it(tmp_path: Path) -> None:
    path = tmp_path / "my.json"
    path.write_text(json.dumps({"steps": 7, "scene": {"name": "nerf", "step": 0.1}, "optim.lr_scale.end": 0.5}))
    overrides = {"prompt": PROMPT, "guidance": "cfd", "timesteps.t_min": "0.1", "optim.clip_gradient": "1"}
    sources = load_config(path, "fine", overrides).sources
    told = {
        "prompt": "you",
        "steps": str(path),
        "preview_every": "preset fine",
        "seed": "default",
        "cameras.views": "preset fine",
        "cameras.size": "default",
        "scene.name": str(path),
        "scene.step": str(path),
        "scene.chunk": "default",
        "guidance.name": "you",
        "noise.name": "guidance cfd",
        "timesteps.name": "guidance cfd",
        "timesteps.t_min": "you",
        "timesteps.halfway": "default",
        "loss_weights.sparsity": "scene nerf",
        "loss_weights.opaque.end": "scene nerf",
        "optim.lr_scale.start": "default",
        "optim.lr_scale.end": str(path),
        "optim.clip_gradient": "you",
        "reference_image": "default",
    }
    assert {key: sources[key] for key in told} == told
    assert resolve({"prompt": PROMPT}).sources["timesteps.t_min"] == "prior embedded"


def test_what_was_said_has_no_defaults_and_no_options_of_parts_that_were_left(tmp_path: Path) -> None:
    path = tmp_path / "my.json"
    path.write_text(json.dumps({"guidance": {"guidance_scale": 20}, "prior": {"name": "analytic", "size": 32}}))
    config = load_config(path, "draft", {"prompt": PROMPT, "guidance": "csd", "scene.background.color": [1, 1, 1]})
    assert config.said == {
        "steps": 250,
        "preview_every": 50,
        "guidance": {"name": "csd"},
        "prior": {"name": "analytic", "size": 32},
        "prompt": PROMPT,
        "scene": {"background": {"color": [1, 1, 1]}},
    }
    config.said["steps"] = 9
    assert config.said["steps"] == 250


def test_a_reference_image_that_two_parts_share_was_said_once() -> None:
    said = {"prompt": PROMPT, "prior": "zero123", "prior.model": "org/model", "reference_image.path": "mug.png"}
    config = resolve(said)
    assert config.prior.reference_image == config.reference_image
    assert "reference_image" not in config.said["prior"]
    assert config.sources["prior.reference_image.path"] == "you"
    assert resolve({**config.said, "reference_image": {"path": "cup.png"}}).prior.reference_image.path == "cup.png"
    assert resolve({**config.said, "prior": "embedded"}).reference_image.path == "mug.png"


def test_a_kind_of_a_part_keeps_what_was_said_of_that_part_and_has_its_own_defaults() -> None:
    for name, weighting in (("sjc", "uniform"), ("cfd", "sigma_over_alpha")):  # both are kinds of SDS
        config = load_config(overrides={"prompt": PROMPT, "guidance.guidance_scale": 20, "guidance": name})
        assert (config.guidance.guidance_scale, config.guidance.weighting) == (20, weighting)
        assert config.guidance == GUIDANCE[name](guidance_scale=20)


KEYS = ["scene", "prior", "guidance", "timesteps", "noise", "timesteps.t_min", "timesteps.t_max", "cameras.views"]
VALUES = [
    "nerf",
    "image",
    "analytic",
    "cfd",
    "vsd",
    "uniform",
    "annealed",
    "hifa",
    "fixed",
    0.3,
    8,
    {"name": "sds"},
    {},
]


@settings(max_examples=5_000 if FULL else 200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=6))
def test_what_was_said_gives_the_same_config_again(assignments: list[tuple[str, Any]]) -> None:
    try:
        config = resolve({"prompt": PROMPT, **dict(assignments)})
    except ConfigError:
        return
    assert resolve(json.loads(json.dumps(config.said))) == config
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert RunConfig.restore(config.said, config.to_dict()) == config


def test_a_change_keeps_everything_else_and_what_was_said() -> None:
    config = resolve({"prompt": PROMPT, "guidance": "vsd", "steps": 9})
    changed = config.with_changes({"guidance.guidance_scale": "5", "prompt": "7"})
    assert (changed.guidance.guidance_scale, changed.prompt) == (5, "7")
    assert changed.said == {"prompt": "7", "guidance": {"name": "vsd", "guidance_scale": 5}, "steps": 9}
    assert changed.sources["guidance.guidance_scale"] == "you"
    assert resolve(changed.said) == changed
    assert changed.with_changes({"prompt": PROMPT, "guidance.guidance_scale": config.guidance.guidance_scale}) == config
    assert config.with_changes({"steps": 12}, allowed=("steps",)).steps == 12
    assert option(config, "guidance.guidance_scale") == config.guidance.guidance_scale
    assert option(config, "guidance.no_such") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 3}, "seed cannot be changed here"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"guidance.guidance_scale": 500}, "guidance.guidance_scale = 500 is not allowed"),
        ({"guidance.guidance_scale": None}, "guidance.guidance_scale = None is not allowed"),
    ],
)
def test_a_change_that_is_wrong_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve({"prompt": PROMPT}).with_changes(changes)


def test_a_change_of_an_option_that_the_run_does_not_have_is_refused() -> None:
    for key in ("guidance.guidance_scale", "guidance.weighting.deeper"):
        with pytest.raises(ConfigError, match="is not an option of this run"):
            resolve({"prompt": PROMPT, "guidance": "csd"}).with_changes({key: 3}, allowed=(key,))


def test_a_saved_run_keeps_its_values_when_defaults_change(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve({"prompt": PROMPT, "steps": 9})
    said, resolved = config.said, config.to_dict()
    changed = {"timesteps": {"name": "annealed", "t_min": 0.3}, "loss_weights": {"sparsity": 3.0}}
    monkeypatch.setattr(PARTS["prior"]["embedded"], "default_overrides", changed)
    restored = RunConfig.restore(said, resolved)
    assert restored == config != resolve(said)
    assert restored.said == said
    assert restored.sources["timesteps.t_min"] == "the saved run"
    assert (restored.sources["steps"], restored.sources["seed"]) == ("you", "default")
    assert restored.with_changes({"prompt": "a mug"}).to_dict() == {**resolved, "prompt": "a mug"}


def test_a_printed_config_counts_as_what_was_said_in_it(tmp_path: Path) -> None:
    path = tmp_path / "printed.json"
    config = resolve({"prompt": PROMPT, "scene.count": 300})
    path.write_text(json.dumps(printable(config)))
    assert load_config(path) == config
    assert load_config(path, overrides={"guidance": "cfd"}) == resolve({**config.said, "guidance": "cfd"})
    path.write_text(json.dumps({**printable(config), "said": 3}))
    with pytest.raises(ConfigError, match="said is not an option"):
        load_config(path, overrides={"prompt": PROMPT})


def test_options_nested_too_deeply_are_a_config_error() -> None:
    nested: dict[str, Any] = {}
    for _ in range(5000):
        nested = {"scene": nested}
    for make in (resolve, lambda data: load_config(overrides=data)):
        with pytest.raises(ConfigError, match="nested at most 16 deep"):
            make({"prompt": PROMPT, **nested, "x" + ".y" * 5000: 3})


def test_files_of_the_machine_are_found_wherever_they_are() -> None:
    assert local_files(resolve({"prompt": PROMPT})) == {}
    config = resolve(
        {
            "prompt": PROMPT,
            "prior": {**REQUIRED["zero123"], "name": "zero123", "lora": ["a.safetensors"], "model": "/models/zero"},
            "reference_image": {"path": "/etc/b.png", "depth": "d.png"},
        }
    )
    assert local_files(config) == {
        "prior.model": "/models/zero",
        "prior.lora": ("a.safetensors",),
        "prior.reference_image.path": "/mug.png",
        "reference_image.path": "/etc/b.png",
        "reference_image.depth": "d.png",
    }
    assert local_files(resolve({"prompt": PROMPT, "prior.weights": "/etc"})) == {"prior.weights": "/etc"}
