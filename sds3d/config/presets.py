"""Named starting points. Each says only what it changes; options that are not named keep their defaults."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "draft": {"steps": 250, "preview_every": 50},
    "default": {"steps": 600},
    "fine": {"steps": 2000, "cameras": {"views": 8}, "preview_every": 250},
}
