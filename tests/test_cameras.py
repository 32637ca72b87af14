"""Conventions: +z up, azimuth 0 = +x, counter-clockwise from above; OpenCV axes; pixel centres at +0.5."""

import math

import pytest
import torch
from pydantic import ValidationError

from sds3d.cameras import (
    CamerasConfig,
    intrinsics,
    look_at,
    orbit,
    orbit_cameras,
    pixel_directions,
    sample_cameras,
    turn_cameras,
)


def project(cameras, view, point):
    """Pixel coordinates and depth of a world point, written out by hand."""
    local = torch.linalg.inv(cameras.camera_to_world[view]) @ torch.tensor([*point, 1.0])
    image = cameras.intrinsics[view] @ local[:3]
    return (image[:2] / image[2]).tolist(), float(local[2])


def test_the_front_view_stands_on_plus_x_and_sees_y_to_the_right_and_z_up() -> None:
    cameras = orbit(4, elevation_deg=0, distance=3, fov_deg=90, size=100)
    torch.testing.assert_close(cameras.camera_to_world[0, :3, 3], torch.tensor([3.0, 0, 0]))
    assert project(cameras, 0, (0, 0, 0)) == (pytest.approx([50, 50]), pytest.approx(3))
    assert project(cameras, 0, (0, 0.3, 0))[0] == pytest.approx([55, 50], abs=1e-4)
    assert project(cameras, 0, (0, 0, 0.3))[0] == pytest.approx([50, 45], abs=1e-4)


def test_azimuth_grows_counter_clockwise_from_above() -> None:
    positions = orbit(4, elevation_deg=0, distance=2).camera_to_world[:, :3, 3]
    expected = torch.tensor([[2.0, 0, 0], [0, 2, 0], [-2, 0, 0], [0, -2, 0]])
    torch.testing.assert_close(positions, expected, atol=1e-6, rtol=0)


def test_elevation_raises_the_camera_and_the_origin_stays_in_the_middle() -> None:
    cameras = orbit(3, elevation_deg=30, distance=2, size=64)
    torch.testing.assert_close(cameras.camera_to_world[:, 2, 3], torch.ones(3))
    for view in range(3):
        assert project(cameras, view, (0, 0, 0)) == (pytest.approx([32, 32], abs=1e-4), pytest.approx(2))


def test_poses_are_rotations() -> None:
    rotation = sample_cameras(CamerasConfig(views=16), torch.Generator().manual_seed(0)).camera_to_world[:, :3, :3]
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).expand(16, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(16))


@pytest.mark.parametrize("height", [1.0, -1.0])
def test_looking_straight_down_or_up_is_still_a_rotation(height: float) -> None:
    pose = look_at(torch.tensor([[0.0, 0.0, height]]), torch.zeros(1, 3))
    assert torch.linalg.det(pose[0, :3, :3]) == pytest.approx(1)
    torch.testing.assert_close(pose[0, :3, 2], torch.tensor([0.0, 0.0, -height]))


def test_the_field_of_view_spans_the_image() -> None:
    fov = torch.tensor([math.radians(40)])
    cameras = orbit_cameras(torch.zeros(1), torch.zeros(1), torch.full((1,), 5.0), fov, size=64)
    edge = 5 * math.tan(math.radians(20))
    assert project(cameras, 0, (0, edge, 0))[0] == pytest.approx([64, 32], abs=1e-4)
    assert intrinsics(fov, 64)[0, 2].tolist() == [0, 0, 1]


def test_azimuth_is_stratified_and_everything_is_in_range() -> None:
    config = CamerasConfig(views=8, elevation_deg=(5, 25), distance=(2, 3), fov_deg=(30, 50), size=32)
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        cameras = sample_cameras(config, generator)
        stratum = torch.floor((torch.rad2deg(cameras.azimuth) + 180) / 45).long()
        assert stratum.tolist() == list(range(8))
        assert torch.rad2deg(cameras.elevation).ge(5).all()
        assert torch.rad2deg(cameras.elevation).le(25).all()
        assert cameras.distance.ge(2).all()
        assert cameras.distance.le(3).all()
        torch.testing.assert_close(cameras.camera_to_world[:, :3, 3].norm(dim=-1), cameras.distance)
        fov = 2 * torch.atan(16 / cameras.intrinsics[:, 0, 0])
        assert torch.rad2deg(fov).min() > 29.99
        assert torch.rad2deg(fov).max() < 50.01


def test_the_same_generator_state_gives_the_same_views() -> None:
    draws = [sample_cameras(CamerasConfig(), torch.Generator().manual_seed(3)).camera_to_world for _ in range(2)]
    assert torch.equal(*draws)


@pytest.mark.parametrize(
    "bad", [{"elevation_deg": (10, 5)}, {"elevation_deg": (0, 90)}, {"distance": (0.5, 2)}, {"views": 0}, {"fov": 3}]
)
def test_bad_options_are_refused(bad) -> None:
    with pytest.raises(ValidationError):
        CamerasConfig(**bad)


def test_views_grow_where_the_config_asks_for_it() -> None:
    later = [{"begin_at": 0.25, "size": 128}, {"begin_at": 0.5, "size": 256}]
    config = CamerasConfig(views=1, later_sizes=later)
    sizes = [sample_cameras(config, torch.Generator(), progress).width for progress in (0, 0.24, 0.25, 0.49, 0.5, 1)]
    assert sizes == [64, 64, 128, 128, 256, 256]
    assert sample_cameras(CamerasConfig(), torch.Generator(), 1.0).width == 64
    with pytest.raises(ValidationError, match="begin_at must rise"):
        CamerasConfig(later_sizes=later[::-1])


def test_turned_cameras_change_their_azimuth_and_nothing_else() -> None:
    cameras = orbit(4, elevation_deg=20, distance=2.5, fov_deg=50, size=64)
    turned = turn_cameras(cameras, math.pi / 2)
    torch.testing.assert_close(turned.camera_to_world[:3], cameras.camera_to_world[1:], atol=1e-6, rtol=0)
    torch.testing.assert_close(turned.azimuth, cameras.azimuth + math.pi / 2)
    torch.testing.assert_close(turned.intrinsics, cameras.intrinsics)
    torch.testing.assert_close(turned.distance, cameras.distance)


@pytest.mark.parametrize("samples", [1, 3])
def test_a_pixels_directions_project_back_into_it(samples: int) -> None:
    cameras = orbit(2, fov_deg=50, size=16)
    directions = pixel_directions(cameras, samples)
    assert directions.shape == (2, (16 * samples) ** 2, 3)
    places = (directions @ cameras.intrinsics.mT)[..., :2].view(2, 16 * samples, 16 * samples, 2)
    torch.testing.assert_close(places[1, 4, 9], torch.tensor([9.5, 4.5]) / samples, atol=1e-4, rtol=0)
