"""Every format: what goes in comes back through another reader; whatever fails leaves what was there."""

import contextlib
import json
import os
import resource
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from pxr import Sdf, Usd, UsdGeom, UsdShade, UsdUtils

from sds3d.config.run_config import RunConfig
from sds3d.errors import ConfigError, ExportError, OutputError
from sds3d.export.formats import MESH_FORMATS, verification_cameras, write_verified
from sds3d.export.info import read_info
from sds3d.export.read_mesh import welded
from sds3d.export.render_mesh import render_mesh
from sds3d.priors.embedded.shading import LOOKS
from sds3d.run.artifacts import SceneExport
from sds3d.types import Material
from sds3d_app.cli import invoke

from .body import textured_body

__all__ = ["textured_body"]
MADE = {"prompt": "a \N{SNOWMAN}\n# end_header", "seed": 7}


@pytest.fixture(scope="module")
def truth(textured_body):
    return render_mesh(textured_body, verification_cameras())


@pytest.mark.parametrize("name", MESH_FORMATS)
def test_the_body_comes_back_as_it_was(tmp_path, textured_body, truth, name):
    path = tmp_path / f"mesh.{name}"
    stats, figures = write_verified(textured_body, name, path, MADE, truth)
    again = MESH_FORMATS[name].read(path)
    assert np.abs(np.sort(again.vertices, axis=0) - np.sort(textured_body.vertices, axis=0)).max() < 1e-5
    assert figures.silhouette_iou > 0.999
    assert stats.watertight
    assert (stats.pieces, stats.faces, figures.warnings) == (1, len(textured_body.faces), [])
    assert stats.volume == pytest.approx(0.36 * 0.3 + 0.1 * 1.0 + 0.3 * 0.25 * 0.2, abs=1e-3)
    if MESH_FORMATS[name].textured:
        assert figures.psnr > 50
        assert np.array_equal(again.texture.image, textured_body.texture.image)
    elif MESH_FORMATS[name].colored:
        assert figures.psnr > 20  # the border between the colours lies between vertices
    else:
        assert figures.psnr is None


@pytest.mark.parametrize("name", [name for name, known in MESH_FORMATS.items() if known.colored])
def test_vertex_colours_come_back(tmp_path, textured_body, name):
    body = replace(textured_body, texture=None)
    MESH_FORMATS[name].write(body, tmp_path / f"mesh.{name}", MADE)
    again = MESH_FORMATS[name].read(tmp_path / f"mesh.{name}")
    top = again.vertices[:, 2] > 0.01
    assert np.abs(again.colors[top] - np.array([220, 40, 30]) / 255).max() < 0.01
    assert np.abs(again.colors[again.vertices[:, 2] < -0.01] - np.array([30, 60, 200]) / 255).max() < 0.01


@pytest.mark.parametrize("name", MESH_FORMATS)
def test_a_file_tells_how_it_was_made(tmp_path, textured_body, name):
    path = tmp_path / f"mesh.{name}"
    MESH_FORMATS[name].write(textured_body, path, MADE)
    found = read_info(path)
    assert found.file_format == name
    assert found.made == MADE
    if name in ("glb", "gltf", "ply", "stl"):
        assert found.counts["faces"] == len(textured_body.faces)


ASCII_STL = "solid a cube of another program\n" + 2 * (
    "facet normal 0 0 1\n outer loop\n  vertex 0 0 0\n  vertex 1 0 0\n  vertex 0 1 0\n endloop\nendfacet\n"
)
FOREIGN = {
    "ascii.stl": (ASCII_STL, {"faces": 2}),
    "indented.stl": ("\n  " + ASCII_STL.replace("facet n", "\tfacet n").replace("\n", "\r\n"), {"faces": 2}),
    "solid.stl": (b"solid but binary".ljust(80) + (1).to_bytes(4, "little") + bytes(50), {"faces": 1}),
    "crlf.ply": (
        "ply\r\nformat ascii 1.0\r\nelement vertex 3\r\nelement face 1\r\nend_header\r\n0 0 0\r\n",
        {"vertices": 3, "faces": 1},
    ),
    "upper.stl": (ASCII_STL.upper(), {"faces": 2}),
    "old mac.stl": (ASCII_STL.replace("\n", "\r"), {"faces": 2}),
    "old mac.ply": (
        "ply\rformat ascii 1.0\relement vertex 3\relement face 1\rend_header\r0 0 0\r",
        {"vertices": 3, "faces": 1},
    ),
    "old mac.obj": ("v 0 0 0\rv 1 0 0\rv 0 1 0\rf 1 2 3\r", {"vertices": 3, "faces": 1}),
    "marked.obj": ("\ufeffv 0 0 0\nf\t1 1 1\n", {"vertices": 1, "faces": 1}),
    "named types.ply": (
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float32 rot_0\nend_header\n",
        {"splats": 3},
    ),
    "lines.ply": ("ply\nformat ascii 1.0\nelement edge 3\nend_header\n", {"points": 0}),
    "long.obj": ("# " + "v " * 50_000 + "\nv 0 0 0\nf 1 1 1", {"vertices": 1, "faces": 1}),
    "plain.obj": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nvn 0 0 1\nf 1//1 2//1 3//1\n", {"vertices": 3, "faces": 1}),
    "strips.gltf": (
        {
            "asset": {"version": "2.0"},
            "accessors": [{"count": 9}, {"count": 5}, {"count": 6}],
            "meshes": [
                {"primitives": [{"attributes": {"POSITION": 0}}, {"attributes": {"POSITION": 1}, "mode": 5}]},
                {
                    "primitives": [
                        {"attributes": {"POSITION": 0}, "indices": 2},
                        {"attributes": {"POSITION": 1}, "mode": 1},
                    ]
                },
            ],
        },
        {"vertices": 14, "faces": 3 + 3 + 2},
    ),
    "placeless.gltf": (
        {"asset": {"version": "2.0"}, "meshes": [{"primitives": [{"attributes": {"TEXCOORD_0": 0}}]}]},
        {"vertices": 0, "faces": 0},
    ),
    "a.splat": (bytes(64), {"splats": 2}),
    "empty.gltf": ({"asset": {"version": "2.0"}}, {"vertices": 0, "faces": 0}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_any_legal_file_of_others_is_counted(tmp_path, name, capsys):
    content, counts = FOREIGN[name]
    data = json.dumps(content) if isinstance(content, dict) else content
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    found = read_info(tmp_path / name)
    assert found.made is None
    assert found.counts == counts
    assert invoke(["info", str(tmp_path / name)]) == 0
    assert "it does not say how it was made" in capsys.readouterr().out


def test_a_usdz_of_others_says_nothing(tmp_path):
    stage = Usd.Stage.CreateNew(str(tmp_path / "theirs.usda"))
    UsdGeom.Mesh.Define(stage, "/theirs")
    stage.GetRootLayer().Save()
    UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(tmp_path / "theirs.usda")), str(tmp_path / "theirs.usdz"))
    assert read_info(tmp_path / "theirs.usdz").made is None


@pytest.mark.parametrize("name", ["glb", "gltf", "obj", "ply", "stl", "usdz", "splat"])
def test_what_only_stands_for_a_file_is_named_as_that(tmp_path, name):
    (tmp_path / f"mesh.{name}").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n")
    with pytest.raises(ConfigError, match=rf"mesh\.{name} only stands for the file, which Git LFS has"):
        read_info(tmp_path / f"mesh.{name}")


@pytest.mark.parametrize("kind", ["texture", "normals", "vertex colours"])
def test_a_usdz_is_stored_in_steps_of_64_bytes_with_its_layer_first(tmp_path, textured_body, kind):
    """As its specification says: Quick Look maps the file into memory and opens no other."""
    body, path = textured_body, tmp_path / "mesh.usdz"
    if kind == "normals":
        body = replace(body, texture=replace(body.texture, normals=np.full_like(body.texture.image, 128)))
    MESH_FORMATS["usdz"].write(replace(body, texture=None) if kind == "vertex colours" else body, path, MADE)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    assert len(entries) == {"texture": 2, "normals": 3, "vertex colours": 1}[kind]
    assert entries[0].filename.endswith(".usdc")
    for entry in entries:
        assert entry.compress_type == zipfile.ZIP_STORED
        name, extra = struct.unpack_from("<HH", data, entry.header_offset + 26)
        assert (entry.header_offset + 30 + name + extra) % 64 == 0, entry.filename


def test_the_header_of_a_mesh_ends_where_viewers_look_for_it_too(tmp_path, textured_body):
    MESH_FORMATS["ply"].write(textured_body, tmp_path / "mesh.ply", {"prompt": "\N{SNOWMAN}" * 3000, "seed": 5})
    assert 0 < (tmp_path / "mesh.ply").read_bytes().find(b"end_header\n") < 4096
    assert read_info(tmp_path / "mesh.ply").made["seed"] == 5


def test_files_of_others_say_nothing_and_damaged_ones_are_an_error(tmp_path, textured_body):
    for name in ("glb", "gltf", "ply", "stl"):
        path = tmp_path / f"mesh.{name}"
        MESH_FORMATS[name].write(textured_body, path, {})
        data = path.read_bytes()
        path.write_bytes(data.replace(b"sds3d", b"other"))
        assert read_info(path).made is None
        path.write_bytes(data[:60])
        with pytest.raises(ConfigError, match=rf"mesh\.{name} is damaged"):
            read_info(path)
    with pytest.raises(ConfigError, match=r"known: \.glb"):
        read_info(tmp_path / "mesh.fbx")


@pytest.mark.parametrize("name", MESH_FORMATS)
@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (lambda m: replace(m, vertices=m.vertices * np.float32(3)), "exploded"),
        (lambda m: replace(m, faces=m.faces[1:], texture=None), "holes"),
    ],
)
def test_what_is_refused_leaves_the_old_file(tmp_path, textured_body, truth, name, broken, why):
    path = tmp_path / f"mesh.{name}"
    path.write_bytes(b"old")
    with pytest.raises(ExportError, match=why):
        write_verified(broken(textured_body), name, path, MADE, truth)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


def test_a_mesh_that_does_not_look_like_the_scene_is_warned_of(tmp_path, textured_body, truth):
    swapped = replace(textured_body, vertices=textured_body.vertices * np.float32([1, -1, 1]))
    swapped = replace(swapped, faces=swapped.faces[:, ::-1].copy(), texture=None, colors=1 - swapped.colors)
    figures = write_verified(swapped, "glb", tmp_path / "mesh.glb", MADE, truth)[1]
    outline, colors = figures.warnings
    assert "outline agrees with the scene's by 0." in outline
    assert "dB (good is 22)" in colors


@pytest.mark.parametrize("name", MESH_FORMATS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, textured_body, truth, name):
    path = tmp_path / f"mesh.{name}"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises((OutputError, ExportError), match=str(tmp_path / "mesh")):
            write_verified(textured_body, name, path, MADE, truth)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


@contextlib.contextmanager
def nobody():
    """Without the rights of root, who may write anywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_without_write_permission_is_named(textured_body, truth, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    for parent in (tmp_path, *list(tmp_path.parents)[:2]):
        parent.chmod(0o755)
    folder.chmod(0o555)
    path = folder / "mesh.glb"
    with nobody(), pytest.raises(OutputError, match=rf"cannot write {path}: Permission denied"):
        write_verified(textured_body, "glb", path, MADE, truth)
    assert os.listdir(folder) == []


def test_welding_joins_seams_and_keeps_the_order():
    vertices = np.float32([[2, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0, 1]])
    mesh = welded(vertices, np.array([[0, 1, 3], [2, 3, 1]]), np.zeros((4, 3), dtype=np.float32))
    assert mesh.vertices.tolist() == [[2, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 1]]


def test_gltf_and_obj_name_the_files_beside_them(tmp_path, textured_body):
    for name, others in (("gltf", {"mesh.bin", "mesh_color.png"}), ("obj", {"mesh.mtl", "mesh_color.png"})):
        folder = tmp_path / name
        folder.mkdir()
        MESH_FORMATS[name].write(textured_body, folder / f"mesh.{name}", MADE)
        assert {file.name for file in Path(folder).iterdir()} == {f"mesh.{name}", *others}


@pytest.mark.parametrize("textured", [True, False])
def test_the_material_arrives_in_other_readers(tmp_path, textured_body, textured):
    body = replace(textured_body, material=Material(0.45, 1.0), **({} if textured else {"texture": None}))
    for name in ("glb", "gltf", "usdz", *(["obj"] if textured else [])):
        MESH_FORMATS[name].write(body, tmp_path / f"mesh.{name}", MADE)
    for name in ("glb", "gltf"):
        (seen,) = trimesh.load_scene(tmp_path / f"mesh.{name}").geometry.values()
        assert (seen.visual.material.roughnessFactor, seen.visual.material.metallicFactor) == (0.45, 1.0)
    stage = Usd.Stage.Open(str(tmp_path / "mesh.usdz"))
    surface = UsdShade.Shader(stage.GetPrimAtPath("/object/surface/preview"))
    assert [surface.GetInput(key).Get() for key in ("roughness", "metallic")] == pytest.approx([0.45, 1.0])
    if textured:
        assert {"Pr 0.45", "Pm 1"} <= set((tmp_path / "mesh.mtl").read_text().splitlines())
        (seen,) = trimesh.load_scene(tmp_path / "mesh.obj").geometry.values()
        assert seen.visual.material.to_pbr().roughnessFactor == pytest.approx(0.45, abs=1e-3)  # of Ns


def test_the_material_of_an_export_is_what_the_prior_tells(clean_scene, textured_body, monkeypatch):
    monkeypatch.setattr("sds3d.run.artifacts.extract_mesh", lambda scene, config: textured_body)
    prompts = ("a red metal mug", "a red mug")
    told = [SceneExport(clean_scene, RunConfig(prompt=prompt), 0).mesh.material for prompt in prompts]
    assert told == [LOOKS["metal"], LOOKS["matte"]]
    free = RunConfig(prompt="a metal mug", prior={"name": "diffusers", "model": "x"})
    assert (
        SceneExport(clean_scene, free, 0).mesh.material == Material()
    )  # what its words mean in its pictures is not known
