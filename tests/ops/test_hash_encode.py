"""Hash encoding: the reference by hand and by gradcheck; the kernels, and CUDA, against the reference in float64."""

import math

import pytest
import torch

from sds3d.ops.extension import compiled
from sds3d.ops.hash_encode import HashGrid, corner_entry, hash_encode, hash_encode_reference
from tests.ops.splat_cases import assert_agrees, gradients, leaves

GRID = HashGrid(levels=3, features=2, base_resolution=2, finest_resolution=8, log2_table=6)


def case(count=20, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 3, generator=generator, dtype=dtype)
    return points, torch.randn(GRID.entries, 2, generator=generator, dtype=dtype)


def test_the_grids_grow_geometrically_and_the_fine_ones_are_hashed() -> None:
    assert GRID.resolutions == (2, 4, 8)
    assert GRID.sizes == (27, 64, 64)  # 5^3 and 9^3 corners do not fit into 2^6
    assert GRID.entries == 155
    assert HashGrid(1, 2, 5, 9, 14).resolutions == (5,)


def test_a_corner_has_its_own_value_and_the_middle_of_a_cell_the_mean_of_eight() -> None:
    _, table = case()
    at = torch.tensor([[0.5, 0.0, 1.0], [0.25, 0.25, 0.25]], dtype=torch.float64)
    coarse = hash_encode(at, table, GRID)[:, :2]
    torch.testing.assert_close(coarse[0], table[(1 * 3 + 0) * 3 + 2])
    corners = [(x * 3 + y) * 3 + z for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    torch.testing.assert_close(coarse[1], table[corners].mean(dim=0))


def test_hashed_entries_are_those_of_the_paper() -> None:
    corners = torch.tensor([[1, 2, 3], [0, 0, 0], [8, 8, 8]])
    expected = [(x ^ y * 2654435761 ^ z * 805459861) % 64 for x, y, z in corners.tolist()]
    assert corner_entry(corners, 8, 64).tolist() == expected


def test_gradients_to_table_and_points() -> None:
    small = HashGrid(levels=2, features=2, base_resolution=1, finest_resolution=3, log2_table=3)  # the second is hashed
    points, table = case(3)
    inputs = (points.requires_grad_(), table[: small.entries].requires_grad_())
    assert torch.autograd.gradcheck(lambda p, t: hash_encode(p, t, small), inputs)


def test_no_points_points_outside_and_a_table_that_does_not_fit() -> None:
    _, table = case()
    assert hash_encode(torch.zeros(0, 3, dtype=torch.float64), table, GRID).shape == (0, 6)
    outside = torch.tensor([[-1.0, 2.0, 0.5], [0.0, 1.0, 0.5]], dtype=torch.float64)
    one, two = hash_encode(outside, table, GRID)
    torch.testing.assert_close(one, two)
    with pytest.raises(AssertionError, match="a table of"):
        hash_encode(outside, table[1:], GRID)


def encoded_by(function, points, table, grid, dtype, for_points=True):
    """The encoding and its gradients, to float64."""
    inputs = leaves([points, table], dtype)
    inputs[0].requires_grad_(for_points)
    upstream = torch.randn(len(points), len(grid.sizes) * grid.features, generator=torch.Generator().manual_seed(1))
    wanted = inputs if for_points else inputs[1:]
    found = gradients(lambda *_: (function(*inputs, grid),), wanted, [upstream.to(points.device)])
    return [t.detach().cpu().double() for t in found]


def away_from_borders(grid, count, seed):
    """Points, some outside of the cube, none so near to a cell's border that float32 may take it for another cell's."""
    generator = torch.Generator().manual_seed(seed)
    points = 1.2 * torch.rand(4 * count, 3, generator=generator) - 0.1
    far = torch.ones(len(points), dtype=torch.bool)
    for cells in grid.resolutions:
        place = points.double() * cells
        far &= ((place - place.round()).abs() > 1e-4).all(dim=-1)
    return points[far][:count]


GRIDS = [
    GRID,
    HashGrid(levels=1, features=1, base_resolution=3, finest_resolution=3, log2_table=14),
    HashGrid(levels=5, features=4, base_resolution=4, finest_resolution=60, log2_table=10),
    HashGrid(levels=8, features=2, base_resolution=8, finest_resolution=96, log2_table=15),
    HashGrid(levels=16, features=8, base_resolution=16, finest_resolution=2048, log2_table=8),
]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("count", [1, 15, 16, 17, 5000])
def test_the_kernels_agree_with_the_reference(instruction_set, grid, count) -> None:
    points = away_from_borders(grid, count, count)
    table = torch.randn(grid.entries, grid.features, generator=torch.Generator().manual_seed(count))
    got = encoded_by(hash_encode, points, table, grid, torch.float32)
    want = encoded_by(hash_encode_reference, points, table, grid, torch.float64)
    for name, one, other in zip(("features", "grad_points", "grad_table"), got, want, strict=True):
        # a place of p cells is rounded to 2^-24 of itself, and what is between two corners is off by as much of a cell
        assert_agrees(one, other, name, relative=1e-4 if grid.finest_resolution < 1000 else 1e-3)


@pytest.mark.parametrize("grid", GRIDS[:3])
@pytest.mark.parametrize("for_points", [False, True])
def test_the_cuda_kernels_agree_with_the_reference(cuda_kernels, grid, for_points) -> None:
    points = away_from_borders(grid, 300, 3).to(cuda_kernels)
    table = torch.randn(grid.entries, grid.features, generator=torch.Generator().manual_seed(3)).to(cuda_kernels)
    got = encoded_by(hash_encode, points, table, grid, torch.float32, for_points)
    want = encoded_by(hash_encode_reference, points, table, grid, torch.float64, for_points)
    for one, other in zip(got, want, strict=True):
        assert_agrees(one, other, "features or a gradient")


def test_whole_numbers_sum_up_to_the_same_gradient_in_any_order(cuda_kernels) -> None:
    """What the CUDA kernels do under torch.use_deterministic_algorithms(True): points in another order add up alike."""
    points = away_from_borders(GRID, 500, 4).to(cuda_kernels)
    table = torch.zeros(GRID.entries, 2, device=cuda_kernels)
    upstream = torch.randn(500, 6, generator=torch.Generator().manual_seed(4)).to(cuda_kernels)
    found = []
    for order in (torch.arange(500), torch.randperm(500, generator=torch.Generator().manual_seed(5))):
        largest = float(upstream.abs().max())
        given = (points[order], table, list(GRID.resolutions), list(GRID.sizes), upstream[order], False, True, largest)
        found.append(torch.ops.sds3d.hash_encode_backward(*given)[0].cpu())
    assert torch.equal(*found)
    inputs = leaves([points.cpu(), table.cpu()], torch.float64)
    hash_encode_reference(*inputs, GRID).backward(upstream.cpu().double())
    assert_agrees(found[0].double(), inputs[1].grad, "grad_table", relative=1e-6)


@pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
def test_gradients_do_not_depend_on_threads() -> None:
    points = away_from_borders(GRIDS[3], 5000, 6)
    table = torch.randn(GRIDS[3].entries, 2, generator=torch.Generator().manual_seed(6))
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(encoded_by(hash_encode, points, table, GRIDS[3], torch.float32))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_a_point_that_is_no_place_harms_no_other(instruction_set, value) -> None:
    _, table = case(dtype=torch.float32)
    points = torch.full((20, 3), 0.3)
    points[7, 1] = value
    inputs = leaves([points, table], torch.float32)
    found = hash_encode(*inputs, GRID)
    others = torch.arange(20) != 7
    assert torch.equal(found[others], found[:1].expand(19, 6))
    assert torch.isnan(found[7]).all() == math.isnan(value)
    found[others].sum().backward()
    assert torch.isfinite(inputs[0].grad[others]).all()


@pytest.mark.skipif(not compiled(), reason="sds3d._C is not built")
def test_levels_that_do_not_fit_the_table_are_refused() -> None:
    points, table = torch.zeros(1, 3), torch.zeros(155, 2)
    for resolutions, sizes, said in (
        ([2, 4, 8], [27, 64, 63], "power of two"),
        ([2, 4, 8], [27, 64], "a resolution and a size"),
        ([2, 4], [27, 64], "add up"),
        ([0, 4, 8], [27, 64, 64], "resolutions"),
    ):
        with pytest.raises(RuntimeError, match=said):
            torch.ops.sds3d.hash_encode(points, table, resolutions, sizes)
    with pytest.raises(RuntimeError, match="F must be"):
        torch.ops.sds3d.hash_encode(points, torch.zeros(155, 3), [2, 4, 8], [27, 64, 64])
