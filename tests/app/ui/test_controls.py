"""Controls come from the models of the options, show what runs use, and change nothing that is not touched."""

import html
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sds3d.config import PARTS, option, resolve
from sds3d.errors import ConfigError
from sds3d_app.ui.controls import (
    GROUPS,
    OWN,
    STAGED,
    check_files,
    config_of,
    controls_html,
    controls_of,
    examples_of,
    scenes_of,
)

CHOSEN = [(part, name) for part in ("guidance", "scene", "timesteps", "noise") for name in PARTS[part]]
MODELS = {"diffusers": "owner/model", "multiview": "owner/model", "zero123": "owner/model"}


def shown(page: str) -> dict[str, str]:
    """What controls show, by option."""
    found = re.findall(r'data-option="([^"]+)" data-default="([^"]*)"', page)
    return {key: html.unescape(value) for key, value in found}


def as_text(value: Any) -> str:
    return "" if value is None else json.dumps(value) if isinstance(value, bool) else str(value)


@pytest.mark.parametrize(("part", "name"), CHOSEN)
def test_every_plain_option_of_every_part_has_a_control(part: str, name: str) -> None:
    kind = PARTS[part][name]
    config = resolve({"prompt": "a red ball", "prior": "analytic"}).model_copy(update={part: kind()})
    controls = controls_of(part, config)
    for control in controls:
        assert control.info.startswith(kind.model_fields[control.key.partition(".")[2]].description or "")
    plain = {
        field
        for field, about in kind.model_fields.items()
        if about.annotation in (int, float, bool) and field not in ("name", "seed")
    }
    assert plain <= {control.key.partition(".")[2] for control in controls}


@pytest.mark.parametrize("prior", PARTS["prior"])
@pytest.mark.parametrize("preset", ["default", "fine"])
def test_the_page_shows_what_runs_use(prior: str, preset: str) -> None:
    """Every combination of scene, guidance, prior: the values of the controls are those of the run that begins."""
    compared, refusals = 0, list[bool]()
    for scene, guidance in itertools.product(PARTS["scene"], PARTS["guidance"]):
        fields = {"prior": prior, "guidance": guidance, "scene": scene, "preset": preset, "timesteps": "", "noise": ""}
        more = f"prior.model={MODELS[prior]}\nreference_image.path=x.png" if prior == "zero123" else (
            f"prior.model={MODELS[prior]}" if prior in MODELS else ""
        )  # fmt: skip
        page = controls_html(fields, more)
        try:
            config = config_of({"prompt": "a red ball", **fields}, more)
        except ConfigError as error:
            refusals.append(html.escape(str(error)) in page and not shown(page))
            continue
        values = shown(page)
        assert values == {key: as_text(option(config, key)) for key in values}
        assert {"steps", "cameras.views", "optim.guidance_lr"} <= values.keys()
        compared += 1
    assert all(refusals)
    assert compared >= 10, "a prior goes with most scenes and guidances"


def test_the_form_says_what_scenes_a_prior_makes_by_default() -> None:
    for prior, shown_as in (("embedded", "splats, then mesh"), ("analytic", "splats"), ("org/model", "splats")):
        choices = scenes_of(prior)
        assert choices[0] == (shown_as, "")
        assert {name for _, name in choices[1:]} == {*PARTS["scene"], STAGED}
        assert len(config_of({"prompt": "a red ball", "prior": prior, "scene": STAGED}, "").stages) == 1
        config = config_of({"prompt": "a red ball", "prior": prior, "scene": ""}, "")
        assert (len(config.stages) > 0) == ("mesh" in shown_as)
    assert config_of({"prompt": "a red ball", "prior": "embedded", "scene": "gaussians"}, "").stages == ()


def test_what_a_part_brings_along_is_shown() -> None:
    common = {"prior": "analytic", "scene": "gaussians", "preset": "default"}
    sds, cfd = (shown(controls_html({**common, "guidance": name}, "")) for name in ("sds", "cfd"))
    assert {key.partition(".")[0] for key in sds.keys() ^ cfd.keys()} >= {"noise", "timesteps"}


@pytest.mark.parametrize("name", PARTS["guidance"])
def test_every_control_takes_what_it_shows(name: str) -> None:
    """Typing the shown value into a control, or emptying it, is the same as leaving it alone."""
    fields = {"prompt": "a red ball", "prior": "analytic", "guidance": name}
    plain = config_of(fields, "")
    values = shown(controls_html(fields, ""))
    assert config_of({**values, **fields}, "") == plain
    assert config_of({**dict.fromkeys(values, ""), **fields}, "") == plain
    assert config_of({**dict.fromkeys(values, None), **fields}, "") == plain


def test_a_new_guidance_has_its_controls_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from typing import Annotated, Literal

    from pydantic import Field

    from sds3d.guidance import GUIDANCE
    from sds3d.guidance.base import Guidance

    class Plain(Guidance):
        name: Literal["plain"] = "plain"
        strength: Annotated[float, Field(gt=0, le=10, description="a factor")] = 1.0

        def step(self, query: Any, state: Any) -> Any:
            raise NotImplementedError

    monkeypatch.setitem(GUIDANCE, "plain", Plain)
    (control,) = controls_of("guidance", resolve({"prompt": "a ball", "guidance": "plain"}))
    assert (control.key, control.kind, control.value, control.info) == (
        "guidance.strength", "number", 1.0, "a factor. 0 to 10",
    )  # fmt: skip


def test_groups_without_a_choice_have_controls_too() -> None:
    config = resolve({"prompt": "a red ball"})
    assert {"steps", "particles"} <= {control.key for control in controls_of(OWN, config)}
    assert all(controls_of(group, config) for group in GROUPS if group != "noise")


def test_why_there_are_no_controls_is_said() -> None:
    assert "prior.model is missing" in controls_html({"prior": "multiview"}, "")
    assert "views" in "".join(shown(controls_html({"prior": "multiview"}, "prior.model=owner/model")))
    hostile = controls_html({"prior": '<img src=x onerror="alert(1)">'}, "")
    assert "&lt;img" in hostile
    assert "<img" not in hostile


def test_empty_fields_keep_their_defaults_and_lines_go_last() -> None:
    config = config_of(
        {"prompt": "a red ball", "prior": "analytic", "noise": "", "seed": None, "steps": 9, "preset": "draft"},
        "steps=5\n\n guidance.guidance_scale = 7 ",
    )
    assert (config.seed, config.steps, config.guidance.guidance_scale, config.preview_every) == (0, 5, 7, 50)


@pytest.mark.parametrize(("more", "field"), [("steps", "more"), ("=1", "more"), ("nothing=1", "nothing")])
def test_lines_that_hold_no_option_are_refused(more: str, field: str) -> None:
    with pytest.raises(ConfigError) as found:
        config_of({"prompt": "a red ball"}, more)
    assert found.value.field == field


def test_the_prior_in_use_knows_its_examples() -> None:
    for name in ("embedded", "analytic"):
        prompts = examples_of(name)
        assert len(prompts) >= 3
        for prompt in prompts:
            config = config_of({"prompt": prompt, "prior": name}, "")
            assert config.prior.unknown_words(prompt) == []
    assert examples_of("folder/of/a/model") == examples_of("diffusers") != []


FILES = [
    "reference_image.path=/etc/passwd",
    "reference_image.path=x.png\nreference_image.mask=../mask.png",
    "prior.weights=/srv/models",
    "prior=diffusers\nprior.model=/srv/models/sd",
    "prior=diffusers\nprior.model=../sd",
    "prior=diffusers\nprior.model=~/sd",
    "prior=diffusers\nprior.model=owner/model\nprior.lora=[\"/srv/lora.safetensors\"]",
    "prior=diffusers\nprior.model=owner/model\nprior.words=[\"word.safetensors\"]",
]  # fmt: skip


@pytest.mark.parametrize("more", FILES)
def test_files_of_the_server_are_not_for_visitors(more: str) -> None:
    config = config_of({"prompt": "a red ball"}, more)
    with pytest.raises(ConfigError, match="is a file of the server") as found:
        check_files(config, None)
    assert found.value.field in more


def test_nor_are_those_of_a_later_stage(tmp_path: Path) -> None:
    source = {"scene": {"name": "mesh", "source": {"path": str(tmp_path / "mug.glb")}}}
    config = config_of({"prompt": "a red ball"}, f"stages={json.dumps([{'begin_at': 0.5, 'options': source}])}")
    with pytest.raises(ConfigError, match="is a file of the server") as found:
        check_files(config, None)
    assert found.value.field == "stages[0].options.scene.source.path"
    check_files(config, tmp_path)


def test_files_below_the_folder_of_the_server_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "files" / "model").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "files" / "link").symlink_to(tmp_path / "secret")
    allowed = tmp_path / "files"
    check_files(config_of({"prompt": "a red ball"}, f"prior.weights={allowed / 'model'}"), allowed)
    for outside in (tmp_path / "secret", allowed / ".." / "secret", allowed / "link", tmp_path / "files-too"):
        with pytest.raises(ConfigError, match="below --files"):
            check_files(config_of({"prompt": "a red ball"}, f"prior.weights={outside}"), allowed)
    hub = config_of({"prompt": "a red ball", "prior": "files/model"}, "")
    check_files(hub, None)  # an id of the hub
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"prior\.model"):  # here it is a folder
        check_files(hub, None)
    check_files(config_of({"prompt": "a red ball"}, ""), None)
