"""How a file was made and how large it is. Reads headers, and lines of text files, so that any file is safe to open.

Formats without a better place for metadata have it in a comment, as one line of JSON.
"""

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sds3d.errors import ConfigError
from sds3d.export.glb import JSON_CHUNK, MAGIC
from sds3d.export.usd import read_usd_metadata
from sds3d.text_files import refuse_stand_in

MARK = "sds3d "  # before the JSON, in comments and headers
MAX_JSON = 1 << 24  # bytes
MAX_HEADER = 1 << 16  # bytes of a text header
PLY_COMMENT = 2500  # characters: web viewers look for the header's end in the first kilobytes
MAX_TEXT = 10_000  # characters of a prompt
STL_START, STL_FACE, SPLAT_ROW = 84, 50, 32  # bytes
TRIANGLES = 4  # mode of a glTF primitive; above it are strips and fans, below it points and lines
KNOWN = (".glb", ".gltf", ".obj", ".ply", ".stl", ".usdz", ".splat")

DAMAGED = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError, struct.error)


@dataclass(frozen=True)
class FileInfo:
    """`made` is the metadata that sds3d stored; None if the file is of another program, or its format has no room."""

    file_format: str
    made: Mapping[str, Any] | None
    counts: Mapping[str, int] = field(default_factory=dict)  # vertices, faces, splats; if the header has them


def comment(metadata: Mapping[str, Any], most: int | None = None) -> str:
    """One line of ASCII, whatever the prompt contains; of at most about `most` characters, if texts have to be cut."""
    values, length = dict(metadata), MAX_TEXT
    while len(text := MARK + json.dumps(values, separators=(",", ":"))) > (most or math.inf) and length > 1:
        length //= 2
        values = {k: f"{v[:length]}..." if isinstance(v, str) and len(v) > length + 3 else v for k, v in values.items()}
    return text


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
    refuse_stand_in(path, head)
    try:
        if kind in (".glb", ".gltf"):
            return _gltf(head, kind)
        if kind == ".ply":
            return _ply(head)
        if kind == ".stl":
            return _stl(path, head, size)
        if kind == ".obj":
            return _obj(path, head)
        if kind == ".splat":
            if size % SPLAT_ROW:
                raise ValueError(f"its length is no multiple of {SPLAT_ROW} bytes")
            return FileInfo("splat", None, {"splats": size // SPLAT_ROW})
        return FileInfo("usdz", read_usd_metadata(path))
    except DAMAGED as error:
        raise ConfigError(f"{path} is damaged, or no {kind[1:]} file: {error}") from error


def _gltf(head: bytes, kind: str) -> FileInfo:
    text = head
    if kind == ".glb":
        magic, _, _, length, chunk = struct.unpack("<IIIII", head[:20])
        if magic != MAGIC or chunk != JSON_CHUNK:
            raise ValueError("it does not begin as one")
        text = head[20 : 20 + length]
    tree = json.loads(text)
    vertices, faces = dict[int, int](), 0  # by accessor: parts may share one
    for primitive in (part for mesh in tree.get("meshes", []) for part in mesh["primitives"]):
        if "POSITION" not in primitive["attributes"]:  # glTF allows it: nothing to show, unless an extension knows more
            continue
        position = int(primitive["attributes"]["POSITION"])
        vertices[position] = int(tree["accessors"][position]["count"])
        corners = int(tree["accessors"][primitive.get("indices", position)]["count"])
        mode = primitive.get("mode", TRIANGLES)
        if mode == TRIANGLES:
            faces += corners // 3
        elif mode > TRIANGLES:
            faces += max(corners - 2, 0)
    counts = {"vertices": sum(vertices.values()), "faces": faces}
    ours = tree["asset"].get("generator") == "sds3d"
    return FileInfo(kind[1:], dict(tree["asset"].get("extras", {})) if ours else None, counts)


def _ply(head: bytes) -> FileInfo:
    end = re.search(rb"[\r\n]end_header[ \t]*[\r\n]", head)
    lines = head[: end.start() if end else 0].decode("ascii", errors="replace").splitlines()
    if not lines or lines[0].strip() != "ply":
        raise ValueError("it has no PLY header")
    elements = {words[1]: int(words[2]) for words in map(str.split, lines) if words[:1] == ["element"]}
    if "face" in elements:
        counts = {"vertices": elements.get("vertex", 0), "faces": elements["face"]}
    else:
        is_splats = any(line.split()[-1:] == ["rot_0"] for line in lines)  # of type float, or float32
        counts = {"splats" if is_splats else "points": elements.get("vertex", 0)}
    return FileInfo("ply", _first_comment(lines, "comment "), counts)


def _obj(path: Path, head: bytes) -> FileInfo:
    counts = dict(zip(("vertices", "faces"), _line_counts(path, "v", "f"), strict=True))
    if not any(counts.values()) and b"\0" in head:
        raise ValueError("it is no text")
    return FileInfo("obj", _first_comment(head.decode("ascii", errors="replace").splitlines()[:1], "# "), counts)


def _line_counts(path: Path, *words: str) -> list[int]:
    """How many lines, ended in any way, begin with each of these words in any case. No more than MAX_HEADER characters
    of a line are in memory at once."""
    counts, begins = dict.fromkeys(words, 0), True
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        while piece := file.readline(MAX_HEADER):
            word = "".join(piece.split(maxsplit=1)[:1]).lower()
            if begins and word in counts:
                counts[word] += 1
            begins = piece.endswith("\n")
    return list(counts.values())


def _stl(path: Path, head: bytes, size: int) -> FileInfo:
    faces = struct.unpack("<I", head[STL_START - 4 : STL_START])[0] if size >= STL_START else -1
    if size != STL_START + STL_FACE * faces:
        # As text; a binary file may begin with that word, too.
        if head.lstrip()[:5].lower() == b"solid" and b"\0" not in head:
            return FileInfo("stl", None, {"faces": _line_counts(path, "facet")[0]})
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
