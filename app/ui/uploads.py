"""Files that clients send, for jobs that name them: kept by what is in them, below the outputs.

A job keeps copies of its own from the moment at which it is added.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from sds3d.atomic import writing
from sds3d.errors import ConfigError

FOLDER = ".uploads"  # below the outputs; no run, as its name begins with a dot
SUFFIXES = {  # what the product's readers take
    *(".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp"),
    *(".glb", ".gltf", ".obj", ".ply", ".stl", ".safetensors"),
}
LARGEST = 256 << 20  # bytes of a file
KEPT = 4 << 30  # bytes of all; the oldest make room
REFERENCE = re.compile(r"upload:([0-9a-f]{32}\.[a-z]{3,11})")


class Uploads:
    """The files of one outputs folder. What a client calls a file decides no more than its suffix."""

    def __init__(self, outputs: Path) -> None:
        self.folder = outputs / FOLDER

    async def keep(self, name: str, chunks: AsyncIterator[bytes]) -> tuple[str, int]:
        """(what an option says for the file, its bytes); the same bytes again are the same file.

        ConfigError for a kind of file that nothing here reads, an empty one, and one larger than LARGEST.
        """
        suffix = Path(name).suffix.lower()
        if suffix not in SUFFIXES:
            raise ConfigError(
                f"name = {name[:80]!r} is of no kind that is read here", ", ".join(sorted(SUFFIXES)), "name"
            )
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(prefix=".", dir=self.folder)
        try:
            digest, size = hashlib.sha256(), 0
            with os.fdopen(handle, "wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > LARGEST:
                        raise ConfigError(f"{name[:80]} is larger than {LARGEST >> 20} MiB", "make it smaller")
                    digest.update(chunk)
                    with writing(self.folder):
                        file.write(chunk)
            if size == 0:
                raise ConfigError(f"{name[:80]} is empty", "send the file as the request's body")
            self._make_room(size)
            kept = f"{digest.hexdigest()[:32]}{suffix}"
            with writing(self.folder):
                os.replace(draft, self.folder / kept)
        finally:
            Path(draft).unlink(missing_ok=True)
        return f"upload:{kept}", size

    def path(self, reference: str) -> Path:
        """Where the file is; ConfigError where it is none, or no longer there."""
        found = REFERENCE.fullmatch(reference)
        path = self.folder / found[1] if found else None
        if path is None or not path.is_file():
            raise ConfigError(f"{reference[:80]!r} is no file that was sent here", "send it to /api/v1/files first")
        return path

    def filled_in(self, value: Any) -> Any:
        """An option's value, or options, with paths for all references in it."""
        if isinstance(value, Mapping):
            return {key: self.filled_in(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.filled_in(inner) for inner in value]
        return str(self.path(value)) if isinstance(value, str) and value.startswith("upload:") else value

    def _make_room(self, size: int) -> None:
        files = sorted(self.folder.glob("[!.]*"), key=lambda path: path.stat().st_mtime)
        total = size + sum(path.stat().st_size for path in files)
        for path in files:
            if total > KEPT:
                total -= path.stat().st_size
                path.unlink(missing_ok=True)
