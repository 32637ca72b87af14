"""What decides a run: its options, presets, what may change on the way, and errors that name the option."""

from sds3d.config.layers import PARTS
from sds3d.config.presets import PRESETS
from sds3d.config.run_config import (
    LIVE,
    RunConfig,
    load_config,
    local_files,
    option,
    printable,
    read_json_object,
    resolve,
)

__all__ = [
    "LIVE",
    "PARTS",
    "PRESETS",
    "RunConfig",
    "load_config",
    "local_files",
    "option",
    "printable",
    "read_json_object",
    "resolve",
]
