"""Options that a person changes while a run is under way, or where a new one begins from an old one."""

from collections.abc import Mapping, Sequence
from typing import Any

from sds3d.config.run_config import TEXTS, RunConfig, parsed
from sds3d.errors import ConfigError

# What may change while a run is under way: nothing that the run has state of its own for.
LIVE = ("prompt", "negative_prompt", "guidance.guidance_scale")


def option(config: RunConfig, key: str) -> Any:
    """The value of a dotted key; None where this config has no such option."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part, None)
    return value


def changed(config: RunConfig, changes: Mapping[str, Any], allowed: Sequence[str] = LIVE) -> RunConfig:
    """The config with some options changed, by dotted keys; ConfigError for others than `allowed`, or what is wrong."""
    data = config.to_dict()
    for key, value in changes.items():
        if key not in allowed:
            raise ConfigError(f"{key} cannot be changed here", hint="what can: " + ", ".join(allowed))
        *parts, last = key.split(".")
        place = data
        for part in parts:
            place = place[part]
        if last not in place:
            raise ConfigError(f"{key} is no option of this run")
        place[last] = value if key in TEXTS else parsed(value)
    return RunConfig.from_dict(data)
