"""R8: files that are well-formed outside and wrong inside: right checksums, lengths and syntax around what nobody
expects. Random damage (test_hostile_files.py) hardly ever gets past those."""

import copy
import csv
import io
import json
import random
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image as PIL
import pytest
import torch
import trimesh
from safetensors.torch import save

from sds3d import Session, load_config
from sds3d.errors import Sds3dError
from sds3d.export.info import read_info
from sds3d.jobs.job_list import read_job_list
from sds3d.mesh_files import MeshSource, read_user_mesh
from sds3d.mesh_files.gltf import Gltf
from sds3d.picture_files import read_picture
from sds3d.priors.hub.check_files import _check_whole
from sds3d.run.checkpoint import MANIFEST, STATE, TENSORS, _manifest, load_checkpoint
from tests.export.splat_reader import read_splats_ply

SECONDS = 2.0  # of the processor, for one file
DEEP = 5000
ODD = [
    *(None, True, False, 0, 1, -1, 3, 255, 2**31 - 1, 2**31, -(2**31), 2**63, 10**30, 0.5, -0.5, 1e308, 1e-320),
    *(float("nan"), float("inf"), "", "a", "0", "-1", "1e9", "nan", "\0", "\ud800", "../x", "a" * 3000, "'\"\n,;\t|="),
    *([], {}, [[]], [None], {"": None}, [0] * 20, [1e308] * 3, {"name": "sds"}, {"start": 1, "end": []}, "data:,"),
]


def mutated(tree: Any, rng: random.Random, odd: list[Any] = ODD) -> Any:
    """A tree of JSON with up to three of its places replaced, left out, doubled, moved, or nested without end."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, 3)):
        places: list[tuple[Any, Any]] = []
        pending = [tree]
        while pending:
            node = pending.pop()
            keys = list(node) if isinstance(node, dict) else range(len(node))
            places += [(node, key) for key in keys]
            pending += [node[key] for key in keys if isinstance(node[key], dict | list) and node[key]]
        if not places:
            break
        node, key = rng.choice(places)
        kind = rng.randrange(12)
        if kind < 6:
            node[key] = copy.deepcopy(rng.choice(odd))
        elif kind == 6:
            del node[key]
        elif kind == 7:
            other, name = rng.choice(places)
            with_that = copy.deepcopy(other[name]) if name in other or isinstance(other, list) else None
            node[key] = with_that
        elif kind == 8 and isinstance(node, list):
            node.insert(key, copy.deepcopy(node[key]))
        elif kind == 8:
            node[str(rng.choice(odd))[:50]] = copy.deepcopy(node[key])
        elif kind == 9 and isinstance(node[key], int | float):
            node[key] = node[key] * rng.choice([-1, 0, 2, 1000, 10**6, 0.5, 1.0000001])
        elif kind == 10:
            node[key] = [node[key]]
        elif rng.random() < 0.1:
            node[key] = "DEEP"
    return tree


def text_of(tree: Any) -> bytes:
    deep = rf"{'[' * DEEP}{']' * DEEP}"
    return json.dumps(tree).replace('"DEEP"', deep).encode()


def attack(read: Callable[[], object], path: Path, make: Callable[[random.Random], bytes], count: int) -> None:
    """Every version is taken, or refused in one line within SECONDS; both happen."""
    refused = 0
    for seed in range(count):
        path.write_bytes(make(random.Random(seed)))
        begun, said = time.process_time(), ""
        try:
            read()
        except Sds3dError as error:
            said = str(error)
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        assert "\n" not in said, seed
        assert time.process_time() - begun < SECONDS, seed
        refused += said != ""
    assert 0 < refused < count


@pytest.fixture
def count(full: bool) -> int:
    return 20_000 if full else 150


@pytest.fixture(scope="module")
def run(small_config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("structured") / "run"
    list(Session(small_config(steps=6), folder).run())
    return folder


# --- pictures -----------------------------------------------------------------------------------------------------


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
             for kind, body in chunks]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def mutated_png(chunks: list[tuple[bytes, bytes]], rng: random.Random) -> bytes:
    chunks = list(chunks)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(chunks))
        kind, body = chunks[at]
        number = struct.pack(">I", rng.choice([0, 1, 2, 4096, 8193, 2**16, 2**31 - 1, 2**31, 2**32 - 1]))
        match rng.randrange(8):
            case 0:  # another size, depth, colour or interlace
                head = bytearray(chunks[0][1].ljust(13, b"\0"))
                place = rng.randrange(8, 13)
                head[place] = rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 255])
                chunks[0] = (b"IHDR", bytes(head))
            case 1:
                head = bytearray(chunks[0][1].ljust(13, b"\0"))
                side = rng.choice([0, 4])
                head[side : side + 4] = number
                chunks[0] = (b"IHDR", bytes(head))
            case 2:
                del chunks[at]
                chunks = chunks or [(kind, body)]
            case 3:
                chunks.insert(rng.randrange(len(chunks) + 1), (kind, body))
            case 4:
                chunks[at] = (kind, body[: rng.randrange(len(body) + 1)])
            case 5:
                extra = rng.choice([b"tRNS", b"PLTE", b"gAMA", b"pHYs", b"eXIf", b"acTL", b"fcTL", b"sBIT", b"cHRM"])
                body = rng.choice([b"", b"\0", b"\xff" * 7, bytes(768), number * 5])
                chunks.insert(rng.randrange(1, len(chunks) + 1), (extra, body))
            case 6:
                extra = rng.choice([b"zTXt", b"iCCP", b"iTXt", b"tEXt"])
                body = rng.choice([b"a\0\0" + zlib.compress(bytes(10**6)), b"a", b"\0\0\0", b"a\0\x01\0\0\0xyz"])
                chunks.insert(rng.randrange(1, len(chunks) + 1), (extra, body))
            case 7:  # pixels of another size than the header's
                rows = rng.choice([b"", bytes(10), bytes(10**5), b"\xff" * 3000])
                chunks[at] = (b"IDAT", zlib.compress(rows))
    return png_of(chunks)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I;16", "LA", "1"])
def test_chunks_of_a_png(mode: str, count: int, tmp_path: Path) -> None:
    path, pixels = tmp_path / "picture.png", np.random.default_rng(0).integers(0, 256, (12, 10, 4), dtype=np.uint8)
    picture = PIL.fromarray(pixels).convert("I" if mode == "I;16" else mode)
    (picture if mode != "I;16" else picture.convert("I;16")).save(path)
    chunks = chunks_of(path.read_bytes())
    attack(
        lambda: read_picture(str(path), "reference_image.path", is_color=mode != "I;16"),
        path,
        lambda rng: mutated_png(chunks, rng),
        max(20, count // 6),
    )


# --- meshes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def box() -> Gltf:
    """A textured box as a .glb, with a skin, nodes and an image."""
    mesh = trimesh.creation.box()
    picture = PIL.new("RGB", (4, 4), "red")
    uvs = np.random.default_rng(0).random((len(mesh.vertices), 2))
    mesh.visual = trimesh.visual.TextureVisuals(uv=uvs, image=picture)
    scene = trimesh.Scene()
    scene.add_geometry(mesh, node_name="a", transform=trimesh.transformations.translation_matrix([1, 2, 3]))
    return Gltf.from_glb(scene.export(file_type="glb"))


def use(path: Path) -> None:
    """All that a run does with a file before its first step."""
    mesh = read_user_mesh(MeshSource(path=str(path)))
    mesh.describe()
    mesh.corners()
    mesh.samples(100, np.random.default_rng(0))


@pytest.mark.parametrize("reader", ["use", "info"])
def test_the_tree_of_a_gltf(reader: str, box: Gltf, count: int, tmp_path: Path) -> None:
    path = tmp_path / "mesh.glb"

    def make(rng: random.Random) -> bytes:
        text = text_of(mutated(box.tree, rng))
        text += b" " * (-len(text) % 4)
        body = struct.pack("<II", len(text), 0x4E4F534A) + text
        body += struct.pack("<II", len(box.binary), 0x004E4942) + box.binary
        return struct.pack("<III", 0x46546C67, 2, 12 + len(body)) + body

    attack(lambda: use(path) if reader == "use" else read_info(path), path, make, count)


def mutated_words(text: str, rng: random.Random, words: list[str]) -> str:
    """Lines of words with some replaced, left out, doubled or moved."""
    lines = text.split("\n")
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(lines))
        line = lines[at].split(" ")
        match rng.randrange(7):
            case 0 | 1 | 2:
                line[rng.randrange(len(line))] = rng.choice(words)
                lines[at] = " ".join(line)
            case 3:
                del lines[at]
                lines = lines or [""]
            case 4:
                lines.insert(rng.randrange(len(lines) + 1), lines[at])
            case 5:
                lines[at] = " ".join([*line, rng.choice(words)])
            case 6:
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
    return "\n".join(lines)


NUMBERS = [
    "0",
    "1",
    "-1",
    "3",
    "1e9",
    "999999999999",
    "4294967296",
    "1e400",
    "nan",
    "inf",
    "",
    "x",
    "\0",
    "0x10",
    "1/2/3",
]
PLY_WORDS = [*NUMBERS, "float", "double", "uchar", "char", "list", "vertex", "face", "property", "element", "red",
             "binary_big_endian", "comment", "end_header", "x", "vertex_indices", "format", "a" * 5000]  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
@pytest.mark.parametrize("reader", ["use", "info"])
def test_the_header_of_a_ply(encoding: str, reader: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / "mesh.ply"
    mesh = trimesh.creation.box()
    mesh.visual.vertex_colors = np.full((len(mesh.vertices), 4), 200, np.uint8)
    whole = trimesh.exchange.ply.export_ply(mesh, encoding=encoding)
    header, mark, body = whole.partition(b"end_header\n")

    def make(rng: random.Random) -> bytes:
        text = mutated_words(header.decode(), rng, PLY_WORDS)
        return text.encode() + (mark if rng.random() < 0.95 else b"") + body

    attack(lambda: use(path) if reader == "use" else read_info(path), path, make, count // 2)


def test_the_header_of_splats(run: Path, count: int, tmp_path: Path) -> None:
    path = tmp_path / "splats.ply"
    header, mark, body = (run / "splats.ply").read_bytes().partition(b"end_header\n")
    words = [*PLY_WORDS, "f_dc_0", "scale_1", "rot_3", "opacity"]
    make = lambda rng: mutated_words(header.decode(), rng, words).encode() + mark + body  # noqa: E731
    attack(lambda: (read_info(path), read_splats_ply(path)), path, make, count)


OBJ = (
    "mtllib box.mtl\no box\nv 0 0 0\nv 1 0 0 0.5 0.5 0.5\nv 0 1 0\nv 0 0 1\nvt 0 0\nvt 1 1\nvn 0 0 1\nusemtl red\n"
    + ("f 1/1/1 2/2/1 3/1/1\nf 1//1 2//1 4//1\nf -1 -2 -3\nf 1 2 3 4")
)
STL = "solid box\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\nendsolid"


@pytest.mark.parametrize(("name", "whole"), [("mesh.obj", OBJ), ("mesh.stl", STL)])
def test_the_lines_of_text_meshes(name: str, whole: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / name
    words = [*NUMBERS, "f", "v", "vt", "vertex", "facet", "loop", "0/0/0", "9/9/9", "-9", "usemtl", "\\", "#", "mtllib"]
    make = lambda rng: mutated_words(whole, rng, words).encode()  # noqa: E731
    attack(lambda: (read_info(path), use(path)), path, make, count // 2)


# --- weights and checkpoints --------------------------------------------------------------------------------------


def tree_of(data: bytes) -> tuple[Any, bytes]:
    """(header, tensors) of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


SAFETENSORS = [*ODD, "F32", "F64", "BF16", "I64", "F4", "X", [0, 2**40], [4, 0], [-1, 3], [0], [2**62, 2**62], [0, 0]]


def mutated_safetensors(whole: bytes, rng: random.Random) -> bytes:
    header, body = tree_of(whole)
    text = text_of(mutated(header, rng, SAFETENSORS))
    length = len(text) if rng.random() < 0.9 else rng.choice([0, 1, 2**31, 2**63, len(text) - 1, len(text) + 8])
    return length.to_bytes(8, "little") + text + body


def test_headers_of_weights(count: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    whole = save({"a": torch.ones(3, 2), "b.weight": torch.zeros(4), "c": torch.zeros(())}, {"format": "pt"})
    attack(lambda: _check_whole(path), path, lambda rng: mutated_safetensors(whole, rng), count)


@pytest.mark.parametrize("part", [TENSORS, STATE, MANIFEST])
def test_checkpoints_with_checksums_that_are_right(part: str, count: int, tmp_path: Path, run: Path) -> None:
    newest = max((run / "checkpoints").iterdir())
    contents = {name: (newest / name).read_bytes() for name in (TENSORS, STATE)}

    def make(rng: random.Random) -> bytes:
        made = dict(contents)
        if part == TENSORS:
            made[TENSORS] = mutated_safetensors(contents[TENSORS], rng)
        if part == STATE:
            made[STATE] = text_of(mutated(json.loads(contents[STATE]), rng))
        for name, data in made.items():
            (tmp_path / name).write_bytes(data)
        manifest = _manifest(made)
        return text_of(mutated(json.loads(manifest), rng)) if part == MANIFEST else manifest

    if part == MANIFEST:
        for seed in range(count // 4):
            (tmp_path / MANIFEST).write_bytes(made := make(random.Random(seed)))
            is_same = b"[[[[[" not in made and json.loads(made) == json.loads(_manifest(contents))  # such as 1.0 for 1
            with nullcontext() if is_same else pytest.raises(Sds3dError):
                load_checkpoint(tmp_path)
        return
    attack(lambda: load_checkpoint(tmp_path), tmp_path / MANIFEST, make, count // 2)


# --- configs and lists --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "resolved.json"])
def test_configs(name: str, count: int, tmp_path: Path, run: Path) -> None:
    path, tree = tmp_path / name, json.loads((run / name).read_text())
    attack(lambda: load_config(path), path, lambda rng: text_of(mutated(tree, rng)), count // 2)


ITEMS = [
    {"prompt": "a red ball", "seed": 3, "guidance": {"name": "sds", "guidance_scale": 7.5}},
    {"prompt": "a blue ball", "vary": {"seed": [0, 1], "guidance": ["sds", "csd"]}, "prior": "analytic"},
    "a green ball",
]


def test_lists_of_json(count: int, tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"

    def make(rng: random.Random) -> bytes:
        items = mutated(ITEMS, rng)
        return rng.choice([b"\n", b"\r\n", b"\n\n"]).join(map(text_of, items))

    attack(lambda: read_job_list(path), path, make, count)


ROWS = [
    ["prompt", "seed", "guidance.guidance_scale", "prior"],
    ["a red ball", "3", "7.5", "analytic"],
    ["a blue cup", "", "", ""],
]
CELLS = [
    *NUMBERS,
    "prompt",
    "Prompt",
    "seed",
    "guidance",
    "vary.seed",
    "a,b",
    'a"b',
    "a\nb",
    "[1, 2]",
    "{}",
    "\ufeff",
    "é;",
]


def test_lists_of_a_spreadsheet(count: int, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"

    def make(rng: random.Random) -> bytes:
        rows = [list(row) for row in ROWS]
        for _ in range(rng.randint(1, 4)):
            row = rng.choice(rows)
            match rng.randrange(5):
                case 0 | 1:
                    row[rng.randrange(len(row)) if row else 0 : 1] = [rng.choice(CELLS)]
                case 2:
                    row.append(rng.choice(CELLS))
                case 3:
                    del row[-1:]
                case 4:
                    rows.insert(rng.randrange(len(rows) + 1), list(row))
        text = io.StringIO()
        csv.writer(text, delimiter=rng.choice(",;\t|"), quoting=rng.choice([0, 1, 2])).writerows(rows)
        encoding = rng.choice(["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
        return text.getvalue().encode(encoding, "replace")

    attack(lambda: read_job_list(path), path, make, count)
