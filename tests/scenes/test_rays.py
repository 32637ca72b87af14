import torch

from sds3d.cameras import CamerasConfig, Rays, camera_rays, orbit, sample_cameras
from sds3d.scenes.nerf import ball_interval


def test_a_ray_goes_through_its_pixel_and_depth_is_along_the_cameras_z() -> None:
    cameras = sample_cameras(CamerasConfig(views=3, size=16), torch.Generator().manual_seed(0))
    rays = camera_rays(cameras)
    assert len(rays) == 3 * 16 * 16
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(len(rays)))
    index, distance = 1 * 256 + 5 * 16 + 9, 2.5  # second view, row 5, column 9
    point = rays.origins[index] + distance * rays.directions[index]
    local = torch.linalg.inv(cameras.camera_to_world[1]) @ torch.cat([point, torch.ones(1)])
    pixel = cameras.intrinsics[1] @ local[:3]
    torch.testing.assert_close(pixel[:2] / pixel[2], torch.tensor([9.5, 5.5]), atol=1e-3, rtol=0)
    torch.testing.assert_close(local[2], distance * rays.depth_scale[index])
    part = rays.part(slice(index, index + 1))
    assert torch.equal(part.origins[0], rays.origins[index])


def test_rays_are_those_of_a_square_view() -> None:
    rays = camera_rays(orbit(1, elevation_deg=0, size=2))
    assert (rays.directions[:, 0] < 0).all()  # from +x towards the origin
    assert (rays.directions[:, 1] > 0).tolist() == [False, True, False, True]
    assert (rays.directions[:, 2] > 0).tolist() == [True, True, False, False]


def test_the_ball_is_entered_and_left_where_it_should_be() -> None:
    origins = torch.tensor([[3.0, 0, 0], [3.0, 0, 0.6], [3.0, 0, 2], [0.5, 0, 0], [3.0, 0, 0], [3.0, 0, 1]])
    directions = torch.tensor([[-1.0, 0, 0]] * 4 + [[1.0, 0, 0]] + [[-1.0, 0, 0]])
    near, far = ball_interval(Rays(origins, directions, torch.ones(6)), 1.0)
    # through the middle, above it, past it, from inside, away from it, and touching it
    torch.testing.assert_close(near, torch.tensor([2.0, 2.2, 0, 0, 0, 0]))
    torch.testing.assert_close(far, torch.tensor([4.0, 3.8, 0, 1.5, 0, 0]))
