"""The options of a run as controls, made from the very models that the command line reads: nothing is listed twice."""

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from sds3d.config import PARTS, RunConfig, load_config
from sds3d.errors import ConfigError
from sds3d.options import Options

GROUPS = ("guidance", "scene", "timesteps", "noise", "cameras", "view_prompting", "optim", "export")
OWN = "run"  # the run's own options, such as its steps
HIDDEN = {"name", "prompt", "negative_prompt", "seed", "preview_seconds"}  # have a control of their own, or none


@dataclass(frozen=True)
class Control:
    """One option that a control can show."""

    key: str  # dotted, as --set takes it
    label: str
    kind: Literal["number", "integer", "switch", "choice"]
    value: Any
    info: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


def controls_of(group: str, chosen: str | None = None) -> list[Control]:
    """The options of a part (as it is chosen by name), of a group, or of the run itself, that are plain values."""
    default = RunConfig(prompt="-")
    if group == OWN:
        return _controls(RunConfig, default, "")
    part: Options = getattr(default, group)
    kind = PARTS[group][chosen] if group in PARTS and chosen is not None else type(part)
    return _controls(kind, part if type(part) is kind else kind.model_construct(), f"{group}.")


def _controls(kind: type[Options], default: Options, prefix: str) -> list[Control]:
    found = []
    for name, field in kind.model_fields.items():
        if name in HIDDEN or field.is_required():
            continue
        control = _control(f"{prefix}{name}", name, field, getattr(default, name))
        if control is not None:
            found.append(control)
    return found


def _control(key: str, name: str, field: FieldInfo, value: Any) -> Control | None:
    """None for what needs more than one plain value: such options are said as KEY=VALUE."""
    annotation = _without_none(field.annotation)
    low, high = _bound(field, ("ge", "gt")), _bound(field, ("le", "lt"))
    label, info = name.replace("_", " "), _info(field, low, high)
    if get_origin(annotation) is Literal:
        return Control(key, label, "choice", value, info, choices=tuple(map(str, get_args(annotation))))
    if annotation is bool:
        return Control(key, label, "switch", value, info)
    if annotation is int and (value is None or isinstance(value, int)):
        return Control(key, label, "integer", value, info, low, high)
    if annotation is float and (value is None or isinstance(value, int | float)):
        return Control(key, label, "number", value, info, low, high)
    return None


def _without_none(annotation: Any) -> Any:
    """int of `int | None`; None means that the option is left to sds3d."""
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        annotation = rest[0] if len(rest) == 1 else annotation
    while hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    return annotation


def _bound(field: FieldInfo, sides: tuple[str, str]) -> float | None:
    return next((float(getattr(m, s)) for m in field.metadata for s in sides if getattr(m, s, None) is not None), None)


def _info(field: FieldInfo, low: float | None, high: float | None) -> str:
    limits = {(True, True): f"{low:g} to {high:g}" if low is not None and high is not None else "",
              (True, False): f"from {low:g}" if low is not None else "",
              (False, True): f"up to {high:g}" if high is not None else "", (False, False): ""}  # fmt: skip
    return ". ".join(part for part in (field.description or "", limits[low is not None, high is not None]) if part)


def component(control: Control) -> Any:
    """The control as Gradio's."""
    import gradio as gr

    common: dict[str, Any] = {
        "label": control.label,
        "info": control.info or None,
        "elem_id": control.key.replace(".", "-"),
        "interactive": True,  # made while the page is shown, they would be for looking only
    }
    makers: Mapping[str, Callable[[], Any]] = {
        "switch": lambda: gr.Checkbox(value=control.value, **common),
        "choice": lambda: gr.Dropdown(list(control.choices), value=control.value, **common),
        "integer": lambda: gr.Number(value=control.value, **common),  # what is wrong is said by the config, by name
        "number": lambda: gr.Number(value=control.value, **common),
    }
    return makers[control.kind]()


def examples_of(prior: object) -> list[list[str]]:
    """Prompts that suit a prior by its name; a model's folder or id is one of diffusers."""
    kind = PARTS["prior"].get(str(prior), PARTS["prior"]["diffusers"])
    return [[prompt] for prompt in kind.examples]  # type: ignore[attr-defined]


def config_of(fields: Mapping[str, object], more: object) -> RunConfig:
    """The run that the page describes; ConfigError names the first thing that is wrong with it.

    `fields` are dotted options; those that are None or empty are left to sds3d. `more` has KEY=VALUE lines.
    """
    said = {key: value for key, value in fields.items() if value is not None and value != ""}
    preset = said.pop("preset", None)
    if preset is not None and not isinstance(preset, str):
        raise ConfigError(f"preset = {preset!r} is not a name", field="preset")
    if not isinstance(more, str | None):
        raise ConfigError("further options are not text", field="more")
    for line in (more or "").splitlines():
        key, equals, value = line.partition("=")
        if line.strip() and not (key.strip() and equals):
            raise ConfigError(f"further options: {line.strip()[:60]!r} is not KEY=VALUE", field="more")
        if line.strip():
            said[key.strip()] = value.strip()
    if "prompt" not in said:
        raise ConfigError("prompt is empty", "say what to make", "prompt")
    return load_config(preset=preset, overrides=said)
