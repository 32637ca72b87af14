"""Configs: what is written comes back, and every mistake is one line that names the field."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sds3d.config import PRESETS, RunConfig, load_config, option
from sds3d.errors import ConfigError
from sds3d.guidance import GUIDANCE, SDS
from sds3d.priors import DiffusersConfig
from tests.sizes import FULL


def config(**overrides: object) -> RunConfig:
    return load_config(overrides={"prompt": "a red mug", **overrides})


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_come_back_from_json(preset: str) -> None:
    made = load_config(preset=preset, overrides={"prompt": "a mug"})
    assert RunConfig.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_the_smallest_config_is_a_prompt() -> None:
    made = RunConfig.from_dict({"prompt": " a mug "})
    assert made.prompt == "a mug"
    assert made == load_config(overrides={"prompt": "a mug"})
    assert made == load_config(preset="default", overrides={"prompt": "a mug"})


def test_file_over_preset_and_overrides_over_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"prompt": "a mug", "steps": 7, "seed": 3}))
    made = load_config(path, "draft", {"seed": "5"})
    assert (made.steps, made.seed, made.preview_every) == (7, 5, PRESETS["draft"]["preview_every"])


def test_dotted_overrides_reach_inside_and_keep_the_rest() -> None:
    made = config(
        **{
            "timesteps": "annealed",
            "timesteps.t_max.end": "0.4",
            "guidance.guidance_scale": 20,
            "cameras.elevation_deg": "[0, 30]",
        }
    )
    assert made.timesteps.t_max.end == 0.4
    assert made.timesteps.t_max.start == config(timesteps="annealed").timesteps.t_max.start
    assert made.guidance == SDS(guidance_scale=20)
    assert made.cameras.elevation_deg == (0, 30)


def test_naming_another_part_starts_from_its_defaults() -> None:
    made = config(**{"prior": "analytic", "prior.size": 32, "timesteps": "uniform", "scene.background.name": "solid"})
    assert (made.prior.name, made.prior.size, made.timesteps.t_max) == ("analytic", 32, 0.98)
    assert made.scene.background.name == "solid"
    assert made.scene.densify == config().scene.densify


def test_naming_the_same_part_keeps_its_options() -> None:
    made = config(**{"guidance.guidance_scale": 20, "guidance": "sds"})
    assert made.guidance.guidance_scale == 20


def test_a_prior_with_a_slash_is_a_model() -> None:
    assert config(prior="./models/sd").prior == DiffusersConfig(model="./models/sd")
    assert RunConfig.from_dict({"prompt": "a", "prior": "org/model"}).prior == DiffusersConfig(model="org/model")


def test_prompts_are_never_read_as_json() -> None:
    assert load_config(overrides={"prompt": "[1, 2]"}).prompt == "[1, 2]"
    assert config(negative_prompt="12").negative_prompt == "12"


MISTAKES = {
    "prompt is missing": {},
    "prompt = '' is not allowed: the prompt is empty": {"prompt": ""},
    "prompt = 'a\\x1bb' is not allowed: character 2 is a control character ('\\x1b')": {"prompt": "a\x1bb"},
    "10000 characters are too many, at most 500": {"prompt": "x" * 10_000},
    "negative_prompt = 'a\\x00' is not allowed": {"negative_prompt": "a\0"},
    "guidence is not an option (did you mean guidance?)": {"guidence": 3},
    "optim.clip_gradient = 0 is not allowed: it must be above 0": {"optim.clip_gradient": 0},
    "guidance.guidance_scal is not an option (did you mean guidance.guidance_scale?)": {"guidance.guidance_scal": 3},
    "guidance.guidance_scale = 500 is not allowed: input should be less than or equal to 200": {
        "guidance.guidance_scale": 500
    },
    "scene.densify.refine_evry is not an option (did you mean scene.densify.refine_every?)": {
        "scene.densify.refine_evry": 3
    },
    "scene.background.colr is not an option (did you mean scene.background.color?)": {"scene.background.colr": 3},
    "scene.background.color.1 = 2": {"scene.background.color": [0, 2, 0]},
    "prior.name = 'analitic' is unknown (did you mean analytic?)": {"prior": "analitic"},
    "prior = 5 is not allowed": {"prior": 5},
    "timesteps.t_max.end is missing": {"timesteps": {"name": "annealed", "t_max": 1}, "timesteps.t_max": {"start": 1}},
    "loss_weights.translucency.ende is not an option": {"loss_weights.translucency": {"start": 1, "end": 2, "ende": 3}},
    "loss_weights.translucency = 'abc' is not allowed: input should be a valid number": {
        "loss_weights.translucency": "abc"
    },
    "cameras.elevation_deg = [3, 1] is not allowed: the first number": {"cameras.elevation_deg": [3, 1]},
    "cameras.elevation_deg = [3, 99] is not allowed: both numbers must be in [-89, 89]": {
        "cameras.elevation_deg": [3, 99]
    },
    "optim.lr_scale.begin_at = 0.8 is not allowed: it must not be above end_at = 0.2": {
        "optim.lr_scale": {"start": 1, "end": 0, "begin_at": 0.8, "end_at": 0.2}
    },
    "guidance.negative_scale.begin_at = 0.9 is not allowed: it must not be above end_at = 0.5": {
        "guidance": "csd",
        "guidance.negative_scale.begin_at": 0.9,
    },
    "steps = nan is not allowed": {"steps": "NaN"},
    "steps = 3.5 is not allowed: input should be a valid integer": {"steps": 3.5},
    "seed = -1 is not allowed": {"seed": -1},
    "device = 'tpu' is not allowed: known: auto, cpu, cuda, cuda:N": {"device": "tpu"},
    "export.resolution = 4 is not allowed": {"export.resolution": 4},
    "export.level = 5 does not go with the scene mesh, which has a surface of its own": {
        "scene": "mesh",
        "export.level": 5,
    },
    "export.resolution = 64 does not go with the scene mesh, which has a surface of its own": {
        "export.resolution": 64,
        "stages": [{"begin_at": 0.5, "options": {"scene": "mesh"}}],
    },
}


@pytest.mark.parametrize("expected", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_field_and_what_is_allowed(expected: str) -> None:
    overrides = MISTAKES[expected]
    if "missing" not in expected or overrides:
        overrides = {"prompt": "a mug", **overrides}
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=overrides)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert caught.value.exit_code == 2


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean draft"):
        load_config(preset="draf")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"prompt": "a mug"', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[1]", "holds a list"),
        (b"[" * 100_000, "not valid JSON"),
        (b" " * (1 << 20) + b"{}", "bytes"),
    ],
)
def test_an_unreadable_file_is_named(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=why) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.json: No such file"):
        load_config(tmp_path / "no.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([*RunConfig.model_fields, "name", "scene.densify", "timesteps.t_max", "x", ""])


@settings(max_examples=10_000 if FULL else 300, deadline=None, derandomize=True)
@given(st.dictionaries(KEYS, JSON, max_size=4))
def test_anything_at_all_is_a_config_or_a_config_error(overrides: dict) -> None:
    for read in (lambda: load_config(overrides=overrides), lambda: RunConfig.from_dict(overrides)):
        try:
            message = repr(read())
        except ConfigError as error:
            message = str(error)
        assert "\n" not in message


MULTIVIEW = {"name": "multiview", "model": "org/model"}


class _Paired(SDS):
    name: Literal["paired"] = "paired"
    default_overrides: ClassVar[Mapping[str, str]] = {"noise": "fixed", "timesteps": "uniform"}


@pytest.fixture
def paired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GUIDANCE, "paired", _Paired)


@pytest.mark.usefixtures("paired")
def test_a_guidance_brings_its_companions_where_nothing_else_is_said() -> None:
    config = load_config(overrides={"prompt": "a red ball", "guidance": "paired", "timesteps.t_min": "0.1"})
    assert (config.noise.name, config.timesteps.name, config.timesteps.t_min) == ("fixed", "uniform", 0.1)
    config = load_config(overrides={"prompt": "a red ball", "guidance": "paired", "noise": "fresh"})
    assert (config.noise.name, config.timesteps.name) == ("fresh", "uniform")
    assert RunConfig.from_dict({"prompt": "a red ball", "guidance": "paired"}).noise.name == "fixed"
    assert RunConfig.from_dict({"prompt": "a red ball", "guidance": "paired", "noise": "fresh"}).noise.name == "fresh"
    assert load_config(overrides={"prompt": "a red ball"}).noise.name == "fresh"


def test_a_prior_brings_its_times_and_the_guidance_has_the_last_word() -> None:
    assert (config().timesteps.name, config().timesteps.t_min) == ("uniform", 0.5)
    assert RunConfig.from_dict({"prompt": "a red mug"}).timesteps == config().timesteps
    assert config(prior="analytic").timesteps.name == "annealed"
    assert config(guidance="cfd").timesteps.name == "descending"
    assert config(**{"timesteps.t_min": "0.1"}).timesteps == config().timesteps.model_copy(update={"t_min": 0.1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": "cfd", "timesteps": "uniform"}, "timesteps.name = 'uniform' does not go with cfd"),
        ({"guidance": "sdi", "noise": "fixed"}, "noise.name = 'fixed' does not go with sdi"),
        ({"guidance": "csd", "view_prompting.mode": "perp_neg"}, "no classifier-free guidance"),
        ({"view_prompting.mode": "perp_neg"}, "the prior embedded, which reads no words for sides"),
        ({"guidance": "vsd", "guidance.divergence": "forward_kl"}, "'forward_kl' does not go with the prior embedded"),
        ({"particles": 3}, "views = 4 does not go with particles = 3"),
        ({"particles": 2, "reference_image.path": "mug.png"}, "particles = 2 does not go with reference_image"),
        ({"prior": MULTIVIEW, "cameras.views": 6}, "cameras.views = 6 does not go with the prior multiview"),
        ({"prior": MULTIVIEW, "cameras.orthogonal_views": False}, "cameras.orthogonal_views = False does not go"),
        ({"checkpoint_every": 100, "milestone_every": 250}, "milestone_every = 250 does not go with checkpoint_every"),
        ({"loss_weights.sparsty": 1}, "loss_weights.sparsty is not a loss of the scene gaussians"),
        ({"scene": "image", "loss_weights.sparsity": 1}, "loss_weights.sparsity is not a loss of the scene image"),
    ],
)
def test_parts_that_make_no_sense_together_are_refused_with_the_reason(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config(**options)
    assert caught.value.hint
    assert option(config(**{"guidance": options.get("guidance", "sds")}), caught.value.field) is not None
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "options",
    [
        {"prior": "./models/sd", "view_prompting.mode": "perp_neg"},
        {"prior": "analytic", "guidance": "vsd", "guidance.divergence": "jensen_shannon"},
        {"guidance": "cfd", "timesteps": "hifa", "noise": "fresh"},
        {"particles": 4, "guidance": "cfd"},
    ],
)
def test_parts_that_go_together_are_not_refused(options: dict[str, object]) -> None:
    assert config(**options)
