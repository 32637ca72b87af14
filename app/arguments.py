"""What people write on the command line about options."""

from pathlib import Path

import typer


def part_of_prior(choice: str | None) -> str | dict[str, str] | None:
    """What --prior means: a path or an id with a slash is a model for diffusers, anything else a prior's name."""
    if choice and ("/" in choice or Path(choice).is_dir()):
        return {"name": "diffusers", "model": choice}
    return choice


def parse_settings(assignments: list[str]) -> dict[str, str]:
    """KEY=VALUE texts as overrides for load_config, which reads the values."""
    pairs = [assignment.partition("=") for assignment in assignments]
    for key, equals, value in pairs:
        if not (key and equals):
            raise typer.BadParameter(f"{key + equals + value!r} is not KEY=VALUE; put quotes around the prompt")
    return {key: value for key, _, value in pairs}
