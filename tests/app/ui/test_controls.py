"""Controls come from the models of the options, and what they say becomes a run."""

import pytest

from sds3d.config import PARTS
from sds3d.errors import ConfigError
from sds3d_app.ui.controls import GROUPS, OWN, config_of, controls_of, examples_of

CHOSEN = [(part, name) for part in ("guidance", "scene", "timesteps", "noise") for name in PARTS[part]]


@pytest.mark.parametrize(("part", "name"), CHOSEN)
def test_every_plain_option_of_every_part_has_a_control_with_its_default_and_bounds(part: str, name: str) -> None:
    kind = PARTS[part][name]
    for control in controls_of(part, name):
        field = control.key.partition(".")[2]
        assert control.value == kind.model_fields[field].default
        assert control.info.startswith(kind.model_fields[field].description or "")
    plain = {
        field
        for field, about in kind.model_fields.items()
        if about.annotation in (int, float, bool) and field not in ("name", "seed")
    }
    assert plain <= {control.key.partition(".")[2] for control in controls_of(part, name)}


@pytest.mark.parametrize("name", PARTS["guidance"])
def test_what_a_control_shows_is_taken_by_the_config(name: str) -> None:
    for control in controls_of("guidance", name):
        fields = {"prompt": "a red ball", "prior": "analytic", "guidance": name, control.key: control.value}
        assert config_of(fields, "").guidance.name == name


def test_a_new_guidance_has_its_controls_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from typing import Annotated, Any, Literal

    from pydantic import Field

    from sds3d.guidance import GUIDANCE
    from sds3d.guidance.base import Guidance

    class Plain(Guidance):
        name: Literal["plain"] = "plain"
        strength: Annotated[float, Field(gt=0, le=10, description="a factor")] = 1.0

        def step(self, query: Any, state: Any) -> Any:
            raise NotImplementedError

    monkeypatch.setitem(GUIDANCE, "plain", Plain)
    (control,) = controls_of("guidance", "plain")
    assert (control.key, control.kind, control.value) == ("guidance.strength", "number", 1.0)
    assert (control.low, control.high, control.info) == (0.0, 10.0, "a factor. 0 to 10")


def test_groups_without_a_choice_have_controls_too() -> None:
    assert {"steps", "particles"} <= {control.key for control in controls_of(OWN)}
    assert all(controls_of(group) for group in GROUPS if group not in ("noise",))


def test_empty_fields_are_left_to_sds3d_and_lines_go_last() -> None:
    config = config_of(
        {"prompt": "a red ball", "prior": "analytic", "noise": "", "seed": None, "steps": 9, "preset": "draft"},
        "steps=5\n\n guidance.guidance_scale = 7 ",
    )
    assert (config.seed, config.steps, config.guidance.guidance_scale, config.preview_every) == (0, 5, 7, 50)


@pytest.mark.parametrize(("more", "field"), [("steps", "more"), ("=1", "more"), ("nothing=1", "nothing")])
def test_lines_that_say_nothing_are_refused(more: str, field: str) -> None:
    with pytest.raises(ConfigError) as found:
        config_of({"prompt": "a red ball"}, more)
    assert found.value.field == field


def test_the_prior_in_use_knows_its_examples() -> None:
    for name in ("embedded", "analytic"):
        prompts = [prompt for (prompt,) in examples_of(name)]
        assert len(prompts) >= 3
        for prompt in prompts:
            config = config_of({"prompt": prompt, "prior": name}, "")
            assert config.prior.unknown_words(prompt) == []
    assert examples_of("folder/of/a/model") == examples_of("diffusers") != []
