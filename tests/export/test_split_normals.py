"""Flat walls look flat: files have normals of their own on both sides of a crease, and weld to the same solid."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from sds3d.cameras import orbit
from sds3d.errors import ExportError
from sds3d.export.extract import ExportConfig, extract_mesh
from sds3d.export.formats import MESH_FORMATS, verification_cameras, write_verified
from sds3d.export.mesh import Mesh
from sds3d.export.obj_ply_stl import WORLD_TO_Z_UP
from sds3d.export.render_mesh import render_mesh
from sds3d.export.texture import unwrap
from sds3d.metrics.mesh import is_watertight
from sds3d.scenes.base import RenderContext
from sds3d.scenes.mesh import MeshConfig
from sds3d.scenes.shading import Sun

from .body import textured_body

__all__ = ["textured_body"]


def file_normals(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(those of each face's corners, those of the faces), as another program reads the file."""
    if path.suffix == ".usdz":
        from pxr import Usd, UsdGeom

        stage = Usd.Stage.Open(str(path))
        shape = UsdGeom.Mesh(stage.GetPrimAtPath("/object/mesh"))
        faces = np.asarray(shape.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
        normals = np.asarray(shape.GetNormalsAttr().Get())
        spread = normals.reshape(-1, 3, 3) if shape.GetNormalsInterpolation() == "faceVarying" else normals[faces]
        points = np.asarray(shape.GetPointsAttr().Get())
        return spread, trimesh.Trimesh(points, faces, process=False).face_normals
    (body,) = trimesh.load_scene(path, process=False).geometry.values()
    return np.asarray(body.vertex_normals)[body.faces], body.face_normals


@pytest.mark.parametrize("textured", [True, False])
@pytest.mark.parametrize("name", ["glb", "gltf", "obj", "usdz"])
def test_walls_are_flat_up_to_their_edges(tmp_path: Path, textured_body: Mesh, name: str, textured: bool) -> None:
    body = textured_body if textured else replace(textured_body, texture=None)
    path = tmp_path / f"mesh.{name}"
    truth = render_mesh(body, verification_cameras())
    smooth, _ = write_verified(body, name, path, {}, truth)
    corners, faces = file_normals(path)
    assert np.abs(corners - faces[:, None]).max() > 0.3  # one normal for each vertex: walls are bent at their edges
    stats, figures = write_verified(replace(body, crease_deg=35.0), name, path, {}, truth)
    corners, faces = file_normals(path)
    assert np.abs(corners - faces[:, None]).max() < 1e-5
    assert np.abs(np.linalg.norm(corners, axis=-1) - 1).max() < 1e-5
    assert replace(stats, mean_color=()) == replace(smooth, mean_color=())  # which is taken at the seams' first UVs
    assert stats.watertight
    assert figures.silhouette_iou > 0.999


def test_a_file_is_closed_only_when_it_is_welded(tmp_path: Path, textured_body: Mesh) -> None:
    body = replace(textured_body, texture=None, crease_deg=35.0)
    MESH_FORMATS["glb"].write(body, tmp_path / "mesh.glb", {})
    (other,) = trimesh.load_scene(tmp_path / "mesh.glb", process=False).geometry.values()
    assert len(other.vertices) > len(body.vertices)
    assert not is_watertight(np.asarray(other.faces))
    assert is_watertight(MESH_FORMATS["glb"].read(tmp_path / "mesh.glb").faces)
    other.merge_vertices(merge_norm=True)
    assert other.is_watertight


def test_a_smooth_mesh_is_not_larger(tmp_path: Path, textured_body: Mesh) -> None:
    body = replace(textured_body, texture=None)
    MESH_FORMATS["glb"].write(body, tmp_path / "mesh.glb", {})
    (other,) = trimesh.load_scene(tmp_path / "mesh.glb", process=False).geometry.values()
    assert len(other.vertices) == len(body.vertices)


def test_the_z_up_formats_stay_welded(tmp_path: Path, textured_body: Mesh) -> None:
    """PLY has one normal for each vertex."""
    MESH_FORMATS["ply"].write(replace(textured_body, crease_deg=35.0), tmp_path / "mesh.ply", {})
    (other,) = trimesh.load_scene(tmp_path / "mesh.ply", process=False).geometry.values()
    assert np.allclose(other.vertices, textured_body.vertices @ WORLD_TO_Z_UP.T, atol=1e-6)


def test_a_finished_surface_has_creases_in_the_export_and_in_pictures(textured_body: Mesh) -> None:
    light = Sun(direction=(1.0, 0.0, 0.0), ambient=0.0, diffuse=1.0)
    scene = MeshConfig(light=light).build(torch.Generator().manual_seed(0))
    scene.set_surface(torch.from_numpy(textured_body.vertices), torch.from_numpy(textured_body.faces).int())
    cameras = orbit(1, elevation_deg=0, size=64)
    pictures = []
    for finished in (False, True):
        scene.finished.fill_(finished)
        mesh = extract_mesh(scene, ExportConfig(color="vertex", color_size=32))
        assert mesh.crease_deg == (35.0 if finished else None)
        with torch.no_grad():
            out = scene.render(cameras, torch.zeros(1, 3))
        pictures.append(
            (out.rgb / scene.render(cameras, torch.zeros(1, 3), RenderContext(lit=False)).rgb)[
                out.opacity[..., 0] > 0.999
            ]
        )
    smooth, creased = (picture[:, 0].detach() for picture in pictures)
    lit = [float((picture > 0.99).float().mean()) for picture in (smooth, creased)]
    assert lit[1] > max(0.9, lit[0] + 0.1)  # walls that face the light are lit up to their edges


def test_a_texture_too_small_for_its_charts_is_an_error_and_not_an_endless_search() -> None:
    tetrahedron = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    many = np.concatenate([corners + np.array([2.0 * k, 0, 0]) for k in range(300)])
    faces = np.concatenate([tetrahedron + 4 * k for k in range(300)])
    with pytest.raises(ExportError, match=r"charts, too many for a texture of 32 texels a side \(try a larger --tex"):
        unwrap((many, faces), 32)
