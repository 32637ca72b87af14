"""Meshes of other people: what is read of them, how they stand, and one clear line for what cannot be used."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from pydantic import ValidationError

from sds3d.errors import ConfigError
from sds3d.mesh_files import MeshSource, UserMesh, read_user_mesh
from sds3d.mesh_files.reading import MOST_FACES, RADIUS, rotation_of

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0]], dtype="<f4")


def read(path: Path, **options: Any) -> UserMesh:
    return read_user_mesh(MeshSource(path=str(path), **options))


def gltf(path: Path, positions: np.ndarray = TRIANGLE, indices: list[int] | None = None, **changes: Any) -> Path:
    """A .gltf of one triangle, with its data inside."""
    data = positions.astype("<f4").tobytes()
    primitive: dict[str, Any] = {"attributes": {"POSITION": 0}}
    accessors: list[dict[str, Any]] = [
        {"bufferView": 0, "componentType": 5126, "count": len(positions), "type": "VEC3"}
    ]
    views = [{"buffer": 0, "byteLength": len(data)}]
    if indices is not None:
        primitive["indices"] = 1
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": 2 * len(indices)})
        accessors.append({"bufferView": 1, "componentType": 5123, "count": len(indices), "type": "SCALAR"})
        data += np.array(indices, dtype="<u2").tobytes()
    uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    tree = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"uri": uri, "byteLength": len(data)}],
    }
    path.write_text(json.dumps(tree | changes))
    return path


@pytest.mark.parametrize("kind", ["glb", "obj", "ply", "stl"])
def test_a_box_of_every_format_is_the_same_box(tmp_path: Path, kind: str) -> None:
    box = trimesh.creation.box((1.0, 2.0, 4.0))
    box.export(tmp_path / f"box.{kind}")
    mesh = read(tmp_path / f"box.{kind}", up="y")
    points = mesh.parts[0].vertices
    assert np.allclose(np.ptp(points, axis=0), (1, 2, 4), atol=1e-6)
    vertices, normals, faces = mesh.corners()
    assert len(faces) == 12
    assert np.linalg.norm(vertices, axis=1).max() == pytest.approx(RADIUS)
    corners = vertices[faces]
    outwards = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((outwards * corners.mean(axis=1)).sum(axis=1) > 0).all()
    assert ((normals[faces].mean(axis=1) * outwards).sum(axis=1) > 0).all()


def test_up_and_front_are_turned_to_the_worlds() -> None:
    turn = rotation_of("y", "z")
    assert (turn @ [0, 1, 0]).tolist() == [0, 0, 1]
    assert (turn @ [0, 0, 1]).tolist() == [1, 0, 0]
    assert (turn @ [1, 0, 0]).tolist() == [0, 1, 0]  # the object's left
    for up in ("x", "-y", "z"):
        assert np.linalg.det(rotation_of(up, {"x": "z", "-y": "-x", "z": "-y"}[up])) == pytest.approx(1)


def test_up_is_as_the_format_says_or_where_it_stands_on_0(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(1)
    for name in ("a.obj", "a.stl", "a.glb"):
        ball.export(tmp_path / name)
    assert [read(tmp_path / name).up for name in ("a.obj", "a.stl", "a.glb")] == ["y", "z", "y"]
    trimesh.creation.box(bounds=[(-1, -1, 0), (1, 1, 3)]).export(tmp_path / "b.obj")
    mesh = read(tmp_path / "b.obj")
    assert (mesh.up, mesh.front) == ("z", "-y")
    assert "stands on 0" in mesh.up_by
    assert read(tmp_path / "b.obj", up="-x").up == "-x"


def test_nodes_are_followed_and_mirrors_turn_faces(tmp_path: Path) -> None:
    nodes = [{"children": [1], "translation": [5, 0, 0]}, {"mesh": 0, "scale": [-2, 1, 1], "name": "mirrored"}]
    part = read(gltf(tmp_path / "a.gltf", nodes=nodes)).parts[0]
    assert part.name == "mirrored"
    assert part.vertices.tolist() == [[5, 0, 0], [3, 0, 0], [5, 2, 0]]
    assert part.faces.tolist() == [[2, 1, 0]]


@pytest.mark.parametrize(
    ("mode", "faces"), [(4, [[0, 1, 2]]), (5, [[0, 1, 2], [1, 3, 2]]), (6, [[0, 1, 2], [0, 2, 3]])]
)
def test_strips_and_fans_become_triangles(tmp_path: Path, mode: int, faces: list[list[int]]) -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    meshes = [{"primitives": [{"attributes": {"POSITION": 0}, "mode": mode}]}]
    assert read(gltf(tmp_path / "a.gltf", square, meshes=meshes)).parts[0].faces.tolist() == faces


def test_materials_of_an_obj_keep_their_names_even_if_their_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(
        "mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 1\nvt 0 0\nvt 1 0\nvt 1 1\n"
        "usemtl steel\nf 1/1 2/2 3/3\nusemtl red oak\nf 1/1 2/2 4/3\n"
    )
    mesh = read(tmp_path / "a.obj")
    names = [mesh.gltf.tree["materials"][part.material or 0]["name"] for part in mesh.parts]
    assert sorted(names) == ["red oak", "steel"]
    assert mesh.notes == ["a.obj refers to gone.mtl, which is not there"]


def test_the_files_own_colours_are_found(tmp_path: Path) -> None:
    quad = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False)
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    pixels[0], pixels[1, 0], pixels[1, 1] = (0, 0, 255), (255, 0, 0), (0, 255, 0)  # blue above, red and green below
    uvs = [[0, 0], [1, 0], [1, 1], [0, 1]]
    quad.visual = trimesh.visual.TextureVisuals(uv=uvs, image=Image.fromarray(pixels))
    for name in ("a.glb", "a.obj"):
        quad.export(tmp_path / name)
        mesh = read(tmp_path / name)
        weights = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])  # lower left, lower right, upper right
        white = mesh.gltf.tree["materials"][0]["pbrMetallicRoughness"]
        white["baseColorFactor"] = [1, 1, 1, 1]
        colors = mesh.colors_at(mesh.parts[0], np.zeros(3, dtype=np.int64), weights)
        assert np.allclose(colors, [[1, 0, 0], [0, 1, 0], [0, 0, 1]], atol=0.01)
    assert {"material.mtl"} < set(mesh.files)


def test_a_texture_of_16k_is_left_alone_and_said(tmp_path: Path) -> None:
    image = Image.new("1", (16384, 16384))
    quad = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 1, 2]], process=False)
    quad.visual = trimesh.visual.TextureVisuals(uv=[[0, 0], [1, 0], [1, 1]], image=Image.new("RGB", (2, 2)))
    quad.export(tmp_path / "a.obj")
    picture = next(path for path in tmp_path.iterdir() if path.suffix in (".png", ".jpeg", ".jpg"))
    image.save(picture, format="PNG")
    mesh = read(tmp_path / "a.obj")
    mesh.describe()
    assert len(mesh.parts) == 1
    glb = gltf(
        tmp_path / "b.gltf",
        images=[{"uri": picture.name}],
        textures=[{"source": 0}],
        materials=[{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        meshes=[{"primitives": [{"attributes": {"POSITION": 0}, "material": 0}]}],
    )
    mesh = read(glb)
    assert mesh.base_image(0) is None
    assert "is not looked into" in mesh.notes[0]


BAD = {
    "nothing.glb": b"",
    "nothing.obj": b"",
    "nothing.ply": b"",
    "nothing.stl": b"",
    "noise.glb": struct.pack("<III", 0x46546C67, 2, 99) + bytes(range(200)),
    "noise.stl": bytes(range(256)) * 9,
    "list.gltf": b"[]",
    "deep.gltf": b"[" * 100_000,
    "points.obj": b"v 0 0 0\nv 1 1 1\n",
    "points.ply": b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
    b"end_header\n0 0 0\n",
    "range.obj": b"v 0 0 0\nv 1 1 1\nv 1 0 0\nf 1 2 9\n",
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_damaged_and_empty_files_are_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BAD[name])
    with pytest.raises(ConfigError, match=r"damaged|no triangles") as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("kind", ["glb", "gltf", "obj", "ply", "stl"])
def test_what_only_stands_for_a_mesh_is_named_as_that(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"a.{kind}").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n")
    with pytest.raises(ConfigError, match="only stands for the file, which Git LFS has"):
        read(tmp_path / f"a.{kind}")
    (tmp_path / f"a.{kind}").rename(tmp_path / "b.bin")
    with pytest.raises(ConfigError, match=r"b\.bin only stands for"):
        read(gltf(tmp_path / "b.gltf", buffers=[{"uri": "b.bin", "byteLength": 36}]))


@pytest.mark.parametrize("uri", ["../secret.bin", "/etc/passwd", "%2e%2e/secret.bin", "..\\secret.bin", "http://a/b"])
def test_nothing_outside_of_the_folder_is_read(tmp_path: Path, uri: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.bin").write_bytes(TRIANGLE.tobytes())
    path = gltf(tmp_path / "in" / "a.gltf", buffers=[{"uri": uri, "byteLength": 36}])
    with pytest.raises(ConfigError, match="not in its folder"):
        read(path)
    (tmp_path / "in" / "a.obj").write_text(f"mtllib {uri}\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    if "%" not in uri:
        with pytest.raises(ConfigError, match="not in its folder"):
            read(tmp_path / "in" / "a.obj")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"extensionsRequired": ["KHR_draco_mesh_compression"]}, "needs KHR_draco_mesh_compression"),
        ({"extensionsRequired": ["KHR_texture_basisu"]}, "needs KHR_texture_basisu"),
        ({"buffers": [{"uri": "gone.bin", "byteLength": 36}]}, "'gone.bin', which is not there"),
        ({"nodes": [{"mesh": 0, "children": [0]}]}, "two parents"),
        ({"accessors": [{"bufferView": 0, "componentType": 5126, "count": 10**9, "type": "VEC3"}]}, "damaged"),
        ({"accessors": [{"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"}]}, "beyond the data"),
        ({"meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "mode": 0}]}]}, "no triangles"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        read(gltf(tmp_path / "a.gltf", **changes))


def test_impossible_geometry_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {
        "not finite": TRIANGLE * [1, np.nan, 1],
        "no area": np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]]),
        "0 across": 0 * TRIANGLE,
    }
    for problem, points in cases.items():
        with pytest.raises(ConfigError, match=problem):
            read(gltf(tmp_path / "a.gltf", points))
    with pytest.raises(ConfigError, match="names vertex 7"):
        read(gltf(tmp_path / "a.gltf", TRIANGLE, [0, 1, 7]))
    monkeypatch.setattr("sds3d.mesh_files.reading.MOST_FACES", 5)
    assert MOST_FACES == 1_000_000
    trimesh.creation.box().export(tmp_path / "box.glb")
    with pytest.raises(ConfigError, match=r"12 triangles \(at most 5: decimate it first\)"):
        read(tmp_path / "box.glb")


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no mesh that sds3d reads"):
        read(tmp_path / "a.fbx")
    with pytest.raises(ConfigError, match="there is no file"):
        read(tmp_path / "a.glb")
    with pytest.raises(ConfigError, match="the same axis"):
        read(gltf(tmp_path / "a.gltf"), up="y", front="-y")
    with pytest.raises(ValidationError):
        MeshSource(path="a.glb", up="up")
