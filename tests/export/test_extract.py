import numpy as np
import pytest
import torch

from sds3d.cameras import orbit
from sds3d.errors import ExportError
from sds3d.export import ExportConfig, check_mesh, extract_mesh
from sds3d.export.extract import best_level, sample_density
from sds3d.export.rasterize_mesh import rasterize_mesh
from sds3d.export.surface import is_solid
from sds3d.export.views import render_views
from sds3d.metrics import mask_iou

from .conftest import (
    BALL_CENTER,
    BALL_RADIUS,
    BOX_HIGH,
    BOX_LOW,
    SPLAT_SIZE,
    ball_points,
    box_points,
    cluster,
    scene_of,
)

SMALL = ExportConfig(resolution=40, faces=4000, color_size=64)


def test_is_one_closed_piece_without_the_floaters(mesh):
    stats = check_mesh(mesh)
    assert stats.pieces == 1
    assert stats.watertight
    assert stats.volume > 0
    assert is_solid((mesh.vertices.astype(np.float64), mesh.faces))
    assert 0 < mesh.dropped_share < 0.1


def test_has_the_size_and_place_of_the_object(mesh):
    low = np.minimum(BOX_LOW, np.array(BALL_CENTER) - BALL_RADIUS)
    high = np.maximum(BOX_HIGH, np.array(BALL_CENTER) + BALL_RADIUS)
    assert np.abs(mesh.vertices.min(axis=0) - low).max() < 3 * SPLAT_SIZE
    assert np.abs(mesh.vertices.max(axis=0) - high).max() < 3 * SPLAT_SIZE


def test_has_the_colours_of_its_parts(mesh):
    top = mesh.colors[mesh.vertices[:, 2] > BALL_CENTER[2]]
    bottom = mesh.colors[mesh.vertices[:, 2] < -0.1]
    assert np.abs(top - [0.1, 0.2, 0.85]).mean(axis=0).max() < 0.04
    assert np.abs(bottom - [0.9, 0.1, 0.1]).mean(axis=0).max() < 0.04


def test_looks_like_the_scenes_renders_without_floaters(clean_scene, mesh):
    cameras = orbit(5, elevation_deg=25, size=96)
    seen = render_views(clean_scene, cameras)
    for view in range(5):
        mine = rasterize_mesh(mesh.vertices, mesh.faces, cameras, view)
        assert mask_iou(torch.from_numpy(mine.face >= 0), torch.from_numpy(seen.opacity[view] > 0.5)) > 0.9
        both = (mine.face >= 0) & (seen.opacity[view] > 0.95)
        corners = mesh.faces[mine.face[both]]
        color = (mesh.colors[corners] * mine.barycentric[both][..., None]).sum(axis=1)
        assert np.abs(color - seen.rgb[view][both] / seen.opacity[view][both][:, None]).mean() < 0.03
    assert 0.7 < mesh.silhouette_iou < 0.95  # it is measured with the floaters, which the mesh has not


def test_a_hollow_shell_with_pinholes_becomes_solid():
    generator = torch.Generator().manual_seed(0)
    shell = torch.nn.functional.normalize(torch.randn(1500, 3, generator=generator), dim=-1) * 0.5
    mesh = extract_mesh(scene_of(cluster(shell, (0.5, 0.5, 0.5))), SMALL)
    assert check_mesh(mesh).pieces == 1
    assert 4 / 3 * np.pi * 0.5**3 < check_mesh(mesh).volume < 4 / 3 * np.pi * 0.57**3
    assert mesh.silhouette_iou > 0.95


def test_level_follows_the_unit_of_the_density(scene):
    views = render_views(scene, orbit(4, elevation_deg=20, size=64))
    grid = sample_density(scene, np.full(3, -0.8), np.full(3, 0.8), 32)
    level = best_level(grid, views)
    scaled = type(grid)(100 * grid.density, grid.origin, grid.spacing)
    assert best_level(scaled, views) == pytest.approx(100 * level, rel=1e-4)


def test_level_is_better_than_a_wrong_one(scene):
    views = render_views(scene, orbit(4, elevation_deg=20, size=64))
    grid = sample_density(scene, np.full(3, -0.8), np.full(3, 0.8), 40)
    level = best_level(grid, views)

    def iou(at):
        surface = grid.surface(at)[0]
        masks = [torch.from_numpy(rasterize_mesh(*surface, views.cameras, view).face >= 0) for view in range(4)]
        return np.mean([mask_iou(mask, torch.from_numpy(views.opacity[k] > 0.5)) for k, mask in enumerate(masks)])

    assert iou(level) > iou(level / 30) + 0.02
    assert iou(level) > iou(level * 10) + 0.02


def test_a_chosen_level_is_taken_and_one_that_is_too_high_is_refused(scene):
    def volume(level):
        return check_mesh(extract_mesh(scene, SMALL.model_copy(update={"level": level}))).volume

    assert volume(0.3) > 1.2 * volume(2.0)
    with pytest.raises(ExportError, match=r"level = 1e\+06 is above the scene's density everywhere \(it reaches"):
        volume(1e6)


def test_scenes_without_a_grid_of_their_own_are_sampled_point_by_point(scene):
    class PointScene:
        density, color, param_groups = scene.density, scene.color, scene.param_groups
        render, regularizers, after_step = scene.render, scene.regularizers, scene.after_step

    low, high = np.full(3, -0.4), np.array([0.4, 0.2, 0.0])
    fast, slow = sample_density(scene, low, high, 12), sample_density(PointScene(), low, high, 12)
    assert fast.density.shape == slow.density.shape
    assert fast.spacing == slow.spacing
    assert np.abs(fast.density - slow.density).max() < 0.25
    assert np.abs(fast.density - slow.density).mean() < 0.03


def test_an_invisible_scene_is_refused():
    generator = torch.Generator().manual_seed(0)
    fog = cluster(ball_points(100, (0.0, 0.0, 0.0), 0.5, generator), (0.5, 0.5, 0.5), opacity=0.004)
    with pytest.raises(ExportError, match="no object"):
        extract_mesh(scene_of(fog), SMALL)


def test_scattered_parts_are_refused():
    generator = torch.Generator().manual_seed(0)
    places = [(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]
    parts = [cluster(ball_points(150, place, 0.1, generator), (0.5, 0.5, 0.5)) for place in places]
    with pytest.raises(ExportError, match=r"covers 1\d% of"):
        extract_mesh(scene_of(*parts), SMALL)


def test_a_diverged_scene_is_refused_by_name():
    generator = torch.Generator().manual_seed(0)
    broken = scene_of(cluster(box_points(100, BOX_LOW, BOX_HIGH, generator), (0.5, 0.5, 0.5)))
    with torch.no_grad():
        broken.raw_colors[3, 1] = torch.nan
    with pytest.raises(ExportError, match="colors are not finite"):
        extract_mesh(broken, SMALL)


def test_the_same_scene_gives_the_same_mesh(scene):
    first, second = extract_mesh(scene, SMALL), extract_mesh(scene, SMALL)
    assert np.array_equal(first.vertices, second.vertices)
    assert np.array_equal(first.faces, second.faces)
    assert np.array_equal(first.colors, second.colors)
