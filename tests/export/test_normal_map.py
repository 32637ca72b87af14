"""A bumpy ball of few triangles has the normals of the one before: files are read by the specifications alone."""

import io
import json
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from pxr import Usd, UsdShade

from sds3d.config.run_config import RunConfig
from sds3d.export.extract import ExportConfig, extract_mesh
from sds3d.export.formats import MESH_FORMATS
from sds3d.export.mesh import Mesh, Texture, split
from sds3d.export.normal_map import tangents
from sds3d.run.artifacts import SceneExport, side_files, write_artifact
from sds3d.scenes import MeshConfig
from sds3d_app.commands.export import describe_mesh

FACES = 700


def radius(directions: torch.Tensor) -> torch.Tensor:
    return 0.6 + 0.048 * (9 * directions).sin().prod(dim=-1)


def true_normals(points: np.ndarray) -> np.ndarray:
    """Of the ball, at the points of it in the same directions."""
    directions = torch.nn.functional.normalize(torch.from_numpy(points).double(), dim=-1)
    places = (directions * radius(directions)[:, None]).requires_grad_()
    (places.norm(dim=-1) - radius(torch.nn.functional.normalize(places, dim=-1))).sum().backward()
    return torch.nn.functional.normalize(places.grad, dim=-1).numpy()


@pytest.fixture(scope="module")
def scene():
    ball = trimesh.creation.icosphere(5)
    vertices = torch.from_numpy(np.array(ball.vertices))
    mesh = MeshConfig().build(torch.Generator().manual_seed(0))
    mesh.set_surface((vertices * radius(vertices)[:, None]).float(), torch.tensor(ball.faces).int())
    return mesh


@pytest.fixture(scope="module")
def mesh(scene):
    return extract_mesh(scene, ExportConfig(faces=FACES, texture_size=256, color_size=32))


def angles(points: np.ndarray, normals: np.ndarray) -> float:
    cosine = (true_normals(points) * normals).sum(axis=1)
    return float(np.degrees(np.arccos(cosine.clip(-1, 1))).mean())


def test_the_glb_shows_the_normals_of_the_surface_before(tmp_path, mesh):
    MESH_FORMATS["glb"].write(mesh, tmp_path / "mesh.glb", {})
    data = (tmp_path / "mesh.glb").read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    tree, binary = json.loads(data[20 : 20 + length]), data[28 + length :]

    def view(number):
        found = tree["bufferViews"][number]
        return binary[found["byteOffset"] : found["byteOffset"] + found["byteLength"]]

    primitive = tree["meshes"][0]["primitives"][0]
    corner = {name: np.frombuffer(view(number), "<f4") for name, number in primitive["attributes"].items()}
    faces = np.frombuffer(view(primitive["indices"]), "<u4").reshape(-1, 3)
    map_of = tree["textures"][tree["materials"][0]["normalTexture"]["index"]]["source"]
    image = np.asarray(Image.open(io.BytesIO(view(tree["images"][map_of]["bufferView"]))), dtype=float) / 127.5 - 1

    shares = np.random.default_rng(0).dirichlet([1, 1, 1], len(faces))
    points, normal, tangent, uv = (
        np.einsum("fk,fkc->fc", shares, corner[name].reshape(-1, width)[faces])
        for name, width in (("POSITION", 3), ("NORMAL", 3), ("TANGENT", 4), ("TEXCOORD_0", 2))
    )
    assert np.allclose(np.abs(corner["TANGENT"].reshape(-1, 4)[:, 3]), 1)
    column, row = (uv * image.shape[1::-1]).astype(int).T
    x, y, z = image[row, column].T[..., None]
    bitangent = np.cross(normal, tangent[:, :3]) * tangent[:, 3:]
    shown = x * tangent[:, :3] + y * bitangent + z * normal
    places = points[:, [2, 0, 1]]  # from glTF's axes
    plain, mapped = (angles(places, (n / np.linalg.norm(n, axis=1)[:, None])[:, [2, 0, 1]]) for n in (normal, shown))
    assert plain > 8
    assert mapped < 3
    assert mesh.lost_deg == pytest.approx(plain, abs=1.5)


def test_nothing_lost_gives_no_map(scene):
    whole = extract_mesh(scene, ExportConfig(texture_size=256, color_size=32, faces=100_000))
    many = extract_mesh(scene, ExportConfig(texture_size=256, color_size=32, faces=15_000))
    assert (whole.texture.normals, whole.lost_deg) == (None, 0.0)
    assert many.texture.normals is None
    assert 0 < many.lost_deg < 3


def test_usd_and_obj_refer_to_the_same_map(tmp_path, mesh):
    for name in ("obj", "usdz", "gltf"):
        MESH_FORMATS[name].write(mesh, tmp_path / f"mesh.{name}", {})
    lines = (tmp_path / "mesh.mtl").read_text().splitlines()
    assert {"map_Kd mesh_color.png", "norm mesh_normal.png", "map_Bump mesh_normal.png"} <= set(lines)
    images = json.loads((tmp_path / "mesh.gltf").read_text())["images"]
    assert [image["uri"] for image in images] == ["mesh_color.png", "mesh_normal.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mesh_normal.png")), mesh.texture.normals)
    stage = Usd.Stage.Open(str(tmp_path / "mesh.usdz"))
    surface = UsdShade.Shader(stage.GetPrimAtPath("/object/surface/preview"))
    source = UsdShade.Shader(surface.GetInput("normal").GetConnectedSources()[0][0].source.GetPrim())
    told = {name: source.GetInput(name).Get() for name in ("sourceColorSpace", "scale", "bias")}
    assert told == {"sourceColorSpace": "raw", "scale": (2, 2, 2, 1), "bias": (-1, -1, -1, 0)}
    with zipfile.ZipFile(tmp_path / "mesh.usdz") as archive:
        inside = archive.read(source.GetInput("file").Get().path)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(inside))), mesh.texture.normals)
    again = MESH_FORMATS["usdz"].read(tmp_path / "mesh.usdz")
    assert np.array_equal(again.texture.image, mesh.texture.image)  # and not the map


def test_formats_without_a_texture_and_vertex_colours_have_none(tmp_path, scene, mesh):
    plain = extract_mesh(scene, ExportConfig(faces=FACES, color="vertex", color_size=32))
    MESH_FORMATS["glb"].write(plain, tmp_path / "mesh.glb", {})
    assert b"TANGENT" not in (tmp_path / "mesh.glb").read_bytes()
    MESH_FORMATS["glb"].write(replace(mesh, texture=replace(mesh.texture, normals=None)), tmp_path / "mesh.glb", {})
    assert b"TANGENT" not in (tmp_path / "mesh.glb").read_bytes()


@pytest.mark.parametrize(("mirrored", "sign"), [(False, 1.0), (True, -1.0)])
def test_tangents_follow_u_and_know_mirrored_uvs(mirrored, sign):
    corners = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])  # seen from +z
    uvs = np.float32([[0, 1], [1, 1], [1, 0], [0, 0]])  # row 0 is up, at y = 1
    uvs = uvs * [-1, 1] + [1, 0] if mirrored else uvs
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    texture = Texture(np.zeros((4, 4, 3), dtype=np.uint8), uvs.astype(np.float32), faces, np.arange(4))
    quad = Mesh(corners, faces, corners, texture)
    assert np.allclose(tangents(quad, split(quad)), [sign, 0, 0, sign])
    lost = replace(quad, texture=replace(texture, uvs=np.zeros((4, 2), dtype=np.float32)))
    assert np.allclose(np.linalg.norm(tangents(lost, split(lost))[:, :3], axis=1), 1)  # any, but one


def test_the_figures_and_the_line_for_people_say_so(tmp_path, scene):
    options = {"faces": FACES, "texture_size": 256, "color_size": 32}
    made = SceneExport(scene, RunConfig(prompt="a red ball", export=options), 0)
    facts = {name: write_artifact(name, made, tmp_path)[1] for name in ("gltf", "mesh-ply")}
    assert facts["gltf"]["normal_map"]
    assert facts["gltf"]["lost_deg"] == facts["mesh-ply"]["lost_deg"] > 8
    assert f"normal map of {facts['gltf']['lost_deg']:.1f}\N{DEGREE SIGN}" in describe_mesh(facts["gltf"])
    assert not facts["mesh-ply"]["normal_map"]
    assert "normal map" not in describe_mesh(facts["mesh-ply"])
    assert [path.name for path in side_files(tmp_path / "mesh.gltf")] == [
        "mesh.bin", "mesh_color.png", "mesh_normal.png"
    ]  # fmt: skip
