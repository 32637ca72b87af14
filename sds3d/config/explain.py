"""One clear error for wrong options: which one, what was found, what is allowed."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from sds3d.errors import ConfigError


def explain(model: type[BaseModel], data: object, error: ValidationError, prefix: str) -> ConfigError:
    """One line for the first problem: which option, its value, what is allowed."""
    first = error.errors(include_url=False)[0]
    kind, location, value = first["type"], first["loc"], first["input"]
    if kind == "order":  # of two options, found on their model; see sds3d.options.ordered
        location, value = (*location, first["ctx"]["field"]), first["ctx"]["value"]
    *parents, last = _path_in(data, location) or [""]
    dotted = (prefix + ".".join([*parents, last])).rstrip(".")
    if kind == "extra_forbidden":
        hint = nearest(last, _fields_at(model, parents), dotted[: -len(last)])
        return ConfigError(f"{short(dotted, quote=False)} is not an option", hint, dotted)
    if kind == "missing":
        return ConfigError(f"{dotted} is missing", field=dotted)
    message = first["msg"].removeprefix("Value error, ")
    what = f"{short(dotted, quote=False) or 'config'} = {short(value)}"
    return ConfigError(f"{what} is not allowed: {message[:1].lower()}{message[1:]}", field=dotted)


def _path_in(data: Any, location: tuple[int | str, ...]) -> list[str]:
    """The error's path as keys of `data`, without the names pydantic gives to members of a union."""
    path = []
    for place, part in enumerate(location):
        is_key = isinstance(data, Mapping) and part in data
        is_index = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        if is_key or is_index:
            data = data[part]
        elif place < len(location) - 1 or isinstance(data, float | int | str):
            continue
        path.append(str(part))
    return path


def _fields_at(model: type[BaseModel], names: list[str]) -> list[str]:
    """Field names of the model at a path; of all its members where that is a union."""
    models: list[Any] = [model]
    for name in names:
        kinds = [m.model_fields[name].annotation for m in models if name in m.model_fields]
        models = [m for kind in kinds for m in (kind, *get_args(kind)) if hasattr(m, "model_fields")]
    return [field for m in models for field in m.model_fields]


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A hint: the most similar known name, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.5)
    return f"did you mean {prefix}{close[0]}?" if close else "known: " + ", ".join(names)


def short(value: object, quote: bool = True) -> str:
    """At most 60 characters, on one line."""
    text = repr(value)
    text = text if quote else text[1:-1]
    return text if len(text) <= 60 else text[:57] + "..."
