"""A mesh scene that begins as a file: fixed, where only colours move, and free."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from pydantic import ValidationError
from scipy.spatial import cKDTree

from sds3d.cameras import orbit
from sds3d.errors import ConfigError
from sds3d.scenes import MeshConfig, file_mesh, mesh
from sds3d.scenes.base import RenderContext
from sds3d.scenes.optimizer import OptimConfig, build_optimizer


def make(body: trimesh.Trimesh, path: Path, **options: Any) -> Any:
    body.export(path)
    config = MeshConfig(source={"path": str(path), "up": "z", "front": "x"}, **options)
    return config.build(torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_mesh, "POINTS", 2000)
    monkeypatch.setattr(file_mesh, "FIT_STEPS", 60)


def test_a_fixed_mesh_is_lit_by_its_own_normals_and_has_no_borders_at_seams(tmp_path: Path) -> None:
    """A box has 12 triangles with corners of their own: each side is flat, and edges within one are no outlines."""
    light = {"direction": (0, 0, 1), "ambient": 0.2, "diffuse": 0.8}
    scene = make(trimesh.creation.box((1, 1, 1)), tmp_path / "a.stl", geometry="fixed", light=light)
    assert (scene._edges[:, 3] >= 0).all()
    with torch.no_grad():
        above = scene.render(orbit(1, elevation_deg=89.9, size=32), torch.zeros(1, 3)).rgb[0, 12:20, 12:20]
        front = scene.render(orbit(1, elevation_deg=0.0, size=32), torch.zeros(1, 3)).rgb[0, 12:20, 12:20]
    assert torch.allclose(above, torch.full_like(above, 0.5), atol=0.05)  # a grey field in full light
    assert torch.allclose(front, torch.full_like(front, 0.1), atol=0.02)


def test_of_a_fixed_mesh_only_the_colours_move_and_are_saved(tmp_path: Path) -> None:
    scene = make(trimesh.creation.icosphere(2), tmp_path / "a.ply", geometry="fixed")
    before = scene.vertices().clone()
    assert all(name.startswith("color_field.") or name == "finished" for name in scene.state_dict())
    optimizer = build_optimizer(OptimConfig(), scene, None, [])
    out = scene.render(orbit(1, size=16), torch.zeros(1, 3), RenderContext(0.5, (), torch.Generator().manual_seed(0)))
    (out.rgb - 1).square().mean().backward()
    optimizer.step()
    scene.after_step(0, 1, out, optimizer)
    assert torch.equal(scene.vertices(), before)
    assert scene.color_field.table.grad.abs().sum() > 0
    assert scene.regularizers(out) == {}


def test_a_fixed_mesh_finds_its_palette_half_way_and_pays_for_its_borders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh, "COLORED_POINTS", 500)
    scene = make(trimesh.creation.icosphere(2), tmp_path / "a.ply", geometry="fixed", colors={"palette": True})
    assert [group.name for group in scene.param_groups()] == ["colors", "palette"]
    optimizer = build_optimizer(OptimConfig(), scene, None, [])
    for step, found in ((0, False), (1, True)):
        context = RenderContext(step / 4, frozenset({"border"}), torch.Generator().manual_seed(0))
        out = scene.render(orbit(1, size=16), torch.zeros(1, 3), context)
        assert scene.regularizers(out).keys() == {"border"}
        scene.after_step(step, 4, out, optimizer)
        assert scene.color_field.has_palette is found


def test_a_free_mesh_begins_as_the_files_surface_in_its_colours(tmp_path: Path) -> None:
    body = trimesh.creation.icosphere(4)
    body.visual.vertex_colors = np.where(body.vertices[:, 2:] > 0, [[250, 20, 20, 255]], [[20, 20, 250, 255]])
    scene = make(body, tmp_path / "a.ply")
    vertices, faces = scene.surface()
    assert len(faces) == len(body.faces)  # even enough: kept
    assert cKDTree(0.88 * body.vertices).query(vertices)[0].max() < 1e-3
    colors = scene.color(torch.tensor([[0.0, 0.0, 0.88], [0.0, 0.0, -0.88]]))
    assert torch.allclose(colors, torch.tensor([[250, 20, 20], [20, 20, 250]]) / 255, atol=0.1)


def test_triangles_that_do_not_suit_are_made_anew(tmp_path: Path) -> None:
    scene = make(trimesh.creation.box((1, 1, 1)), tmp_path / "a.stl")
    vertices, faces = scene.surface()
    assert file_mesh.FEWEST < len(faces) < file_mesh.MOST
    assert vertices.abs().max() == pytest.approx(0.88 / np.sqrt(3), rel=1e-3)
    assert trimesh.Trimesh(vertices, faces).volume == pytest.approx((2 * 0.88 / np.sqrt(3)) ** 3, rel=1e-2)


def test_open_surfaces_can_be_painted_but_not_moved(tmp_path: Path) -> None:
    body = trimesh.creation.icosphere(2)
    body.update_faces(body.triangles_center[:, 2] < 0.5)
    make(body, tmp_path / "a.ply", geometry="fixed")
    with pytest.raises(ConfigError, match="borders of holes"):
        make(body, tmp_path / "a.ply")


def test_fixed_needs_a_file() -> None:
    with pytest.raises(ValidationError, match="needs a file"):
        MeshConfig(geometry="fixed")
