"""Marching: what it does, by the kernels and by the reference; then both, and CUDA, on random rays."""

import math

import pytest
import torch

from sds3d.ops.extension import compiled
from sds3d.ops.march_rays import OccupancyGrid, march_rays, march_rays_reference

BOX = torch.tensor([-1.0, -1, -1, 1, 1, 1])
FULL = torch.ones(2, 2, 2, dtype=torch.bool)
FIELDS = ("ray_indices", "t_starts", "t_ends", "points", "offsets")


@pytest.fixture(params=[march_rays, march_rays_reference])
def march(request):
    def march(origins, directions, binaries, step=0.25, near=None, far=None, jitter=None, max_samples=100, hidden=()):
        rays_o, rays_d = torch.tensor(origins).view(-1, 3), torch.tensor(directions).view(-1, 3)
        near = torch.zeros(len(rays_o)) if near is None else torch.tensor(near)
        far = torch.full((len(rays_o),), 100.0) if far is None else torch.tensor(far)
        grid = OccupancyGrid(binaries, BOX, *hidden)
        return request.param(rays_o, rays_d, near, far, grid, step, max_samples, jitter)

    return march


def test_only_occupied_cells_have_samples_and_they_are_in_the_rays_order(march) -> None:
    binaries = torch.zeros(4, 4, 4, dtype=torch.bool)
    binaries[1, 2, 2] = True  # x in [-0.5, 0]
    binaries[3, 2, 2] = True  # x in [0.5, 1]
    origins = [[-2.0, 0.1, 0.1], [-2.0, 0.9, 0.1], [2.0, 0.1, 0.1]]  # through both, past them, from the other side
    found = march(origins, [[1.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0]], binaries)
    assert found.offsets.tolist() == [0, 4, 4, 8]
    assert found.ray_indices.tolist() == [0] * 4 + [2] * 4
    torch.testing.assert_close(found.t_starts, torch.tensor([1.5, 1.75, 2.5, 2.75, 1.0, 1.25, 2.0, 2.25]))
    torch.testing.assert_close(found.t_ends, found.t_starts + 0.25)


def test_near_far_the_box_and_the_most_samples_end_a_ray(march) -> None:
    ray = ([[-2.0, 0.1, 0.1]], [[1.0, 0, 0]])
    assert len(march(*ray, FULL).t_starts) == 8
    assert march(*ray, FULL, near=[1.5], far=[2.0]).t_starts.tolist() == [1.5, 1.75]
    assert len(march(*ray, FULL, near=[1.0], max_samples=3).t_starts) == 3
    assert len(march(*ray, FULL, far=[0.0]).t_starts) == 0


def test_rays_that_miss_an_empty_grid_and_no_rays(march) -> None:
    found = march([[-2.0, 1.5, 0.0], [2.0, 0, 0]], [[1.0, 0, 0], [1.0, 0, 0]], FULL)
    assert found.offsets.tolist() == [0, 0, 0]
    assert march([[-2.0, 0.0, 0.0]], [[1.0, 0, 0]], ~FULL).offsets.tolist() == [0, 0]
    assert march([], [], FULL, near=[], far=[]).offsets.tolist() == [0]


def test_jitter_moves_all_samples_of_a_ray_by_a_part_of_the_step(march) -> None:
    ray = ([[-2.0, 0.1, 0.1]], [[1.0, 0, 0]])
    plain = march(*ray, FULL, near=[1.0])
    middle = march(*ray, FULL, near=[1.0], jitter=torch.tensor([0.5]))
    moved = march(*ray, FULL, near=[1.0], jitter=torch.tensor([0.9]))
    torch.testing.assert_close(middle.t_starts, plain.t_starts)
    torch.testing.assert_close(moved.t_starts, plain.t_starts + 0.1)


def test_what_is_behind_enough_of_the_least_density_is_left_out(march) -> None:
    ray, least = ([[-2.0, 0.1, 0.1]], [[1.0, 0, 0]]), torch.zeros(2, 2, 2)
    least[0] = 4.0  # x below 0: 1 for each sample there
    assert len(march(*ray, FULL, hidden=(least, 2.5)).t_starts) == 3
    assert len(march(*ray, FULL, hidden=(least, 3.0)).t_starts) == 3
    assert len(march(*ray, FULL, hidden=(least, 10.0)).t_starts) == 8
    assert len(march(*ray, FULL, hidden=(least,)).t_starts) == 8
    assert len(march([[2.0, 0.1, 0.1]], [[-1.0, 0, 0]], FULL, hidden=(least, 2.5)).t_starts) == 7


def random_case(seed, rays=300):
    generator = torch.Generator().manual_seed(seed)

    def directions(count):
        return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)

    origins = 2.2 * directions(rays)
    towards = torch.nn.functional.normalize(-origins + 1.2 * directions(rays), dim=-1)
    near = 0.8 + 0.3 * torch.rand(rays, generator=generator)
    far = torch.where(torch.rand(rays, generator=generator) < 0.2, 0.5, 3.4)
    binaries = torch.rand(7, 9, 5, generator=generator) < 0.6
    least = 8 * torch.rand(7, 9, 5, generator=generator) * (torch.rand(7, 9, 5, generator=generator) < 0.5)
    grid = OccupancyGrid(binaries, torch.tensor([-1.0, -1, -1, 1, 1.2, 1]), least, 3.0)
    jitter = torch.rand(rays, generator=generator)
    return [origins, towards, near, far, grid, 0.03, 75, jitter]


@pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("hidden", [False, True])
def test_the_kernel_finds_the_reference_s_samples(seed, hidden) -> None:
    case = random_case(seed)
    if not hidden:
        case[4] = OccupancyGrid(case[4].binaries, case[4].aabb)
    got, want = march_rays(*case), march_rays_reference(*case)
    assert 1000 < len(want.t_starts) < 20000
    assert all(torch.equal(getattr(got, name), getattr(want, name)) for name in FIELDS)


def test_the_cuda_kernel_finds_the_reference_s_samples(cuda_kernels) -> None:
    origins, towards, near, far, grid, step, count, jitter = random_case(7)
    want = march_rays_reference(origins, towards, near, far, grid, step, count, jitter)
    moved = OccupancyGrid(*(t.to(cuda_kernels) for t in (grid.binaries, grid.aabb, grid.least)), grid.hidden_depth)
    rays = [t.to(cuda_kernels) for t in (origins, towards, near, far)]
    got = march_rays(*rays, moved, step, count, jitter.to(cuda_kernels))
    assert all(torch.equal(getattr(got, name).cpu(), getattr(want, name)) for name in FIELDS)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_rays_that_are_no_rays_have_no_samples_and_leave_the_others_alone(march, value) -> None:
    ray, other = [-2.0, 0.1, 0.1], [1.0, 0.0, 0.0]
    for broken in (([value, 0.1, 0.1], other), (ray, [value, 0.0, 0.0])):
        found = march([broken[0], ray], [broken[1], other], FULL)
        assert found.offsets.tolist() == [0, 0, 8]
    assert march([ray], [other], FULL, far=[math.nan]).offsets.tolist() == [0, 0]
    assert march([ray], [other], FULL, near=[value], far=[2.0 if value < 0 else math.inf]).offsets.tolist() == [0, 0]


def test_arguments_that_do_not_fit_are_refused_by_name() -> None:
    if not compiled():
        pytest.skip("sds3d._C is not built")
    rays, ones, nothing = torch.zeros(4, 3), torch.ones(4), torch.zeros(0)
    with pytest.raises(RuntimeError, match="far"):
        torch.ops.sds3d.march_rays_count(rays, rays, ones, ones[:2], FULL, BOX, nothing, 0.1, 5, math.inf)
    least = torch.ones(3, 3, 3)
    with pytest.raises(RuntimeError, match="least"):
        torch.ops.sds3d.march_rays_count(rays, rays, ones, ones, FULL, BOX, least, 0.1, 5, math.inf)
