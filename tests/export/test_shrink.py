"""The surface is shrunk by how whole images compare: outline and colours."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from sds3d.cameras import orbit
from sds3d.export.colors import INSETS, Colored, best_inset, is_better, moved_inwards, with_colors
from sds3d.export.surface import Surface, is_solid
from sds3d.export.views import SceneViews, render_views
from sds3d.scenes.gaussians import Gaussians

from .conftest import ball_points, cluster, scene_of

RADIUS = 0.4


def ball_mesh(radius: float) -> Surface:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return np.asarray(ball.vertices, dtype=np.float64), np.asarray(ball.faces, dtype=np.int64)


@pytest.fixture(scope="module")
def striped_ball() -> Gaussians:
    """Faint splats all through it, in slices of two colours: it is seen from 0.37 or so on, its colours lie deeper."""
    points = ball_points(6000, (0.0, 0.0, 0.0), RADIUS, torch.Generator().manual_seed(0))
    odd = (points[:, 2] / 0.08).floor() % 2 == 1
    return scene_of(cluster(points[odd], (0.9, 0.9, 0.9), 0.2), cluster(points[~odd], (0.8, 0.1, 0.1), 0.2))


@pytest.fixture(scope="module")
def coloured(striped_ball: Gaussians) -> Colored:
    views = render_views(striped_ball, orbit(1, size=8))
    return with_colors(striped_ball, ball_mesh(RADIUS), views, views)


def test_moving_inwards_keeps_a_ball_a_ball() -> None:
    surface = ball_mesh(RADIUS)
    moved = moved_inwards(surface, 0.01)
    radius = np.linalg.norm(moved[0], axis=1)
    assert radius.mean() == pytest.approx(RADIUS - 0.01 * 2 * RADIUS, rel=1e-3)
    assert radius.std() < 1e-3
    assert moved[1] is surface[1]
    assert is_solid(moved)


def test_a_surface_too_far_outside_is_moved_to_what_is_seen(striped_ball: Gaussians) -> None:
    views, reference = (render_views(striped_ball, orbit(8, elevation_deg=tilt, size=96)) for tilt in (10, 30))
    radius = np.sqrt((reference.opacity > 0.5).sum(axis=(1, 2)).mean() / np.pi)  # pixels
    outline = radius / float(reference.cameras.intrinsics[0, 0, 0]) * 3.0  # world units, from 3 away
    outside = ball_mesh(outline * 1.012)
    found = best_inset(striped_ball, outside, views, reference)
    assert found.error < with_colors(striped_ball, outside, views, reference).error
    size = np.ptp(found.surface[0][:, 2]) / np.ptp(outside[0][:, 2])
    assert 1 - 2 * INSETS[-1] - 1e-4 <= size < 1 - 1e-3
    inside = ball_mesh(outline * 0.9)
    assert best_inset(striped_ball, inside, views, reference).surface is inside


@pytest.mark.parametrize(
    ("outer", "inner", "better"),
    [
        ((3e-3, 25, 0.99), (2e-3, 26, 0.98), True),
        ((3e-3, 25, 0.99), (4e-3, 26, 0.98), False),  # good as it is
        ((3e-3, 20, 0.99), (4e-3, 21, 0.98), True),  # the colours are not good yet
        ((3e-3, 20, 0.96), (4e-3, 21, 0.94), False),  # not at the outline's cost
        ((3e-3, 20, 0.96), (2e-3, 21, 0.94), True),
    ],
)
def test_a_step_inwards_is_worth_a_better_picture_or_colours_that_become_good(coloured, outer, inner, better) -> None:
    def scored(error: float, psnr: float, silhouette_iou: float) -> Colored:
        return replace(coloured, error=float(error), psnr=float(psnr), silhouette_iou=float(silhouette_iou))

    assert is_better(scored(*inner), scored(*outer)) == better


def test_the_pictures_error_sees_outlines_and_colours() -> None:
    cameras = orbit(1, size=2)

    def views(rgb: float, opacity: float) -> SceneViews:
        return SceneViews(
            cameras,
            np.full((1, 2, 2, 3), rgb * opacity, dtype=np.float32),
            np.full((1, 2, 2), opacity, dtype=np.float32),
            np.full((1, 2, 2), np.inf, dtype=np.float32),
        )

    assert views(0.5, 1.0).error(views(0.5, 1.0)) == 0
    assert views(0.5, 1.0).error(views(0.3, 1.0)) == pytest.approx(0.2**2)
    # something black where nothing is shows before grey and white; something white before black and grey
    assert views(0.0, 1.0).error(views(0.0, 0.0)) == pytest.approx((0 + 0.25 + 1) / 3)
    assert views(1.0, 1.0).error(views(1.0, 0.0)) == pytest.approx((1 + 0.25 + 0) / 3)
