"""How a file was made, written into it as one line of JSON where its format has no better place."""

import json
from collections.abc import Mapping
from typing import Any

MARK = "sds3d "  # before the JSON, in comments and headers


def comment(metadata: Mapping[str, Any]) -> str:
    """One line of plain ASCII whatever the prompt holds."""
    return MARK + json.dumps(dict(metadata), separators=(",", ":"))


def parsed_comment(text: str) -> dict[str, Any] | None:
    """The metadata of a comment, None where it is not ours."""
    if not text.startswith(MARK):
        return None
    try:
        found = json.loads(text.removeprefix(MARK))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
