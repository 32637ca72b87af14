"""A textured file is the person's file: other base colours, and everything else as it was, read by other readers."""

import importlib.util
import io
import json
import runpy
import struct
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import nn

from sds3d.evaluation.ground_truth import solid_body
from sds3d.export.textured import warnings_of, write_textured
from sds3d.mesh_files import MeshSource, read_user_mesh
from sds3d.metrics.mesh import triangles_of
from sds3d.priors.embedded.captions import build, parse
from sds3d.scenes.mesh import FixedMesh, MeshConfig
from sds3d.types import Material

SIZE = 128
DOCS = Path(__file__).parents[2] / "docs"
GRADIO = importlib.util.find_spec("gradio")
MODELS = Path(GRADIO.submodule_search_locations[0]) / "media_assets" / "models3d" if GRADIO else Path("none")


class ByPlace(nn.Module):
    """A colour that tells where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return (points + 1) / 2

    finished = forward


def textured(path: Path, out: Path, **options: Any) -> dict[str, Any]:
    source = MeshSource(path=str(path), **options)
    scene = FixedMesh(MeshConfig(source=source, geometry="fixed"), torch.Generator())
    scene.color_field = ByPlace()
    return write_textured(scene, source, SIZE, out, Material(roughness=0.3, metallic=1.0))


def load(path: Path) -> tuple[dict[str, Any], bytes]:
    """The tree and data of a file, by the specification alone."""
    data = path.read_bytes()
    if path.suffix == ".gltf":
        tree = json.loads(data)
        import base64

        return tree, base64.b64decode(tree["buffers"][0]["uri"].split(",")[1])
    length = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def accessor(tree: dict[str, Any], data: bytes, number: int) -> bytes:
    entry = tree["accessors"][number]
    view = tree["bufferViews"][entry["bufferView"]]
    size = {5121: 1, 5123: 2, 5125: 4, 5126: 4}[entry["componentType"]]
    size *= {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}[entry["type"]]
    begin, stride = view.get("byteOffset", 0) + entry.get("byteOffset", 0), view.get("byteStride", size)
    return b"".join(data[begin + row * stride :][:size] for row in range(entry["count"]))


def with_uvs(body: trimesh.Trimesh, **looks: Any) -> trimesh.Trimesh:
    """Each face in a cell of its own."""
    body.unmerge_vertices()
    side = int(np.ceil(np.sqrt(len(body.faces))))
    cell = np.arange(len(body.faces)).repeat(3)
    corner = np.array([(0.1, 0.1), (0.9, 0.1), (0.1, 0.9)])[np.arange(len(cell)) % 3]
    uvs = (corner + np.stack([cell % side, cell // side], 1)) / side
    material = trimesh.visual.material.PBRMaterial(**{"name": "skin", **looks})
    body.visual = trimesh.visual.TextureVisuals(uv=uvs, material=material)
    return body


def write_case(name: str, folder: Path) -> Path:
    """One of five meshes that were not made by sds3d."""
    path, old = folder / f"{name}.glb", Image.new("RGB", (64, 32), (200, 30, 30))
    if name == "fox":
        if not MODELS.is_dir():
            pytest.skip("gradio's example models are not installed")
        return MODELS / "Fox.gltf"  # CC-BY 4.0 by PixelMannen, tomkranis, AsoboStudio and scurest; skinned, animated
    if name == "box":
        with_uvs(trimesh.creation.box((1, 2, 3)), baseColorTexture=old, normalTexture=old).export(path)
    elif name == "torus":
        with_uvs(trimesh.creation.torus(1.0, 0.3, 12, 8), baseColorFactor=[10, 200, 10, 255]).export(path)
    elif name == "house":
        vertices, faces = triangles_of(solid_body(build(parse("a white house with a red roof"), Random(0))))
        with_uvs(trimesh.Trimesh(vertices, faces), baseColorTexture=old).export(path)
    else:
        path.write_bytes(runpy.run_path(str(DOCS / "make_texture.py"))["chair"]().export(file_type="glb"))
    return path


@pytest.mark.parametrize("name", ["box", "torus", "house", "chair", "fox"])
def test_only_the_base_colours_change(tmp_path: Path, name: str) -> None:
    path, out = write_case(name, tmp_path), tmp_path / "out" / "textured.glb"
    out.parent.mkdir()
    before = path.read_bytes()
    facts = textured(path, out)
    assert path.read_bytes() == before
    (old, old_data), (new, new_data) = load(path), load(out)
    same = ("asset", "scene", "scenes", "nodes", "animations", "skins", "samplers", "cameras", "extensionsUsed")
    assert [new.get(key) for key in same] == [old.get(key) for key in same]
    assert json.dumps(new["meshes"]) == json.dumps(old["meshes"])  # names, attributes, indices, materials
    for number in range(len(old["accessors"])):
        assert accessor(new, new_data, number) == accessor(old, old_data, number)
        kept = [dict(tree["accessors"][number]) for tree in (old, new)]
        assert kept[0] == kept[1]
    for was, now in zip(old["materials"], new["materials"], strict=True):
        surfaces = [dict(material.get("pbrMetallicRoughness", {})) for material in (was, now)]
        for surface in surfaces:
            surface.pop("baseColorTexture", None)
            surface.pop("baseColorFactor", None)
        assert surfaces[0] == surfaces[1]
        assert {**was, "pbrMetallicRoughness": 0} == {**now, "pbrMetallicRoughness": 0}
    assert len(new["images"]) == len(new["textures"]) == max(1, len(old.get("textures", [])))  # as many as before
    if facts["psnr"] < 30:
        assert name == "fox"  # its UVs overlap
    else:
        check_colors(out)


def png(color: tuple[int, int, int]) -> Image.Image:
    """Of noise, so that no two of its parts are alike."""
    noise = np.random.default_rng(sum(color)).integers(0, 40, (32, 32, 3)) + np.array(color) * 200 // 255
    return Image.fromarray(noise.astype(np.uint8))


def encoded(tree: dict[str, Any], data: bytes, image: int) -> bytes:
    view = tree["bufferViews"][tree["images"][image]["bufferView"]]
    return data[view.get("byteOffset", 0) :][: view["byteLength"]]


@pytest.mark.parametrize("shared", ["nothing", "normals", "another part"])
def test_a_picture_that_was_replaced_is_gone_and_one_that_is_used_stays(tmp_path: Path, shared: str) -> None:
    path, out, old = tmp_path / "a.glb", tmp_path / "textured.glb", png((200, 0, 0))
    looks = {"baseColorTexture": old, "normalTexture": old if shared == "normals" else png((0, 0, 255))}
    scene = trimesh.Scene([with_uvs(trimesh.creation.box(), **looks)])
    if shared == "another part":
        scene.add_geometry(with_uvs(trimesh.creation.icosphere(0), name="other", baseColorTexture=png((0, 200, 0))))
    scene.export(path)
    tree, data = load(path)
    if shared != "nothing":  # trimesh writes the picture twice: one texture for both
        first, last = tree["materials"][0], tree["materials"][-1]
        uses = first if shared == "normals" else last["pbrMetallicRoughness"]
        key = "normalTexture" if shared == "normals" else "baseColorTexture"
        uses[key] = first["pbrMetallicRoughness"]["baseColorTexture"]
        binary = data + b"\0" * (-len(data) % 4)
        text = json.dumps(tree).encode()
        text += b" " * (-len(text) % 4)
        head = struct.pack("<III", 0x46546C67, 2, 28 + len(text) + len(binary))
        chunks = struct.pack("<II", len(text), 0x4E4F534A), text, struct.pack("<II", len(binary), 0x004E4942), binary
        path.write_bytes(head + b"".join(chunks))
    textured(path, out)
    new, new_data = load(out)
    for number in range(len(tree["accessors"])):
        assert accessor(new, new_data, number) == accessor(tree, data, number)
    base = tree["textures"][tree["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["index"]]["source"]
    normal = tree["textures"][tree["materials"][0]["normalTexture"]["index"]]["source"]
    assert (encoded(tree, data, base) in new_data) == (base == normal)
    assert encoded(new, new_data, new["textures"][new["materials"][0]["normalTexture"]["index"]]["source"]) == encoded(
        tree, data, normal
    )
    assert sum(view["byteLength"] for view in new["bufferViews"]) + 4 * len(new["bufferViews"]) >= len(new_data) - 8


def check_colors(path: Path) -> None:
    """trimesh sees at each corner of a face the colour of its place: x is the front, y the left, z up."""
    scene = trimesh.load_scene(path, process=False)
    low, high = scene.bounds
    reach = np.linalg.norm(scene.to_mesh().vertices - (low + high) / 2, axis=1).max()
    for node in scene.graph.nodes_geometry:
        place, geometry = scene.graph[node]
        body = scene.geometry[geometry]
        centers = trimesh.transform_points(body.triangles_center, place)
        world = 0.88 / reach * (centers - (low + high) / 2)[:, [2, 0, 1]]
        uv = body.visual.uv[body.faces].mean(axis=1)
        image = np.asarray(body.visual.material.baseColorTexture.convert("RGB"))
        texel = image[((1 - uv[:, 1] % 1) * SIZE).astype(int) % SIZE, (uv[:, 0] % 1 * SIZE).astype(int) % SIZE]
        assert np.abs(texel / 255 - (world + 1) / 2).mean() < 0.02
        assert body.visual.material.baseColorFactor is None or (body.visual.material.baseColorFactor == 255).all()


@pytest.mark.parametrize("kind", ["stl", "ply", "obj", "glb"])
def test_what_has_no_uvs_gets_them_and_says_so(tmp_path: Path, kind: str) -> None:
    path, out = tmp_path / f"ball.{kind}", tmp_path / "textured.glb"
    trimesh.creation.icosphere(2).export(path)
    facts = textured(path, out, up="y", front="z")
    assert "without UVs: xatlas makes them" in facts["warnings"][0]
    body = trimesh.load_mesh(out, process=False)
    assert len(body.faces) == 320
    assert {tuple(row) for row in body.vertices.round(5)} == {
        tuple(row) for row in trimesh.load_mesh(path).vertices.round(5)
    }
    assert facts["psnr"] > 30
    check_colors(out)
    (material,) = load(out)[0]["materials"]
    surface = material["pbrMetallicRoughness"]
    assert (surface["roughnessFactor"], surface["metallicFactor"]) == (0.3, 1.0)  # of the words: it had no material
    assert not (tmp_path / "textured").exists()


def test_a_z_up_file_stands_in_the_glb(tmp_path: Path) -> None:
    trimesh.creation.box(bounds=[(-1, -2, 0), (1, 2, 6)]).export(tmp_path / "tower.stl")
    textured(tmp_path / "tower.stl", tmp_path / "textured.glb")
    extents = trimesh.load_scene(tmp_path / "textured.glb").extents
    assert np.allclose(extents, (2, 6, 4))


def test_an_obj_stays_the_same_text_with_other_materials(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(folder / "bump.png")
    lines = [*(["v 0 0 0", "v 1 0 0", "v 1 1 0", "v 0 1 0", "vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"])]
    text = "mtllib a.mtl\n" + "\n".join(lines) + "\nusemtl steel\nf 1/1 2/2 3/3\nusemtl oak\nf 1/1 3/3 4/4\n"
    (folder / "a.obj").write_text(text)
    (folder / "a.mtl").write_text(
        "newmtl steel\nKd 0.1 0.1 0.1\nNs 50\nmap_Bump bump.png\nnewmtl oak\nmap_Kd gone.png\nKs 1 1 1\n"
    )
    facts = textured(folder / "a.obj", out / "textured.glb")
    assert facts["obj"] == "textured/a.obj"
    assert (out / "textured" / "a.obj").read_text() == text
    assert (out / "textured" / "bump.png").read_bytes() == (folder / "bump.png").read_bytes()
    materials = (out / "textured" / "a.mtl").read_text().split("newmtl ")[1:]
    assert [block.splitlines()[0] for block in materials] == ["steel", "oak"]
    assert "Ns 50\nmap_Bump bump.png" in materials[0]
    assert "Ks 1 1 1" in materials[1]
    assert all(block.count("map_Kd") == 1 and "Kd 1 1 1" in block for block in materials)
    scene = trimesh.load_scene(out / "textured" / "a.obj", process=False)
    images = [np.asarray(body.visual.material.image) for body in scene.geometry.values()]
    assert all(image.shape == (SIZE, SIZE, 3) for image in images)
    assert len(images) == 2


def test_an_obj_without_materials_gets_one(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nf 1/1 2/2 3/3\n")
    textured(tmp_path / "a.obj", tmp_path / "textured.glb")
    body = trimesh.load_mesh(tmp_path / "textured" / "a.obj", process=False)
    assert body.visual.material.image.size == (SIZE, SIZE)
    assert "Pr 0.3\nPm 1\n" in (tmp_path / "textured" / "a.mtl").read_text()


def test_overlaps_repeats_and_transparency_are_said(tmp_path: Path) -> None:
    def warn(uvs: list[list[float]], **looks: Any) -> str:
        quad = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False)
        material = trimesh.visual.material.PBRMaterial(name="m", **looks)
        quad.visual = trimesh.visual.TextureVisuals(uv=uvs, material=material)
        quad.export(tmp_path / "a.glb")
        return " ".join(warnings_of(read_user_mesh(MeshSource(path=str(tmp_path / "a.glb")))))

    assert warn([[0, 0], [1, 0], [1, 1], [0, 1]]) == ""
    assert "50% of them lie on others" in warn([[0, 0], [1, 0], [1, 1], [1, 0]])
    assert "repeats over its surface" in warn([[0, 0], [3, 0], [3, 3], [0, 3]])
    assert "no area" in warn([[0, 0], [0, 0], [0, 0], [0, 0]])
    leaf = Image.new("RGBA", (8, 8), (0, 255, 0, 0))
    leaf.paste((0, 255, 0, 255), (0, 0, 4, 8))
    assert "opaque" in warn([[0, 0], [1, 0], [1, 1], [0, 1]], baseColorTexture=leaf, alphaMode="MASK")
    textured(tmp_path / "a.glb", tmp_path / "textured.glb")
    tree, data = load(tmp_path / "textured.glb")
    view = tree["bufferViews"][tree["images"][-1]["bufferView"]]
    image = Image.open(io.BytesIO(data[view["byteOffset"] :][: view["byteLength"]]))
    assert image.mode == "RGBA"
    assert [image.getpixel((x, 64))[3] for x in (10, 120)] == [255, 0]


def test_colours_of_vertices_do_not_tint_the_texture(tmp_path: Path) -> None:
    body = trimesh.creation.icosphere(1)
    body.visual.vertex_colors = [255, 0, 0, 255]
    body.export(tmp_path / "a.glb")
    facts = textured(tmp_path / "a.glb", tmp_path / "textured.glb")
    assert any("_COLOR_0" in warning for warning in facts["warnings"])
    attributes = load(tmp_path / "textured.glb")[0]["meshes"][0]["primitives"][0]["attributes"]
    assert "_COLOR_0" in attributes
    assert "COLOR_0" not in attributes


def test_a_scene_of_forty_meshes(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    for number in range(40):
        body = with_uvs(trimesh.creation.box()) if number % 2 else trimesh.creation.box()
        body.apply_translation([1.5 * (number % 8), 1.5 * (number // 8), 0])
        scene.add_geometry(body, geom_name=f"part {number}", node_name=f"node {number}")
    scene.export(tmp_path / "many.glb")
    facts = textured(tmp_path / "many.glb", tmp_path / "textured.glb")
    assert facts["parts"] == 40
    assert "and 17 more of many.glb without UVs" in facts["warnings"][0]
    assert len(trimesh.load_scene(tmp_path / "textured.glb").geometry) == 40


def test_a_gltf_of_several_files_becomes_one_and_keeps_a_moved_texture(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.gltf"
    path.parent.mkdir()
    body = with_uvs(trimesh.creation.box(), baseColorTexture=Image.new("RGB", (8, 8)))
    for name, data in body.export(file_type="gltf").items():
        (path.parent / ("a.gltf" if name.endswith(".gltf") else name)).write_bytes(data)
    tree = json.loads(path.read_text())
    moved = {"KHR_texture_transform": {"offset": [0.25, 0.1], "scale": [0.5, 0.5], "rotation": 0.3}}
    tree["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["extensions"] = moved
    path.write_text(json.dumps({**tree, "extensionsUsed": ["KHR_texture_transform"]}))
    facts = textured(path, tmp_path / "textured.glb")
    assert facts["psnr"] > 25
    new, _ = load(tmp_path / "textured.glb")
    assert new["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["extensions"] == moved
    assert all("uri" not in entry for entry in (*new["buffers"], *new["images"]))
