import numpy as np

from sds3d.cameras import orbit
from sds3d.export.views import join_views, render_views, select_views, views_all_around


def test_parts_of_a_batch_are_the_batch(scene):
    cameras = orbit(6, size=24)
    whole = render_views(scene, cameras)
    assert whole.rgb.shape == (6, 24, 24, 3)
    alone = render_views(scene, select_views(cameras, slice(5, 6)))
    assert np.array_equal(alone.rgb[0], whole.rgb[5])
    joined = join_views([select_views(cameras, slice(0, 2)), select_views(cameras, slice(2, 6))])
    assert (joined.camera_to_world == cameras.camera_to_world).all()
    assert len(joined) == 6


def test_depth_is_the_mean_of_what_is_seen(clean_scene):
    seen = render_views(clean_scene, orbit(1, elevation_deg=0, distance=3.0, size=48))
    solid = seen.opacity[0] > 0.99
    assert np.all((seen.depth[0][solid] > 2.5) & (seen.depth[0][solid] < 3.1))
    assert np.isinf(seen.depth[0, 0, 0])


def test_all_around_means_from_below_too(scene):
    elevation = views_all_around(scene, 16).cameras.elevation
    assert elevation.min() < -0.5
    assert elevation.max() > 1.0
