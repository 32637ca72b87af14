"""How a file was made and how large it is. Reads headers only, so that any file is safe to open.

Formats without a better place for metadata have it in a comment, as one line of JSON.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sds3d.errors import ConfigError
from sds3d.export.glb import JSON_CHUNK, MAGIC
from sds3d.export.usd import read_usd_metadata

MARK = "sds3d "  # before the JSON, in comments and headers
MAX_JSON = 1 << 24  # bytes
MAX_HEADER = 1 << 16  # bytes of a text header
STL_START, STL_FACE, SPLAT_ROW = 84, 50, 32  # bytes
KNOWN = (".glb", ".gltf", ".obj", ".ply", ".stl", ".usdz", ".splat")


@dataclass(frozen=True)
class FileInfo:
    """`made` is the metadata that sds3d stored; None if the file is of another program, or its format has no room."""

    file_format: str
    made: Mapping[str, Any] | None
    counts: Mapping[str, int] = field(default_factory=dict)  # vertices, faces, splats; if the header has them


def comment(metadata: Mapping[str, Any]) -> str:
    """One line of ASCII, whatever the prompt contains."""
    return MARK + json.dumps(dict(metadata), separators=(",", ":"))


def read_info(path: Path) -> FileInfo:
    """Information on a mesh or splat file; ConfigError if it is anything else, or damaged."""
    kind = path.suffix.lower()
    if kind not in KNOWN:
        raise ConfigError(f"{path} is of no kind that sds3d writes", hint="known: " + ", ".join(KNOWN))
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(MAX_JSON if kind in (".glb", ".gltf") else MAX_HEADER)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    try:
        if kind in (".glb", ".gltf"):
            return _gltf(head, kind)
        if kind == ".ply":
            return _ply(head)
        if kind == ".stl":
            return _stl(head, size)
        if kind == ".obj":
            return FileInfo("obj", _first_comment(head.decode("ascii", errors="replace").splitlines()[:1], "# "))
        if kind == ".splat":
            if size % SPLAT_ROW:
                raise ValueError(f"its length is no multiple of {SPLAT_ROW} bytes")
            return FileInfo("splat", None, {"splats": size // SPLAT_ROW})
        return FileInfo("usdz", read_usd_metadata(path))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise ConfigError(f"{path} is damaged, or no {kind[1:]} file: {error}") from error


def _gltf(head: bytes, kind: str) -> FileInfo:
    text = head
    if kind == ".glb":
        magic, _, _, length, chunk = struct.unpack("<IIIII", head[:20])
        if magic != MAGIC or chunk != JSON_CHUNK:
            raise ValueError("it does not begin as one")
        text = head[20 : 20 + length]
    tree = json.loads(text)
    (primitive,) = tree["meshes"][0]["primitives"]
    counts = {
        "vertices": int(tree["accessors"][primitive["attributes"]["POSITION"]]["count"]),
        "faces": int(tree["accessors"][primitive["indices"]]["count"]) // 3,
    }
    ours = tree["asset"].get("generator") == "sds3d"
    return FileInfo(kind[1:], dict(tree["asset"].get("extras", {})) if ours else None, counts)


def _ply(head: bytes) -> FileInfo:
    header, end, _ = head.partition(b"end_header\n")
    lines = header.decode("ascii", errors="replace").split("\n")
    if not end or lines[0] != "ply":
        raise ValueError("it has no PLY header")
    elements = {words[1]: int(words[2]) for words in map(str.split, lines) if words[:1] == ["element"]}
    if "face" in elements:
        counts = {"vertices": elements["vertex"], "faces": elements["face"]}
    else:
        counts = {"splats" if "property float rot_0" in lines else "points": elements["vertex"]}
    return FileInfo("ply", _first_comment(lines, "comment "), counts)


def _stl(head: bytes, size: int) -> FileInfo:
    (faces,) = struct.unpack("<I", head[STL_START - 4 : STL_START])
    if size != STL_START + STL_FACE * faces:
        raise ValueError("its length is not what its header promises")
    text = head[: STL_START - 4].decode("ascii", errors="replace").rstrip()
    made = _first_comment([text], "")
    if made is None and text.startswith(MARK):  # cut off at the header's end
        made = {"header": text.removeprefix(MARK)}
    return FileInfo("stl", made, {"faces": faces})


def _first_comment(lines: list[str], prefix: str) -> dict[str, Any] | None:
    """The metadata of the first comment that is ours; None without, or where it is damaged."""
    text = next((line for line in lines if line.startswith(prefix + MARK)), None)
    try:
        metadata = None if text is None else json.loads(text.removeprefix(prefix + MARK))
    except (ValueError, RecursionError):
        return None
    return metadata if isinstance(metadata, dict) else None
