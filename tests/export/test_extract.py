from dataclasses import replace

import numpy as np
import pytest
import torch

from sds3d.cameras import orbit
from sds3d.errors import ExportError
from sds3d.export.extract import ExportConfig, extract_mesh
from sds3d.export.formats import check_geometry
from sds3d.export.grid import Grid, sample_density
from sds3d.export.render_mesh import rasterize_mesh
from sds3d.export.surface import is_solid
from sds3d.export.surface_search import KINDS, Choice, best_choices, candidates, fit_to
from sds3d.export.views import SceneViews, render_views
from sds3d.metrics.image import mask_iou
from sds3d.metrics.mesh import enclosed_volume

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

SMALL = ExportConfig(resolution=40, faces=4000, color_size=64, color="vertex")


@pytest.mark.slow
def test_is_one_closed_piece_without_the_floaters(mesh):
    stats = check_geometry(mesh)
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
    for view, mine in enumerate(rasterize_mesh(mesh.vertices, mesh.faces, cameras)):
        assert mask_iou(torch.from_numpy(mine.face >= 0), torch.from_numpy(seen.opacity[view] > 0.5)) > 0.9
        both = (mine.face >= 0) & (seen.opacity[view] > 0.95)
        corners = mesh.faces[mine.face[both]]
        color = (mesh.colors[corners] * mine.barycentric[both][..., None]).sum(axis=1)
        assert np.abs(color - seen.rgb[view][both] / seen.opacity[view][both][:, None]).mean() < 0.03


@pytest.mark.slow
def test_a_hollow_shell_with_pinholes_becomes_solid():
    generator = torch.Generator().manual_seed(0)
    shell = torch.nn.functional.normalize(torch.randn(1500, 3, generator=generator), dim=-1) * 0.5
    mesh = extract_mesh(scene_of(cluster(shell, (0.5, 0.5, 0.5))), SMALL)
    assert check_geometry(mesh).pieces == 1
    assert 4 / 3 * np.pi * 0.5**3 < check_geometry(mesh).volume < 4 / 3 * np.pi * 0.57**3


@pytest.fixture(scope="module")
def views(clean_scene):
    return render_views(clean_scene, orbit(6, elevation_deg=20, size=64))


@pytest.fixture(scope="module")
def found(clean_scene, views):
    return candidates(sample_density(clean_scene, np.full(3, -0.8), np.full(3, 0.8), 40).blurred(0.014), views)


def test_the_best_level_follows_the_unit_of_the_density(found, views):
    (choice,) = best_choices(found, views, ("density",), None)
    scaled = replace(found, grid=Grid(100 * found.grid.density, found.grid.origin, found.grid.spacing))
    (other,) = best_choices(scaled, views, ("density",), None)
    assert other.level == pytest.approx(100 * choice.level, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_of_each_kind_fits_and_a_wrong_one_does_not(found, views, kind):
    (choice,) = best_choices(found, views, (kind,), None)
    good = fit_to(found.surface(choice)[0], views)
    assert good.silhouette_iou > 0.85
    wrong = {"density": 0.05, "carved": 20.0, "depth": 0.05}[kind]
    bad = found.surface(replace(choice, level=choice.level * wrong))
    assert fit_to(bad[0], views).score < good.score - 0.02
    assert found.surface(replace(choice, level=1e9 if kind != "depth" else -1.0)) is None


def test_a_level_with_no_surface_leaves_no_choice(found, views):
    assert best_choices(found, views, ("density",), 1e9) == []


def test_a_chosen_level_is_taken_and_one_that_is_too_high_is_refused(scene):
    def volume(level):
        return check_geometry(extract_mesh(scene, SMALL.model_copy(update={"level": level}))).volume

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


def test_an_empty_scene_is_refused():
    empty = scene_of(cluster(torch.zeros(0, 3), (0.5, 0.5, 0.5)))
    with pytest.raises(ExportError, match=r"the scene is empty, it has no means \(start the run again"):
        extract_mesh(empty, SMALL)


def test_one_floating_splat_is_refused():
    speck = cluster(torch.tensor([[0.5, 0.3, 0.2]]), (0.5, 0.5, 0.5), opacity=0.99)
    speck["raw_scales"] -= 1.0
    with pytest.raises(ExportError, match="across, where 1 to 2 is usual"):
        check_geometry(extract_mesh(scene_of(speck), SMALL))


@pytest.mark.slow
def test_a_scene_larger_than_the_box_is_refused():
    generator = torch.Generator().manual_seed(0)
    large = cluster(ball_points(600, (0.0, 0.0, 0.0), 1.3, generator), (0.5, 0.5, 0.5), opacity=0.9)
    large["raw_scales"] += 1.5
    with pytest.raises(ExportError, match=r"larger than the box of -1\.15 to 1\.15.*learning rates"):
        extract_mesh(scene_of(large), ExportConfig(resolution=24, color_size=32, color="vertex"))


def test_a_coarse_grids_fields_save_most_of_the_work_and_change_no_surface(clean_scene, views, monkeypatch):
    low, high = np.full(3, -0.8), np.full(3, 0.8)
    grid = sample_density(clean_scene, low, high, 60).blurred(0.014)
    coarse = candidates(sample_density(clean_scene, low, high, 30).blurred(0.014), views)
    asked, project = [], SceneViews.project
    monkeypatch.setattr(SceneViews, "project", lambda *a: (asked.append(len(a[2])), project(*a))[1])
    whole, count = candidates(grid, views), sum(asked)
    quick = candidates(grid, views, coarse)
    assert sum(asked) - count < 0.8 * count
    for kind, level in (("density", 0.3), ("carved", 0.3), ("depth", 0.01)):
        (one, _), (other, _) = (fields.surface(Choice(kind, level)) for fields in (whole, quick))
        assert abs(enclosed_volume(*one) / enclosed_volume(*other) - 1) < 1e-3
