import torch

from sds3d.ops.march_rays import march_rays

BOX = torch.tensor([-1.0, -1, -1, 1, 1, 1])


def march(origins, directions, binaries, step=0.25, near=None, far=None, jitter=None, max_samples=100):
    rays_o, rays_d = torch.tensor(origins), torch.tensor(directions)
    near = torch.zeros(len(rays_o)) if near is None else torch.tensor(near)
    far = torch.full((len(rays_o),), 100.0) if far is None else torch.tensor(far)
    return march_rays(rays_o, rays_d, near, far, binaries, BOX, step, max_samples, jitter)


def test_only_occupied_cells_have_samples_and_they_are_in_the_rays_order() -> None:
    binaries = torch.zeros(4, 4, 4, dtype=torch.bool)
    binaries[1, 2, 2] = True  # x in [-0.5, 0]
    binaries[3, 2, 2] = True  # x in [0.5, 1]
    origins = [[-2.0, 0.1, 0.1], [-2.0, 0.9, 0.1], [2.0, 0.1, 0.1]]  # through both, past them, from the other side
    found = march(origins, [[1.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0]], binaries)
    assert found.offsets.tolist() == [0, 4, 4, 8]
    assert found.ray_indices.tolist() == [0] * 4 + [2] * 4
    torch.testing.assert_close(found.t_starts, torch.tensor([1.5, 1.75, 2.5, 2.75, 1.0, 1.25, 2.0, 2.25]))
    torch.testing.assert_close(found.t_ends, found.t_starts + 0.25)


def test_near_far_the_box_and_the_most_samples_end_a_ray() -> None:
    full = torch.ones(2, 2, 2, dtype=torch.bool)
    ray = ([[-2.0, 0.1, 0.1]], [[1.0, 0, 0]])
    assert len(march(*ray, full).t_starts) == 8
    assert march(*ray, full, near=[1.5], far=[2.0]).t_starts.tolist() == [1.5, 1.75]
    assert len(march(*ray, full, near=[1.0], max_samples=3).t_starts) == 3
    assert len(march(*ray, full, far=[0.0]).t_starts) == 0


def test_rays_that_miss_an_empty_grid_and_no_rays() -> None:
    full = torch.ones(2, 2, 2, dtype=torch.bool)
    found = march([[-2.0, 1.5, 0.0], [2.0, 0, 0]], [[1.0, 0, 0], [1.0, 0, 0]], full)
    assert found.offsets.tolist() == [0, 0, 0]
    assert march([[-2.0, 0.0, 0.0]], [[1.0, 0, 0]], ~full).offsets.tolist() == [0, 0]
    empty = torch.zeros(0, 3)
    assert march_rays(empty, empty, empty[:, 0], empty[:, 0], full, BOX, 0.1, 5, None).offsets.tolist() == [0]


def test_jitter_moves_all_samples_of_a_ray_by_a_part_of_the_step() -> None:
    full, ray = torch.ones(2, 2, 2, dtype=torch.bool), ([[-2.0, 0.1, 0.1]], [[1.0, 0, 0]])
    plain = march(*ray, full, near=[1.0])
    middle = march(*ray, full, near=[1.0], jitter=torch.tensor([0.5]))
    moved = march(*ray, full, near=[1.0], jitter=torch.tensor([0.9]))
    torch.testing.assert_close(middle.t_starts, plain.t_starts)
    torch.testing.assert_close(moved.t_starts, plain.t_starts + 0.1)
