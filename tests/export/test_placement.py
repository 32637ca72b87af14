"""Where an object stands in its file: as another program reads it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from sds3d.cameras import orbit
from sds3d.errors import ConfigError
from sds3d.export.extract import ExportConfig
from sds3d.export.formats import MESH_FORMATS, verification_cameras, write_verified
from sds3d.export.info import read_info
from sds3d.export.placement import WORLD_TO_UP, Placement, placement, turned_splats
from sds3d.export.render_mesh import render_mesh
from sds3d.scenes import GaussiansConfig

from .body import textured_body

__all__ = ["textured_body"]


@pytest.fixture(scope="module")
def body(textured_body):
    """Off the middle, and no side as long as another."""
    return replace(textured_body, vertices=textured_body.vertices * np.float32([0.5, 0.7, 0.9]) + np.float32(0.05))


@pytest.fixture(scope="module")
def truth(body):
    return render_mesh(body, verification_cameras())


@pytest.mark.parametrize("name", ["glb", "obj", "ply", "stl"])
def test_size_and_pivot_are_those_of_the_file_and_the_checks_hold(body, truth, name, tmp_path) -> None:
    path = tmp_path / f"mesh.{name}"
    stats, figures = write_verified(body, name, path, {}, truth, ExportConfig(size=80, pivot="base"))
    read = trimesh.load(path, force="mesh", process=False)
    sides = np.ptp(read.vertices, axis=0)
    assert sides.max() == pytest.approx(80, rel=1e-5)
    up = 2 if name in ("ply", "stl") else 1
    assert sides[up] / 80 == pytest.approx(np.ptp(body.vertices[:, 2]) / np.ptp(body.vertices, axis=0).max(), rel=1e-4)
    middle = (read.vertices.min(axis=0) + read.vertices.max(axis=0)) / 2
    assert read.vertices[:, up].min() == pytest.approx(0, abs=1e-4)
    assert np.delete(middle, up) == pytest.approx([0, 0], abs=1e-4)
    assert stats.extent == pytest.approx(np.ptp(body.vertices, axis=0), rel=1e-4), "figures are the world's"
    assert figures.silhouette_iou > 0.99
    assert figures.scale == pytest.approx(80 / np.ptp(body.vertices, axis=0).max(), rel=1e-5)
    if name != "stl":  # whose header has no room for it
        again = Placement.of(read_info(path).made).undo(MESH_FORMATS[name].read(path))
        assert np.allclose(again.vertices.min(axis=0), body.vertices.min(axis=0), atol=1e-5)
        assert np.allclose(again.vertices.max(axis=0), body.vertices.max(axis=0), atol=1e-5)


@pytest.mark.parametrize("name", MESH_FORMATS)
@pytest.mark.parametrize("up", ["z", "y", "-y"])
def test_up_is_a_turn_where_the_format_leaves_it_open(body, name, up) -> None:
    turn = MESH_FORMATS[name].world_to_file
    placed = placement(body.vertices, turn, up=up)
    assert np.allclose(placed.linear @ placed.linear.T, np.eye(3))
    assert placed.scale == pytest.approx(1)
    if turn is None:  # glTF and USDZ: +y, as they say
        assert np.array_equal(placed.linear, np.eye(3))
    else:
        axis = {"z": [0, 0, 1], "y": [0, 1, 0], "-y": [0, -1, 0]}[up]
        assert (turn @ placed.linear @ [0, 0, 1]).tolist() == axis
    assert np.allclose(placed.undo(placed.place(body)).vertices, body.vertices, atol=1e-6)


def test_without_a_word_nothing_moves(body) -> None:
    placed = placement(body.vertices, WORLD_TO_UP["z"])
    assert np.array_equal(placed.place(body).vertices, body.vertices)
    assert placed.told() == {}


@pytest.mark.parametrize("up", ["y", "-y"])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_turned_splats_look_the_same_from_a_turned_camera(up, degree) -> None:
    generator = torch.Generator().manual_seed(0)
    scene = GaussiansConfig(count=40, sh_degree=degree, rasterizer="torch").build(generator)
    with torch.no_grad():
        for values in scene.splats().values():
            values.add_(0.3 * torch.randn(values.shape, generator=generator))
    cameras, turn = orbit(3, size=24), torch.from_numpy(WORLD_TO_UP[up]).float()
    poses = cameras.camera_to_world.clone()
    poses[:, :3] = turn @ poses[:, :3]
    turned = replace(cameras, camera_to_world=poses)
    with torch.no_grad():
        before = scene.render(cameras, torch.zeros(3, 3)).rgb
        after = turned_splats(scene, up).render(turned, torch.zeros(3, 3)).rgb
    assert before.std() > 0.05
    assert torch.allclose(before, after, atol=2e-4)


def test_splats_stay_as_they_are_with_z_up() -> None:
    scene = GaussiansConfig(count=4).build(torch.Generator().manual_seed(0))
    assert turned_splats(scene, None) is turned_splats(scene, "z") is scene


@pytest.mark.parametrize("options", [{"size": 0}, {"size": -1}, {"pivot": "top"}, {"up": "x"}])
def test_what_is_no_place_is_named(options, small_config) -> None:
    ((name, _),) = options.items()
    with pytest.raises(ConfigError, match=f"export.{name}"):
        small_config(export=options)
