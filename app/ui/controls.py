"""The options of a run as controls, made from the very models that the command line reads: nothing is listed twice."""

import html
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from sds3d.config import PARTS, RunConfig, load_config, local_files
from sds3d.errors import ConfigError
from sds3d.options import Options

GROUPS = ("guidance", "scene", "timesteps", "noise", "cameras", "view_prompting", "optim", "export")
OWN = "run"  # the run's own options, such as its steps
HIDDEN = {"name", "prompt", "negative_prompt", "seed"}  # have a control of their own, or none
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Control:
    """One option that a control can show."""

    key: str  # dotted, as --set takes it
    label: str
    kind: Literal["number", "switch", "choice"]
    value: Any  # what the run would have; None where the option is not set
    info: str
    choices: tuple[str, ...] = ()


def controls_of(group: str, config: RunConfig) -> list[Control]:
    """The options of a group, or of the run itself, that are plain values, as the config has them."""
    options: Options = config if group == OWN else getattr(config, group)
    controls = []
    for name, field in type(options).model_fields.items():
        if name not in HIDDEN and not field.is_required():
            key = name if group == OWN else f"{group}.{name}"
            control = _control(key, name, field, getattr(options, name))
            controls += [control] if control is not None else []
    return controls


def _control(key: str, name: str, field: FieldInfo, value: Any) -> Control | None:
    """None for what needs more than one plain value: such options are given as KEY=VALUE."""
    annotation = _without_none(field.annotation)
    label, info = name.replace("_", " "), _info(field)
    if get_origin(annotation) is Literal:
        return Control(key, label, "choice", value, info, tuple(map(str, get_args(annotation))))
    if annotation is bool:
        return Control(key, label, "switch", value, info)
    if annotation in (int, float) and (value is None or isinstance(value, int | float)):
        return Control(key, label, "number", value, info)
    return None


def _without_none(annotation: Any) -> Any:
    """int of `int | None`; None means that the option is not set."""
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        annotation = rest[0] if len(rest) == 1 else annotation
    while hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    return annotation


def _info(field: FieldInfo) -> str:
    low, high = _bound(field, ("ge", "gt")), _bound(field, ("le", "lt"))
    limits = ""
    if low is not None:
        limits = f"from {low:g}" if high is None else f"{low:g} to {high:g}"
    elif high is not None:
        limits = f"up to {high:g}"
    return ". ".join(part for part in (field.description or "", limits) if part)


def _bound(field: FieldInfo, sides: tuple[str, str]) -> float | None:
    return next((float(getattr(m, s)) for m in field.metadata for s in sides if getattr(m, s, None) is not None), None)


def controls_html(fields: Mapping[str, object], more: object) -> str:
    """A control for each plain option of the run that the page describes, or why there can be no such run.

    `data-default` is the value that the run has without the control. page.js fills the controls in, and sends only
    those that a person has changed.
    """
    chosen = {"prompt": "-", **{key: value for key, value in fields.items() if value}}
    try:
        try:
            config = config_of(chosen, more)
        except ConfigError:  # a mistake in the further options is told at Generate, beside the control that it is about
            config = config_of(chosen, "")
    except ConfigError as error:
        return f'<p class="none">{html.escape(str(error))}</p>'
    sections = []
    for group in (OWN, *GROUPS):
        rows = "".join(_row(control) for control in controls_of(group, config))
        name = group.replace("_", " ")
        sections += [f"<details{' open' if group == OWN else ''}><summary>{name}</summary>{rows}</details>"] * bool(
            rows
        )
    return "".join(sections)


def _row(control: Control) -> str:
    default = _shown(control.value)
    attributes = f'data-option="{control.key}" data-default="{html.escape(default)}"'
    if control.kind == "switch":
        field = f'<input type="checkbox" {attributes}>'
    elif control.kind == "choice":
        names = dict.fromkeys([*([""] if default == "" else []), *control.choices])
        field = f"<select {attributes}>{''.join(f'<option>{html.escape(name)}</option>' for name in names)}</select>"
    else:
        field = f'<input type="text" inputmode="decimal" maxlength="40" placeholder="not set" {attributes}>'
    about = f"<small>{html.escape(control.info)}</small>" if control.info else ""
    return (
        f'<label class="option" id="{control.key.replace(".", "-")}"><span>{control.label}</span>{field}{about}</label>'
    )


def _shown(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def examples_of(prior: object) -> list[list[str]]:
    """Prompts that suit a prior by its name; a model's folder or id is one of diffusers."""
    kind = PARTS["prior"].get(str(prior), PARTS["prior"]["diffusers"])
    return [[prompt] for prompt in kind.examples]  # type: ignore[attr-defined]


def config_of(fields: Mapping[str, object], more: object) -> RunConfig:
    """The run that the page describes; ConfigError names the first thing that is wrong with it.

    `fields` are dotted options; those that are None or empty keep their defaults. `more` has KEY=VALUE lines.
    """
    options = {key: value for key, value in fields.items() if value is not None and value != ""}
    preset = options.pop("preset", None)
    if preset is not None and not isinstance(preset, str):
        raise ConfigError(f"preset = {preset!r} is not a name", field="preset")
    if not isinstance(more, str | None):
        raise ConfigError("further options are not text", field="more")
    for line in (more or "").splitlines():
        key, equals, value = line.partition("=")
        if line.strip() and not (key.strip() and equals):
            raise ConfigError(f"further options: {line.strip()[:60]!r} is not KEY=VALUE", field="more")
        if line.strip():
            options[key.strip()] = value.strip()
    if "prompt" not in options:
        raise ConfigError("prompt is empty", "say what to make", "prompt")
    return load_config(preset=preset, overrides=options)


def check_files(config: RunConfig, allowed: Path | None) -> None:
    """ConfigError, naming the option, if the run would read a file of this machine that is not below `allowed`.

    The id of a model on the hub is no file, unless a folder of that name lies where the server was started.
    """
    for key, value in local_files(config).items():
        for name in [value] if isinstance(value, str) else value:
            is_id = key == "prior.model" and HUB_ID.fullmatch(name) and not Path(name).exists()
            below = allowed is not None and Path(name).resolve().is_relative_to(allowed.resolve())
            if not is_id and not below:
                where = (
                    "sds3d ui --files DIR allows those below a folder" if allowed is None else "use one below --files"
                )
                raise ConfigError(
                    f"{key} = {name[:80]!r} is a file of the server, which visitors may not name", where, key
                )
