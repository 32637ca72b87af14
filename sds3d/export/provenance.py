"""Metadata of how a file was made, as one line of JSON in a comment, for formats without a better place."""

import json
from collections.abc import Mapping
from typing import Any

MARK = "sds3d "  # before the JSON, in comments and headers


def comment(metadata: Mapping[str, Any]) -> str:
    """One line of ASCII, whatever the prompt contains."""
    return MARK + json.dumps(dict(metadata), separators=(",", ":"))


def parsed_comment(text: str) -> dict[str, Any] | None:
    """The metadata of a comment; None if it is not ours."""
    if not text.startswith(MARK):
        return None
    try:
        metadata = json.loads(text.removeprefix(MARK))
    except (ValueError, RecursionError):
        return None
    return metadata if isinstance(metadata, dict) else None
