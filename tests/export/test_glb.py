import json
import resource
import struct
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from sds3d.errors import ExportError, OutputError
from sds3d.export.glb import glb_bytes, read_glb, write_glb
from sds3d.export.mesh import Mesh
from sds3d.mesh_files.reading import linear_from_srgb, srgb_from_linear


def tetrahedron():
    vertices = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.2, 0], [0, 0, 0.3]], dtype=np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    colors = np.array([[0, 0, 0], [1, 0, 0], [0, 0.5, 0], [0.25, 0.5, 0.75]], dtype=np.float32)
    return Mesh(vertices, faces, colors)


def tree_of(data):
    length = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + length])


def test_reads_back_what_was_written(tmp_path, mesh):
    write_glb(replace(mesh, texture=None), tmp_path / "mesh.glb", {})
    again = read_glb(tmp_path / "mesh.glb")
    assert np.array_equal(again.vertices, mesh.vertices)
    assert np.array_equal(again.faces, mesh.faces)
    assert np.abs(again.colors - mesh.colors).max() < 1e-5


def test_the_axes_are_gltfs(tmp_path, mesh):
    """+Y up, +Z front, +X the object's left, as trimesh reads it, and the right way out."""
    write_glb(replace(mesh, texture=None), tmp_path / "mesh.glb", {})
    other = trimesh.load_mesh(tmp_path / "mesh.glb")
    assert other.is_watertight
    assert other.volume > 0
    assert other.extents == pytest.approx(np.ptp(mesh.vertices, axis=0)[[1, 2, 0]], abs=1e-5)
    vertices, faces = np.asarray(other.vertices), other.faces
    up = (
        vertices[:, 1] > 0.2
    )  # only the ball is that high; it is off to the front (+x, here +Z) and right (-y, here -X)
    assert vertices[up][:, 2].mean() == pytest.approx(0.1, abs=0.03)
    assert vertices[up][:, 0].mean() == pytest.approx(-0.05, abs=0.03)
    assert len(faces) == len(mesh.faces)


def test_colours_are_linear_over_white_and_rough():
    data = glb_bytes(tetrahedron(), {})
    tree = tree_of(data)
    surface = tree["materials"][0]["pbrMetallicRoughness"]
    assert surface == {"baseColorFactor": [1, 1, 1, 1], "metallicFactor": 0, "roughnessFactor": 0.8}
    primitive = tree["meshes"][0]["primitives"][0]
    assert primitive["material"] == 0
    view = tree["bufferViews"][tree["accessors"][primitive["attributes"]["COLOR_0"]]["bufferView"]]
    start = 20 + struct.unpack("<I", data[12:16])[0] + 8 + view["byteOffset"]
    colors = np.frombuffer(data[start : start + view["byteLength"]], dtype="<f4").reshape(-1, 3)
    assert colors[2] == pytest.approx([0, 0.214041, 0], abs=1e-5)  # sRGB 0.5


def test_layout_is_what_the_standard_asks_for():
    data = glb_bytes(tetrahedron(), {"prompt": "a \N{SNOWMAN}", "seed": 7})
    tree = tree_of(data)
    assert struct.unpack("<4sII", data[:12]) == (b"glTF", 2, len(data))
    assert len(data) % 4 == 0
    assert tree["asset"]["extras"] == {"prompt": "a \N{SNOWMAN}", "seed": 7}
    assert tree["accessors"][0]["min"] == pytest.approx([0, 0, 0])
    assert tree["accessors"][0]["max"] == pytest.approx([0.2, 0.3, 0.1])  # y, z, x
    assert [view["target"] for view in tree["bufferViews"]] == [34962, 34962, 34962, 34963]
    assert all(view["byteOffset"] % 4 == 0 for view in tree["bufferViews"])
    assert tree["buffers"][0]["byteLength"] == sum(view["byteLength"] for view in tree["bufferViews"])


def test_the_same_mesh_gives_the_same_bytes():
    assert glb_bytes(tetrahedron(), {"seed": 1}) == glb_bytes(tetrahedron(), {"seed": 1})


def test_transfer_function_goes_both_ways():
    values = np.linspace(0, 1, 101)
    assert np.allclose(srgb_from_linear(linear_from_srgb(values)), values)
    assert linear_from_srgb(np.array([0.0, 0.04, 1.0])) == pytest.approx([0.0, 0.04 / 12.92, 1.0])


@pytest.mark.parametrize("damage", [lambda d: d[:40], lambda d: d[:-100], lambda d: b"", lambda d: b"x" * 500])
def test_damaged_files_are_an_export_error(tmp_path, damage):
    path = tmp_path / "mesh.glb"
    path.write_bytes(damage(glb_bytes(tetrahedron(), {})))
    with pytest.raises(ExportError, match=r"mesh\.glb"):
        read_glb(path)


def test_a_folder_that_cannot_hold_the_file_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="file"):
        write_glb(tetrahedron(), tmp_path / "file" / "mesh.glb", {})


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "mesh.glb"
    path.write_bytes(b"old")
    corners = np.zeros((3000, 3), dtype=np.float32)
    large = Mesh(corners, np.arange(3000).reshape(-1, 3), corners)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OutputError, match=str(path)):
            write_glb(large, path, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["mesh.glb"]
    assert path.read_bytes() == b"old"
