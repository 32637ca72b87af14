"""A mesh has the tunnels that the renders show, and no others."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from sds3d.errors import ExportError
from sds3d.export.extract import ExportConfig, extract_mesh
from sds3d.export.formats import verification_cameras, write_verified
from sds3d.export.mesh import Mesh
from sds3d.export.render_mesh import render_mesh
from sds3d.export.surface import closed_surface, is_solid
from sds3d.export.tunnels import grid_tunnels, with_tunnels_closed
from sds3d.export.views import opening_labels
from sds3d.metrics.mesh import mesh_statistics, tunnel_count
from sds3d.scenes.gaussians import Gaussians

from .conftest import ball_points, box_points, cluster, scene_of

SMALL = ExportConfig(resolution=48, faces=4000, color_size=64, color="vertex")
GREY = (0.5, 0.5, 0.5)


def grid(size: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij"))


def ball(radius: float = 0.7) -> np.ndarray:
    x, y, z = grid()
    return x**2 + y**2 + z**2 < radius**2


def ring(radius: float = 0.5, thickness: float = 0.25) -> np.ndarray:
    x, y, z = grid()
    return (np.hypot(x, y) - radius) ** 2 + z**2 < thickness**2


def frame() -> np.ndarray:
    """A window with four panes that are open."""
    x, y, z = grid()
    bars = np.logical_or.reduce([np.abs(axis - at) < 0.1 for axis in (x, y) for at in (-0.7, 0.0, 0.7)])
    return bars & (np.abs(x) < 0.8) & (np.abs(y) < 0.8) & (np.abs(z) < 0.15)


def two_rings() -> np.ndarray:
    x, y, z = grid()
    side = np.abs(x) - 0.5
    return (np.hypot(side, y) - 0.25) ** 2 + z**2 < 0.12**2


def cup() -> np.ndarray:
    """Hollow, with a narrow mouth at the top."""
    x, y, z = grid()
    radius = np.sqrt(x**2 + y**2 + z**2)
    return (radius < 0.8) & (radius > 0.6) & ~((np.hypot(x, y) < 0.15) & (z > 0))


def with_pinholes(solid: np.ndarray, *places: tuple[float, float]) -> np.ndarray:
    """Drilled along x at these places (y, z), three cells wide."""
    _, y, z = grid()
    holes = np.logical_or.reduce([np.maximum(np.abs(y - at[0]), np.abs(z - at[1])) < 0.08 for at in places])
    return solid & ~holes


SHAPES = [(ball, 0), (ring, 1), (frame, 4), (two_rings, 2), (cup, 0)]


@pytest.mark.parametrize(("shape", "tunnels"), SHAPES)
def test_tunnels_of_cells_and_of_their_surface_are_those_of_the_shape(shape, tunnels) -> None:
    solid = shape()
    vertices, faces = closed_surface(np.where(solid, 1.0, 0.0), 0.5, np.zeros(3), 1.0)
    assert grid_tunnels(solid) == tunnels
    assert tunnel_count(vertices, faces) == tunnels
    assert mesh_statistics(vertices, faces, np.zeros_like(vertices)).tunnels == tunnels


def test_tunnels_of_trimesh_s_shapes_and_of_nothing() -> None:
    for body, tunnels in [(trimesh.creation.torus(0.5, 0.2), 1), (trimesh.creation.annulus(0.2, 0.5, 1), 1)]:
        assert tunnel_count(body.vertices, body.faces) == tunnels
        assert 1 - body.euler_number // 2 == tunnels
    assert tunnel_count(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64)) == 0


def test_what_nobody_sees_is_closed_and_the_rest_is_as_it_was() -> None:
    drilled = with_pinholes(ball(), (0.2, 0.2), (-0.3, 0.1), (0.0, -0.4))
    assert grid_tunnels(drilled) == 3
    closed = with_tunnels_closed(drilled, np.ones_like(drilled))
    assert grid_tunnels(closed) == 0
    assert (drilled & ~closed).sum() == 0
    assert (closed & ~ball()).sum() < 0.01 * ball().sum()


def test_what_a_view_sees_stays_open() -> None:
    drilled = with_pinholes(ball(), (0.2, 0.2), (-0.3, 0.1))
    hidden = ball() & with_pinholes(np.ones_like(drilled), (0.2, 0.2))
    closed = with_tunnels_closed(drilled, hidden)
    assert grid_tunnels(closed) == 1
    assert not (closed & ~drilled & ~hidden).any()


@pytest.mark.parametrize(("shape", "tunnels"), SHAPES)
def test_what_has_the_right_tunnels_stays_as_it_is(shape, tunnels) -> None:
    solid = shape()
    assert np.array_equal(with_tunnels_closed(solid, solid), solid)
    if tunnels == 0:
        assert np.array_equal(with_tunnels_closed(solid, np.ones_like(solid)), solid)


def test_pinholes_in_the_wall_of_a_cup_are_closed_and_its_mouth_is_not() -> None:
    drilled = with_pinholes(cup(), (0.3, 0.0), (-0.3, 0.1))
    assert grid_tunnels(drilled) == 4  # each goes through two walls
    closed = with_tunnels_closed(drilled, np.ones_like(drilled))
    assert grid_tunnels(closed) == 0
    x, y, z = grid()
    mouth = (np.hypot(x, y) < 0.1) & (z > 0.5) & (z < 0.75)
    inside = x**2 + y**2 + z**2 < 0.5**2
    assert not (closed & (mouth | inside)).any()


def test_a_shell_full_of_gaps_becomes_a_ball() -> None:
    x, y, z = grid()
    radius = np.sqrt(x**2 + y**2 + z**2)
    shell = (radius < 0.7) & (radius > 0.5) & (np.random.default_rng(0).random(radius.shape) > 0.4)
    everywhere = np.ones_like(shell)
    before, after = (
        closed_surface(np.where(shell, 1.0, 0.0), 0.5, np.zeros(3), 1.0, hidden) for hidden in (None, everywhere)
    )
    assert tunnel_count(*before) > 100
    assert tunnel_count(*after) <= 1  # of cells that touch in corners only
    assert is_solid(after)


def test_loose_cells_are_left_out_where_tunnels_are_closed() -> None:
    solid = with_pinholes(ball(0.6), (0.2, 0.2))
    solid[2:4, 2:4, 2:4] = True
    vertices, faces = closed_surface(np.where(solid, 1.0, 0.0), 0.5, np.zeros(3), 1.0, np.ones_like(solid))
    assert (tunnel_count(vertices, faces), vertices.min() > 5) == (0, True)


def test_openings_are_regions_of_background_inside_that_are_no_pinholes() -> None:
    solid = np.zeros((60, 60), dtype=bool)
    assert opening_labels(solid).max() == 0
    solid[5:55, 5:55] = True
    solid[10:20, 10:20] = solid[30:40, 10:30] = solid[40, 45] = False
    solid[50:, 50:52] = False  # open to the outside
    labels = opening_labels(solid)
    assert labels.max() == 2
    assert np.bincount(labels.ravel()).tolist()[1:] == [100, 200]


def donut_points(count: int, generator: torch.Generator, radius: float = 0.4, thickness: float = 0.13) -> torch.Tensor:
    around = 2 * math.pi * torch.rand(count, generator=generator)
    middle = radius * torch.stack([around.cos(), around.sin(), torch.zeros(count)], dim=1)
    return middle + ball_points(count, (0.0, 0.0, 0.0), thickness, generator)


def mug_points(generator: torch.Generator) -> torch.Tensor:
    """A hollow cylinder with a bottom, open at the top, and half a ring at its side."""
    around, up = 2 * math.pi * torch.rand(4000, generator=generator), torch.rand(4000, generator=generator)
    wall = torch.stack([0.35 * around.cos(), 0.35 * around.sin(), up - 0.5], dim=1)
    bottom = ball_points(900, (0.0, 0.0, 0.0), 0.35, generator) * torch.tensor([1.0, 1.0, 0.05]) - torch.tensor(
        [0.0, 0.0, 0.5]
    )
    turn = math.pi * (torch.rand(900, generator=generator) - 0.5)
    handle = torch.stack([0.35 + 0.3 * turn.cos(), torch.zeros(900), 0.3 * turn.sin()], dim=1)
    return torch.cat([wall, bottom, handle + 0.03 * torch.randn(900, 3, generator=generator)])


def window_points(generator: torch.Generator) -> torch.Tensor:
    """A frame with a cross in it, seen through from the front."""
    bars = []
    for at in (-0.5, 0.0, 0.5):
        bars.append(box_points(900, (-0.06, at - 0.06, -0.56), (0.06, at + 0.06, 0.56), generator))
        bars.append(box_points(900, (-0.06, -0.56, at - 0.06), (0.06, 0.56, at + 0.06), generator))
    return torch.cat(bars)


def spongy_ball(generator: torch.Generator) -> torch.Tensor:
    """Few splats, so that there are gaps between them all over."""
    shell = torch.nn.functional.normalize(torch.randn(260, 3, generator=generator), dim=-1) * 0.45
    return torch.cat([shell, ball_points(260, (0.0, 0.0, 0.0), 0.42, generator)])


def seeded(make) -> Gaussians:
    return scene_of(cluster(make(torch.Generator().manual_seed(0)), GREY, 0.8))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("points", "tunnels", "pieces"),
    [
        (lambda g: ball_points(1500, (0.0, 0.0, 0.0), 0.5, g), 0, 1),
        (lambda g: donut_points(2500, g), 1, 1),
        (mug_points, 1, 1),
        (window_points, 4, 1),
        (spongy_ball, 0, 1),
        (lambda g: torch.cat([ball_points(900, (0.0, at, 0.0), 0.25, g) for at in (-0.4, 0.4)]), 0, 2),
    ],
    ids=["ball", "donut", "mug", "window", "spongy ball", "two balls"],
)
def test_a_scene_s_mesh_has_the_tunnels_that_are_seen(points, tunnels, pieces) -> None:
    mesh = extract_mesh(seeded(points), SMALL)
    stats = mesh_statistics(mesh.vertices, mesh.faces, mesh.colors)
    assert (stats.tunnels, stats.pieces) == (tunnels, pieces)
    assert is_solid((mesh.vertices.astype(np.float64), mesh.faces))


@pytest.mark.slow
def test_the_mesh_is_the_same_every_time() -> None:
    config = SMALL.model_copy(update={"resolution": 24, "faces": 1500, "color_size": 48})
    first, second = (extract_mesh(seeded(spongy_ball), config) for _ in range(2))
    assert np.array_equal(first.vertices, second.vertices)
    assert np.array_equal(first.faces, second.faces)
    assert np.array_equal(first.colors, second.colors)


def drilled_block(count: int) -> Mesh:
    """A block with so many holes through it, from front to back."""
    block = trimesh.creation.box((0.1, 1.6, 0.6))
    at = (np.arange(count) + 0.5) / count * 1.5 - 0.75
    drills = [trimesh.creation.box((1.0, 0.6 / count, 0.3)).apply_translation((0, y, 0)) for y in at]
    body = trimesh.boolean.difference([block, *drills], engine="manifold")
    return Mesh(np.float32(body.vertices), np.int64(body.faces), np.full((len(body.vertices), 3), 0.5, np.float32))


def test_the_figures_have_the_tunnels_and_holes_that_are_seen_are_no_reason_to_warn(tmp_path) -> None:
    block = drilled_block(8)
    truth = render_mesh(block, verification_cameras())
    assert truth.openings >= 6
    stats, figures = write_verified(block, "glb", tmp_path / "mesh.glb", {}, truth)
    assert (stats.tunnels, figures.warnings) == (8, [])
    assert figures.to_dict()["false_tunnels"] == 8 - truth.openings


def test_tunnels_that_the_scene_does_not_show_are_warned_of_from_the_fourth_on(tmp_path) -> None:
    truth = render_mesh(drilled_block(1), verification_cameras())
    full = replace(truth, opacity=np.stack([opacity.copy() for opacity in truth.opacity]))
    full.opacity[opening_labels_of(truth) > 0] = 1.0
    for count, warned in ((3, False), (4, True)):
        stats, figures = write_verified(drilled_block(count), "glb", tmp_path / "mesh.glb", {}, full)
        assert (stats.tunnels, figures.false_tunnels) == (count, count)
        assert any("4 tunnels that the scene's renders do not show" in text for text in figures.warnings) == warned


def opening_labels_of(views) -> np.ndarray:
    return np.stack([opening_labels(solid) for solid in views.silhouettes])


def test_twenty_tunnels_that_the_scene_does_not_show_are_refused(tmp_path) -> None:
    truth = render_mesh(drilled_block(1), verification_cameras())
    with pytest.raises(ExportError, match=r"a sponge: it has 21 tunnels, the scene's renders show 1 \(try a"):
        write_verified(drilled_block(21), "glb", tmp_path / "mesh.glb", {}, truth)
    assert not list(tmp_path.iterdir())
    write_verified(drilled_block(20), "glb", tmp_path / "mesh.glb", {}, truth)
