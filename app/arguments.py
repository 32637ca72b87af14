"""What people write on the command line about options."""

from pathlib import Path

import typer


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
