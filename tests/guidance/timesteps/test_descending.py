import pytest
import torch
from pydantic import ValidationError

from sds3d.guidance.timesteps import Descending, DreamTime, HiFA


def t_at(timesteps, *progress: float) -> list[float]:
    return [timesteps.sample(part, 1, torch.Generator()).item() for part in progress]


@pytest.mark.parametrize("timesteps", [Descending(), Descending(halfway=0.8), HiFA(), DreamTime()])
def test_all_views_share_one_time_that_only_falls_and_takes_no_draw(timesteps) -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    times = torch.stack([timesteps.sample(step / 200, 3, generator) for step in range(201)])
    assert torch.equal(times[:, 0], times[:, 2])
    assert (times.diff(dim=0) <= 0).all()
    assert times[0, 0] == pytest.approx(timesteps.t_max)
    assert times[-1, 0] == pytest.approx(timesteps.t_min)
    assert torch.equal(generator.get_state(), before)


def test_descending_is_one_straight_line_or_two() -> None:
    assert t_at(Descending(t_min=0.2, t_max=0.8), 0, 0.25, 0.5, 0.75, 1) == pytest.approx([0.8, 0.65, 0.5, 0.35, 0.2])
    mvdream = Descending(t_max=0.98, t_min=0.308, halfway=0.4 / 0.7)  # 0.02 + 0.96 (1 - p), p = 0 -> 0.4 -> 0.7
    assert t_at(mvdream, 0, 0.25, 0.5, 0.75, 1) == pytest.approx([0.98, 0.788, 0.596, 0.452, 0.308])


def test_descending_ends_well_above_zero_by_default() -> None:  # T7f
    assert 0.2 <= t_at(Descending(), 1.0)[0] <= 0.3


def test_hifa_falls_with_the_square_root() -> None:
    expected = [0.98, 0.98 - 0.68 / 3, 0.98 - 0.68 / 2, 0.3]
    assert t_at(HiFA(), 0, 1 / 9, 1 / 4, 1) == pytest.approx(expected)


def test_dreamtime_follows_its_weight() -> None:  # T26
    """To a tick, the figures of Stable Diffusion; its last, 0, is no time here."""
    ticks = [1000 * t for t in t_at(DreamTime(t_min=0.001, t_max=0.999), 0, 0.25, 0.5, 0.75, 1)]
    assert ticks == pytest.approx([999, 834, 681, 528, 1], abs=1)


def test_dreamtime_is_a_straight_line_where_the_weight_is_one() -> None:
    flat = DreamTime(t_min=0.5, t_max=0.8)
    assert t_at(flat, 0, 0.25, 0.5, 0.75, 1) == pytest.approx([0.8, 0.725, 0.65, 0.575, 0.5], abs=1.1e-3)


@pytest.mark.parametrize(
    ("cls", "bad", "message"),
    [
        (Descending, {"t_min": 0.99}, "it must not be above t_max = 0.98"),
        (Descending, {"halfway": 1.0}, "halfway\n.*less than 1"),
        (HiFA, {"t_max": 0.2}, "it must not be above t_max = 0.2"),
        (DreamTime, {"t_min": 0.0}, "t_min\n.*greater than 0"),
    ],
)
def test_bad_options_are_refused(cls, bad, message) -> None:
    with pytest.raises(ValidationError, match=message):
        cls(**bad)
