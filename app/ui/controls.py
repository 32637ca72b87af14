"""The options of a run as controls, made from the very models that the command line reads: nothing is listed twice."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sds3d.config import PARTS, PRESETS, RunConfig, load_config, local_files
from sds3d.errors import ConfigError
from sds3d.options import Options
from sds3d.priors import PRIORS, PriorConfig
from sds3d.text_files import numbered_lines

from . import fragments

GROUPS = ("guidance", "scene", "timesteps", "noise", "cameras", "view_prompting", "optim", "export")
STAGED = "stages"  # a choice of scene: splats, and a mesh that takes them over
OWN = "run"  # the run's own options, such as its steps
HIDDEN = {"name", "prompt", "negative_prompt", "seed"}  # have a control of their own, or none
KINDS = {"integer": "number", "number": "number", "boolean": "switch"}  # of control, by JSON schema's kinds of value
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Control:
    """One option that a control can show."""

    key: str  # dotted, as --set takes it
    kind: str  # one of KINDS, or "choice"
    value: Any  # what the run would have; None where the option is not set
    info: str
    choices: tuple[str, ...] = ()


def controls_of(group: str, config: RunConfig) -> list[Control]:
    """The options of a group, or of the run itself, that are plain values, as the config has them.

    What needs more than one plain value has no control: such options are given as KEY=VALUE.
    """
    options: Options = config if group == OWN else getattr(config, group)
    schema = _schema(type(options))
    controls = []
    for name, declared in schema["properties"].items():
        kinds = [each for each in declared.get("anyOf", ()) if each != {"type": "null"}]
        if isinstance(getattr(options, name), int | float):  # of a number or a schedule, here a number
            kinds += [each for each in declared.get("oneOf", ()) if "$ref" not in each]
        about = {**declared, **kinds[0]} if len(kinds) == 1 else declared  # as of int for `int | None`
        kind = "choice" if "enum" in about else KINDS.get(about.get("type", ""))
        if kind is not None and name not in (*HIDDEN, *schema.get("required", ())):
            key, info = name if group == OWN else f"{group}.{name}", _info(about)
            choices = tuple(map(str, about.get("enum", ())))
            controls.append(Control(key, kind, getattr(options, name), info, choices))
    return controls


@cache
def _schema(kind: type[Options]) -> dict[str, Any]:
    return kind.model_json_schema()


def _info(about: Mapping[str, Any]) -> str:
    low = about.get("minimum", about.get("exclusiveMinimum"))
    high = about.get("maximum", about.get("exclusiveMaximum"))
    limits = ""
    if low is not None:
        limits = f"from {low:g}" if high is None else f"{low:g} to {high:g}"
    elif high is not None:
        limits = f"up to {high:g}"
    return ". ".join(part for part in (about.get("description", ""), limits) if part)


def controls_html(fields: Mapping[str, Any], more: str | None) -> str:
    """A control for each plain option of the run that the page describes, or why there can be no such run.

    `data-default` is the value that the run has without the control. page.js fills the controls in, and sends only
    those that a person has changed.
    """
    chosen = {"prompt": "-", **fields}
    try:
        try:
            config = config_of(chosen, more)
        except ConfigError:  # a mistake in the further options is told at Generate, beside the control that it is about
            config = config_of(chosen, "")
    except ConfigError as error:
        return fragments.render("nothing", error)
    groups = {group.replace("_", " "): controls_of(group, config) for group in (OWN, *GROUPS)}
    return fragments.render("controls", groups)


def examples_of(prior: object) -> list[str]:
    """Prompts that suit a prior by its name."""
    return list(_prior_kind(prior).examples)


def scenes_of(prior: object) -> list[tuple[str, str]]:
    """The choices of a scene, by what is shown: first, as no scene that is named, what the prior makes by default."""
    default = "splats, then mesh" if "stages" in _prior_kind(prior).default_overrides else "splats"
    named = [(name, name) for name in sorted(PARTS["scene"])]
    return [(default, ""), ("splats, then mesh, for any prior", STAGED), *named]


def _prior_kind(prior: object) -> type[PriorConfig]:
    """By its name; a model's folder or id is one of diffusers."""
    return PRIORS.get(str(prior), PRIORS["diffusers"])


def config_of(fields: Mapping[str, Any], more: str | None) -> RunConfig:
    """The run that the page describes; ConfigError names the first thing that is wrong with it.

    `fields` are dotted options; those that are None or empty keep their defaults. `more` has KEY=VALUE lines.
    """
    options = {key: value for key, value in fields.items() if value is not None and value != ""}
    preset = options.pop("preset", None)
    if options.get("scene") == STAGED:
        del options["scene"]
        options["stages"] = PRESETS["mesh"]["stages"]
    for _, line in numbered_lines(more or ""):
        key, equals, value = line.partition("=")
        if not (key.strip() and equals):
            raise ConfigError(f"further options: {line[:60]!r} is not KEY=VALUE", field="more")
        options[key.strip()] = value.strip()
    if "prompt" not in options:
        raise ConfigError("prompt is empty", "say what to make", "prompt")
    return load_config(preset=preset, overrides=options)


def check_files(config: RunConfig, *allowed: Path | None, only: str = "") -> None:
    """ConfigError, naming the option, if the run would read a file of this machine that is not in one of `allowed`:
    folders, or files themselves; the first is that of --files, None where there is none. Of options that end in `only`.

    The id of a model on the hub is no file, unless a folder of that name lies where the server was started.
    """
    hint = "use one below --files" if allowed[0] else "sds3d ui --files DIR allows those below a folder"
    places = [place.resolve() for place in allowed if place is not None]
    for key, value in local_files(config).items():
        for name in [value] if isinstance(value, str) else value:
            is_id = key == "prior.model" and HUB_ID.fullmatch(name) and not Path(name).exists()
            is_inside = any(Path(name).resolve().is_relative_to(place) for place in places)
            if key.endswith(only) and not is_id and not is_inside:
                problem = f"{key} = {name[:80]!r} is a file of the server, which visitors may not name"
                raise ConfigError(problem, hint, key)
