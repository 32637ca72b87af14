"""Where a run goes: a name from its prompt, and a folder that nobody else has."""

import hashlib
import itertools
import re
import unicodedata
from pathlib import Path

from sds3d.atomic import writing
from sds3d.config.run_config import RunConfig

SLUG_LENGTH = 48


def run_name(config: RunConfig) -> str:
    """`<slug>-<seed>`: lower-case ASCII letters, digits and hyphens only, so never a path or an option."""
    plain = unicodedata.normalize("NFKD", config.prompt).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:SLUG_LENGTH].rstrip("-")
    slug = slug or "prompt-" + hashlib.sha256(config.prompt.encode()).hexdigest()[:8]
    return f"{slug}-{config.seed}"


def claim_folder(wanted: Path) -> Path:
    """Make the folder, or the first of wanted-2, wanted-3, ... that is not in use."""
    for number in itertools.count(1):
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        with writing(path):
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:
                if path.is_dir() and not any(path.iterdir()):
                    return path
    raise AssertionError("unreachable: the numbers do not end")
