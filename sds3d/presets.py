"""Named starting points. Each says only what it changes; options that are not named keep their defaults."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "draft": {"steps": 150, "preview_every": 50},
    "default": {"steps": 500},
    "fine": {"steps": 1500, "cameras": {"views": 8}, "preview_every": 250},
}
