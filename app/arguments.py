"""What people write on the command line: switches, KEY=VALUE, lists of names, options that exclude each other."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typer import BadParameter

SWITCHES = {"--offline": "HF_HUB_OFFLINE", "--allow-pickle": "SDS3D_ALLOW_PICKLE", "--debug": "SDS3D_DEBUG"}

TEXTS = {"prompt", "negative_prompt"}
RESULTS = {".glb", ".gltf", ".obj", ".ply", ".stl", ".usdz", ".splat", ".mp4", ".png"}  # endings of what a run makes
OTHERS = {  # of other programs
    *(".fbx", ".blend", ".dae", ".3mf", ".usd", ".usda", ".usdc"),
    *(".spz", ".ksplat", ".webm", ".gif", ".jpg", ".jpeg"),
}


def take_switches(arguments: list[str]) -> list[str]:
    """The arguments without the switches that every command understands, wherever on the line they stand.

    The switches become environment variables, so that worker processes follow them too.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for switch in set(arguments[:end]) & set(SWITCHES):
        os.environ[SWITCHES[switch]] = "1"
    return [word for place, word in enumerate(arguments) if place >= end or word not in SWITCHES]


def prior_option(choice: str | None) -> str | dict[str, str] | None:
    """What --prior means: a folder or OWNER/NAME is a model, whose family gives `prior.name`; else a prior's name."""
    if choice is None:
        return None
    from sds3d.priors import PRIORS
    from sds3d.priors.hub.locate import prior_name_of

    if choice in PRIORS or not ("/" in choice or Path(choice).exists()):
        return choice
    return {"name": prior_name_of(choice), "model": choice}


def out_of(out: Path | None) -> tuple[Path | None, Path | None]:
    """What --out means: (a run folder, None), or (None, the file that the run's result is wanted as).

    An ending that is none of a result is part of a folder's name, as in v1.2; those of other programs are refused.
    """
    ending = "" if out is None or out.is_dir() else out.suffix.lower()
    if ending in OTHERS:
        raise BadParameter(f"--out {out}: sds3d writes no {ending}, but {', '.join(sorted(RESULTS))}")
    return (None, out) if ending in RESULTS else (out, None)


def folder_of(out: Path | None) -> Path | None:
    """What --out means where there are many results."""
    folder, file = (None, out) if out is not None and out.suffix in (".html", ".json") else out_of(out)
    if file is not None and not file.is_dir():
        raise BadParameter(f"--out {file} is a file's name, and here are many results: name a folder")
    return folder or out


def split_names(text: str) -> list[str]:
    """The names in "sds, vsd,sds", each once."""
    return list(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))


def parse_settings(assignments: Sequence[str] | None) -> dict[str, str]:
    """KEY=VALUE texts as overrides for load_config, which reads the values."""
    settings: dict[str, str] = {}
    for assignment in assignments or []:
        key, equals, value = assignment.partition("=")
        if not (key and equals):
            raise BadParameter(f"{assignment!r} is not KEY=VALUE; put quotes around the prompt")
        if key in settings:
            raise BadParameter(f"{key} is set twice, to {settings[key]} and to {value}")
        settings[key] = value
    return settings


def as_typed(text: str) -> str:
    """A text of the command line, which is UTF-8 also where the locale has no letters for it."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return text


def overrides_of(options: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, Any]:
    """The options that were given and the settings together; an error where both set the same key."""
    given = {key: value for key, value in options.items() if value is not None}
    given |= {key: as_typed(given[key]) for key in TEXTS & given.keys()}
    for key, value in given.items():
        inner = value if isinstance(value, dict) else {}
        for same in [key, *(f"{key}.{name}" for name in inner if name != "name")]:  # the name is only a guess
            if same in settings:
                raise BadParameter(f"{same} is set by an option of its own and by {same}={settings[same]}")
    return {**given, **settings}


def refuse_together(option: str, is_given: bool, others: Mapping[str, Any]) -> None:
    """An error where `option` would silently ignore one of the others that are given."""
    for name, value in others.items():
        if is_given and value:
            raise BadParameter(f"{option} and {name} do not go together; leave one out")


def require(option: str, is_given: bool, others: Mapping[str, Any]) -> None:
    """An error where one of the others is given, which does nothing without `option`."""
    for name, value in others.items():
        if value and not is_given:
            raise BadParameter(f"{name} goes with {option} only")
