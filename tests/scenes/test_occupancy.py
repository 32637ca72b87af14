import pytest
import torch

from sds3d.ops.march_rays import march_rays
from sds3d.scenes.occupancy import Occupancy


@pytest.fixture(autouse=True)
def every_four_steps(monkeypatch) -> None:
    monkeypatch.setattr("sds3d.scenes.occupancy.EVERY", 4)


def occupancy(seed=3):
    return Occupancy(8, 1.0, 0.1, torch.tensor(seed))


def upper_half(points):
    return 1e4 * (points[:, 2] > 0)


def test_cells_are_occupied_where_there_is_something_in_the_ball_that_was_asked_for() -> None:
    grid = Occupancy(8, 0.5, 0.1, torch.tensor(0))
    assert not grid.binaries.any()
    assert grid.grid.aabb.tolist() == [-0.5] * 3 + [0.5] * 3
    grid.update(0, lambda points: (points[:, 0] > 0.25).float())
    assert grid.binaries[6:].all()
    assert not grid.binaries[:6].any()


def test_a_cell_is_occupied_above_the_opacity_of_one_step() -> None:
    grid = occupancy()
    grid.update(0, lambda points: torch.where(points[:, 2] > 0, 0.12, 0.08))  # times 0.1: opacities 0.0119 and 0.008
    assert grid.binaries[..., 4:].all()
    assert not grid.binaries[..., :4].any()


def test_samples_behind_what_is_dense_all_around_are_left_out() -> None:
    grid = occupancy()
    grid.update(0, lambda points: 31.0 * (points[:, 0] < 0.5))  # 6 of 8 cells along x
    origin, direction = torch.tensor([[1.02, 0.1, 0.1]]), torch.tensor([[-1.0, 0.0, 0.0]])
    found = march_rays(origin, direction, torch.zeros(1), torch.tensor([2.0]), grid.grid, 0.1, 100, None)
    middles = 1.02 - (found.t_starts + found.t_ends) / 2
    # occupied below x = 0.5; below 0.25 all neighbours are dense: 3.1 for each sample of length 0.1, so two are seen
    torch.testing.assert_close(middles, torch.tensor([0.47, 0.37, 0.27, 0.17, 0.07]))


def test_it_looks_every_few_steps_and_forgets_slowly(monkeypatch) -> None:
    monkeypatch.setattr("sds3d.scenes.occupancy.THRESHOLD", 0.5)
    monkeypatch.setattr("sds3d.scenes.occupancy.DECAY", 0.8)
    grid = occupancy()
    grid.update(0, upper_half)
    for step in range(1, 4):
        grid.update(step, lambda points: 1e4 - upper_half(points))
    assert not grid.binaries[..., :4].any()
    for step in range(4, 16):  # 0.8, 0.64, 0.512 of what was there
        grid.update(step, lambda points: 1e4 - upper_half(points))
    assert grid.binaries.all()
    grid.update(16, lambda points: 1e4 - upper_half(points))
    assert not grid.binaries[..., 4:].any()


def test_the_same_seed_and_step_look_at_the_same_points_and_the_global_generator_is_left_alone() -> None:
    seen = []

    def note(points):
        seen.append(points)
        return torch.ones(len(points))

    torch.manual_seed(5)
    before = torch.get_rng_state()
    occupancy().update(8, note)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    occupancy().update(8, note)
    occupancy().update(12, note)
    occupancy(seed=4).update(8, note)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[3])


def test_what_it_knows_is_saved() -> None:
    grid, other = occupancy(), occupancy(seed=9)
    grid.update(0, upper_half)
    other.load_state_dict(grid.state_dict())
    assert torch.equal(grid.binaries, other.binaries)
    for each in (grid, other):
        each.update(4, lambda points: points.square().sum(dim=-1) / 3)
    assert torch.equal(grid.estimator.occs, other.estimator.occs)


def test_a_fine_grid_is_looked_at_in_parts(monkeypatch) -> None:
    sizes = []
    monkeypatch.setattr("sds3d.scenes.occupancy.AT_ONCE", 200)
    grid = occupancy()
    grid.update(0, lambda points: sizes.append(len(points)) or upper_half(points))
    assert sizes == [200, 200, 112]
    assert torch.equal(grid.binaries[0, 0], torch.arange(8) >= 4)
