import pytest
import torch

from sds3d.ops.hash_encode import HashGrid, corner_entry, hash_encode

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
    points, table = case(4)
    assert torch.autograd.gradcheck(
        lambda p, t: hash_encode(p, t, GRID), (points.requires_grad_(), table.requires_grad_())
    )


def test_no_points_points_outside_and_a_table_that_does_not_fit() -> None:
    _, table = case()
    assert hash_encode(torch.zeros(0, 3, dtype=torch.float64), table, GRID).shape == (0, 6)
    outside = torch.tensor([[-1.0, 2.0, 0.5], [0.0, 1.0, 0.5]], dtype=torch.float64)
    one, two = hash_encode(outside, table, GRID)
    torch.testing.assert_close(one, two)
    with pytest.raises(AssertionError, match="a table of"):
        hash_encode(outside, table[1:], GRID)
