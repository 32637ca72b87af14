"""A glTF file as it is: its JSON tree and its data. What nobody changes is written again bit for bit."""

import base64
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sds3d.errors import ConfigError
from sds3d.text_files import refuse_stand_in

MAGIC, VERSION, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
VERTEX_DATA, INDEX_DATA = 34962, 34963
MOST_BYTES, MOST_NUMBERS = 1 << 30, 1 << 26
# Required extensions that change nothing about geometry and base colours, or that are followed here.
READABLE = {"KHR_texture_transform", "KHR_mesh_quantization", "KHR_lights_punctual", "EXT_texture_webp"}
MATERIAL_EXTENSION = "KHR_materials_"


class Gltf:
    """The tree, and all buffers as one: data and images of other files are in it, with the tree's references moved."""

    def __init__(self, tree: dict[str, Any], binary: bytes) -> None:
        self.tree, self.binary = tree, bytearray(binary)

    @classmethod
    def read(cls, path: Path) -> tuple["Gltf", list[str]]:
        """A .glb or .gltf and the names of the files beside it that it consists of. ConfigError, see `sibling`."""
        data = read_bytes(path)
        text, chunk = _chunks(data) if data[:4] == struct.pack("<I", MAGIC) else (data, b"")
        tree = json.loads(text)
        required = [name for name in tree.get("extensionsRequired", []) if not _is_readable(name)]
        if required:
            raise ConfigError(
                f"{path} needs {', '.join(map(str, required))}, which sds3d does not read",
                hint="save it again without compression (Blender: glTF export; npx gltf-transform copy)",
            )
        files: list[str] = []
        binary, starts = b"", []
        for buffer in tree.get("buffers", []):
            starts.append(len(binary))
            content = _content(path, buffer["uri"], files) if "uri" in buffer else chunk
            content = content[: buffer["byteLength"]]
            if len(content) < buffer["byteLength"]:
                raise ValueError("a buffer is shorter than it says")
            binary += content + b"\0" * (-len(content) % 4)
        for view in tree.get("bufferViews", []):
            view["byteOffset"] = view.get("byteOffset", 0) + starts[view["buffer"]]
            view["buffer"] = 0
        made = cls(tree, binary)
        for image in tree.get("images", []):
            if "uri" in image:
                uri = image.pop("uri")
                picture = _content(path, uri, files)
                image["mimeType"] = "image/jpeg" if picture[:2] == b"\xff\xd8" else "image/png"
                image["bufferView"] = made.append(picture)
        return made, files

    @classmethod
    def from_glb(cls, data: bytes) -> "Gltf":
        """A whole .glb of one buffer."""
        text, chunk = _chunks(data)
        return cls(json.loads(text), chunk)

    def to_glb(self) -> bytes:
        """All of it as one binary file."""
        tree = {**self.tree, "buffers": [{"byteLength": len(self.binary)}]}
        text = json.dumps(tree, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        data = bytes(self.binary) + b"\0" * (-len(self.binary) % 4)
        body = struct.pack("<II", len(text), JSON_CHUNK) + text + struct.pack("<II", len(data), BINARY_CHUNK) + data
        return struct.pack("<III", MAGIC, VERSION, 12 + len(body)) + body

    def append(self, data: bytes, target: int | None = None) -> int:
        """Put data behind all other; the number of its view."""
        self.binary += b"\0" * (-len(self.binary) % 4)
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        self.binary += data
        return self.add("bufferViews", view | ({} if target is None else {"target": target}))

    def cut(self, view: dict[str, Any]) -> None:
        """Take out the data of a view that is not in the tree any more, unless another shares it."""
        begin = view.get("byteOffset", 0)
        end, gone = begin + view["byteLength"], view["byteLength"] // 4 * 4  # so that all others stay aligned
        starts = [(other, other.get("byteOffset", 0)) for other in self.tree["bufferViews"]]
        if any(start < end and begin < start + other["byteLength"] for other, start in starts):
            return
        del self.binary[begin : begin + gone]
        for other, start in starts:
            if start >= end:
                other["byteOffset"] = start - gone

    def add(self, kind: str, entry: dict[str, Any]) -> int:
        """One more image, material, ...; its number."""
        self.tree.setdefault(kind, []).append(entry)
        return len(self.tree[kind]) - 1

    def append_array(self, values: ndarray, like: dict[str, Any], target: int) -> int:
        """One more accessor with these [N, K] numbers, of the kind of `like`; its number."""
        size = values.dtype.itemsize * values.shape[1]
        padded = np.zeros((len(values), -(-size // 4) * 4 if target == VERTEX_DATA else size), dtype=np.uint8)
        padded[:, :size] = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), size)
        view = self.append(padded.tobytes(), target)
        if padded.shape[1] != size:
            self.tree["bufferViews"][view]["byteStride"] = padded.shape[1]
        kept: dict[str, Any] = {
            key: like[key] for key in ("componentType", "type", "normalized", "min", "max") if key in like
        }
        return self.add("accessors", {**kept, "bufferView": view, "count": len(values)})

    def array(self, number: int) -> ndarray:
        """An accessor's numbers as they are stored, [N, K]."""
        accessor = self.tree["accessors"][number]
        count, width = int(accessor["count"]), WIDTHS[accessor["type"]]
        kind = np.dtype(COMPONENTS[accessor["componentType"]])
        if not 0 <= count * width <= MOST_NUMBERS:
            raise ValueError(f"an accessor of {count} rows")
        if "bufferView" in accessor:
            values = self._strided(accessor, kind, count, width)
        else:
            values = np.zeros((count, width), dtype=kind)
        if (sparse := accessor.get("sparse")) is not None:
            rows = int(sparse["count"])
            index_kind = np.dtype(COMPONENTS[sparse["indices"]["componentType"]])
            where = self._strided(sparse["indices"], index_kind, rows, 1)[:, 0]
            values[where] = self._strided(sparse["values"], kind, rows, width)
        return values

    def numbers(self, number: int) -> Float[ndarray, "N K"]:
        """The same as what they mean: integers that stand for [0, 1] or [-1, 1] as such."""
        values, accessor = self.array(number), self.tree["accessors"][number]
        if not accessor.get("normalized"):
            return values.astype(np.float64)
        return np.maximum(values / np.iinfo(values.dtype).max, -1.0)

    def bytes_of(self, number: int) -> bytes:
        """A view's data."""
        view = self.tree["bufferViews"][number]
        return bytes(self.binary[view.get("byteOffset", 0) :][: view["byteLength"]])

    def _strided(self, place: dict[str, Any], kind: np.dtype[Any], count: int, width: int) -> ndarray:
        view = self.tree["bufferViews"][place["bufferView"]]
        begin = view.get("byteOffset", 0) + place.get("byteOffset", 0)
        stride, size = view.get("byteStride") or kind.itemsize * width, kind.itemsize * width
        if begin < 0 or stride < 1 or begin + (count - 1) * stride + size > len(self.binary):
            raise ValueError("an accessor reaches beyond the data")
        rows = np.ndarray((count, size), np.uint8, self.binary, begin, (stride, 1))
        return np.array(rows, order="C").view(kind)  # a copy: what is looked into cannot grow


def read_bytes(path: Path) -> bytes:
    """A file's content; ConfigError where it is missing, only stands for another, or has more than a gibibyte."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path} has more than {MOST_BYTES >> 20} MiB", hint="leave out what is not needed")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    refuse_stand_in(path, data)
    return data


def sibling(path: Path, name: str) -> Path:
    """The file `name` that the file `path` refers to; ConfigError for anything outside of the folder that it is in."""
    inside, folder = Path(unquote(name).replace("\\", "/")), path.parent.resolve()
    is_address = ":" in name.split("/", maxsplit=1)[0]
    if is_address or inside.is_absolute() or not (folder / inside).resolve().is_relative_to(folder):
        raise ConfigError(
            f"{path} refers to {name[:100]!r}, which is not in its folder", hint="put all its files into one folder"
        )
    return path.parent / inside


def _content(path: Path, uri: str, files: list[str]) -> bytes:
    if uri.startswith("data:"):
        return base64.b64decode(uri.partition(",")[2], validate=True)
    found = sibling(path, uri)
    if not found.is_file():
        raise ConfigError(f"{path} refers to {uri[:100]!r}, which is not there", hint="put it into the same folder")
    files.append(found.relative_to(path.parent).as_posix())
    return read_bytes(found)


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    """The JSON and the data of a .glb."""
    found, at = dict[int, bytes](), 12
    while at + 8 <= len(data):
        length, kind = struct.unpack_from("<II", data, at)
        found.setdefault(kind, data[at + 8 : at + 8 + length])
        at += 8 + length
    return found[JSON_CHUNK], found.get(BINARY_CHUNK, b"")


def _is_readable(name: object) -> bool:
    return isinstance(name, str) and (name in READABLE or name.startswith(MATERIAL_EXTENSION))
