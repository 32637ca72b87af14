"""What people write on the command line, and what is shown to them in the same words: switches, KEY=VALUE, configs."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sds3d.config import RunConfig

SWITCHES = {"--offline": "HF_HUB_OFFLINE", "--allow-pickle": "SDS3D_ALLOW_PICKLE", "--debug": "SDS3D_DEBUG"}


def take_switches(arguments: list[str]) -> list[str]:
    """Sets the switches that every command understands, wherever they are on the line, and returns the other words.

    They are environment variables, so that worker processes see them too.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for switch in set(arguments[:end]) & set(SWITCHES):
        os.environ[SWITCHES[switch]] = "1"
    return [word for place, word in enumerate(arguments) if place >= end or word not in SWITCHES]


def part_of_prior(choice: str | None) -> str | dict[str, str] | None:
    """What --prior means: a folder or OWNER/NAME is a model, whose family gives `prior.name`; else a prior's name."""
    if choice is None:
        return None
    from sds3d.priors import PRIORS
    from sds3d.priors.hub.config import config_for

    if choice in PRIORS or not ("/" in choice or Path(choice).is_dir()):
        return choice
    return {"name": config_for(choice).model_fields["name"].default, "model": choice}


def parse_settings(assignments: list[str]) -> dict[str, str]:
    """KEY=VALUE texts as overrides for load_config, which reads the values."""
    pairs = [assignment.partition("=") for assignment in assignments]
    for key, equals, value in pairs:
        if not (key and equals):
            raise typer.BadParameter(f"{key + equals + value!r} is not KEY=VALUE; put quotes around the prompt")
    return {key: value for key, _, value in pairs}


def config_text(config: "RunConfig") -> str:
    """One line for each option, `key = value  # source`, with values as JSON; --set takes them so, but for prompts."""
    from sds3d.config.layers import flatten

    sources = config.sources
    rows = {key: f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in flatten(config.to_dict()).items()}
    width = min(60, max(map(len, rows.values())))
    return "\n".join(f"{row:{width}}  # {sources[key]}" for key, row in rows.items())
