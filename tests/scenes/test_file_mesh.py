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
from sds3d.training.take_over import take_over


def make(body: trimesh.Trimesh, path: Path, **options: Any) -> Any:
    body.export(path)
    config = MeshConfig(source={"path": str(path), "up": "z", "front": "x"}, **options)
    return config.build(torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_mesh, "POINTS", 2000)
    monkeypatch.setattr(file_mesh, "FIT_STEPS", 60)
    monkeypatch.setattr(file_mesh, "FEWEST", 1000)
    monkeypatch.setattr(file_mesh, "FACES", 2500)


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


def rough_ball(path: Path, **options: Any) -> Any:
    """A ball with a lump on every other vertex, as a scene."""
    body = trimesh.creation.icosphere(3)
    lumps = 1 + 0.02 * torch.randn(len(body.vertices), generator=torch.Generator().manual_seed(0)).numpy()
    body.vertices = body.vertices * lumps[:, None]
    body.visual.vertex_colors = np.tile([200, 40, 40, 255], (len(body.vertices), 1))
    return make(body, path, **options)


def pulled(scene: Any, steps: int, weight: float, optimizer: Any = None) -> Any:
    """Steps towards a smooth ball that is a fifth smaller, and blue, with the anchors at `weight`."""
    optimizer = optimizer or build_optimizer(OptimConfig(), scene, None, [])
    for step in range(steps):
        out = scene.render(
            orbit(1, size=8), torch.zeros(1, 3), RenderContext(0.5, (), torch.Generator().manual_seed(0))
        )
        losses, vertices = scene.regularizers(out), out.aux.vertices
        wanted = 0.8 * 0.85 * vertices.detach() / vertices.detach().norm(dim=1, keepdim=True)
        blue = (scene.color_field(vertices.detach()) - torch.tensor([0.1, 0.1, 0.9])).square().mean()
        loss = (vertices - wanted).square().mean() + blue + weight * (losses["anchor"] + losses["anchor_color"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scene.after_step(step, steps, out, optimizer)
    return optimizer


def radius(scene: Any) -> float:
    """The mean over the vertices."""
    return float(scene.vertices().detach().norm(dim=1).mean())


def test_the_anchor_keeps_proportions_and_broad_colours(tmp_path: Path) -> None:
    found = {}
    for weight in (0.0, 100.0):
        scene = rough_ball(tmp_path / "a.ply", smoothness=1.0)
        before, place = radius(scene), scene.vertices().detach()[:1]
        pulled(scene, 25, weight)
        found[weight] = radius(scene) / before, float(scene.color(place)[0, 0])
    assert found[0.0][0] < 0.9
    assert abs(found[100.0][0] - 1) < 0.01
    assert found[0.0][1] < 0.4
    assert abs(found[100.0][1] - 200 / 255) < 0.1


def losses_of(scene: Any) -> Any:
    out = scene.render(orbit(1, size=8), torch.zeros(1, 3), RenderContext(0.5, (), torch.Generator().manual_seed(0)))
    return scene.regularizers(out)


def test_the_anchor_measures_how_far_the_whole_has_moved(tmp_path: Path) -> None:
    """Little of what differs from vertex to vertex; a file without colours anchors none."""
    scene = make(trimesh.creation.icosphere(3), tmp_path / "a.stl")
    assert float(losses_of(scene)["anchor"]) == pytest.approx(0, abs=1e-12)
    assert "anchor_color" not in losses_of(scene)
    vertices, faces = scene.surface()
    scene.set_surface(vertices + torch.tensor([0.0, 0.1, 0.0]), faces, scene.anchor)
    assert float(losses_of(scene)["anchor"]) == pytest.approx(0.01, rel=1e-4)
    noise = 0.1 * torch.randn(vertices.shape, generator=torch.Generator().manual_seed(0))
    scene.set_surface(vertices + noise, faces, scene.anchor)
    assert float(losses_of(scene)["anchor"]) < 0.25 * float(noise.square().sum(-1).mean())
    ball = MeshConfig().build(torch.Generator().manual_seed(0))
    assert not {"anchor", "anchor_color"} & losses_of(ball).keys()


def test_the_anchor_survives_a_finish_a_resume_and_another_smoothness(tmp_path: Path) -> None:
    scene = rough_ball(tmp_path / "a.ply")
    vertices, faces = scene.surface()
    scene.set_surface(vertices + torch.tensor([0.0, 0.0, 0.05]), faces, scene.anchor)
    assert scene.finish() is None
    assert len(scene.anchor) == len(scene.surface()[0]) != len(vertices)
    assert float(losses_of(scene)["anchor"]) == pytest.approx(0.05**2, rel=0.05)  # it remembers where it came from
    assert float(losses_of(scene)["anchor_color"]) < 1e-3
    again = rough_ball(tmp_path / "a.ply")
    again.load_state_dict(scene.state_dict())
    for one in (scene, again):
        pulled(one, 2, 100.0)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in scene.state_dict().items())
    other = rough_ball(tmp_path / "a.ply", smoothness=3.0)
    take_over(scene, other)
    assert float(losses_of(other)["anchor"]) == pytest.approx(float(losses_of(scene)["anchor"]), rel=1e-3)
    loose = MeshConfig().build(torch.Generator().manual_seed(0))
    scene.load_state_dict({**loose.state_dict(), **{k: v for k, v in scene.state_dict().items() if "color" in k}})
    assert scene.anchor is None  # what was saved had none


def test_a_finish_that_is_taken_back_leaves_the_anchor_as_it_was(tmp_path: Path, monkeypatch: Any) -> None:
    scene = rough_ball(tmp_path / "a.ply")
    before = scene.anchor.clone()
    monkeypatch.setattr(mesh, "finish", lambda vertices, faces, count, rounds: (0.5 * vertices, faces))
    assert "outlines would change too much" in scene.finish()
    assert torch.equal(scene.anchor, before)


def test_several_closed_parts_move_as_they_are(tmp_path: Path) -> None:
    """Through one another, and at a corner of both."""
    for place in ((0.4, 0.4, 0.4), (0.75, 0.75, 0.75)):
        small = trimesh.creation.box((0.5, 0.5, 0.5))
        small.apply_translation(place)
        scene = make(trimesh.util.concatenate([trimesh.creation.box((1, 1, 1)), small]), tmp_path / "a.ply")
        assert trimesh.Trimesh(*scene.surface(), process=False).body_count == 2
        scene.finish()
        body = trimesh.Trimesh(*scene.surface(), process=False)
        assert body.body_count == 2
        assert body.is_watertight
