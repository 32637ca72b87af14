import numpy as np
import torch

from sds3d.cameras import orbit, project
from sds3d.export.views import batches, render_views, views_all_around


def test_parts_of_a_batch_are_the_batch(scene):
    cameras = orbit(6, size=24)
    whole = render_views(scene, cameras)
    assert whole.rgb.shape == (6, 24, 24, 3)
    first, second = batches(cameras, 4)
    assert (len(first), len(second)) == (4, 2)
    alone = render_views(scene, second)
    assert np.array_equal(alone.rgb[1], whole.rgb[5])


def test_rings_are_joined_in_their_order(scene):
    seen = views_all_around(scene, 24, {20: 4, 75: 2})
    rings = [render_views(scene, orbit(count, elevation_deg=tilt, size=24)) for tilt, count in ((20, 4), (75, 2))]
    assert np.array_equal(seen.rgb, np.concatenate([ring.rgb for ring in rings]))
    assert np.array_equal(seen.cameras.azimuth, np.concatenate([ring.cameras.azimuth for ring in rings]))


def test_depth_is_the_mean_of_what_is_seen(clean_scene):
    seen = render_views(clean_scene, orbit(1, elevation_deg=0, distance=3.0, size=48))
    solid = seen.opacity[0] > 0.99
    assert np.all((seen.depth[0][solid] > 2.5) & (seen.depth[0][solid] < 3.1))
    assert np.isinf(seen.depth[0, 0, 0])


def test_all_around_means_from_below_too(scene):
    elevation = views_all_around(scene, 16).cameras.elevation
    assert elevation.min() < -0.5
    assert elevation.max() > 1.0


def test_points_land_where_the_cameras_show_them(scene):
    seen = views_all_around(scene, 24, {20: 3})
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    for view in range(3):
        pixels = project(points, seen.cameras)[view]
        places, depth = seen.project(view, points)
        assert torch.allclose((places + 1) * 12, pixels[:, :2], atol=1e-4)
        assert torch.allclose(depth, pixels[:, 2], atol=1e-5)
