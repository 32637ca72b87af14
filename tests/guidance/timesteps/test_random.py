import pytest
import torch
from pydantic import ValidationError

from sds3d.guidance.timesteps import TIMESTEPS, Annealed, Uniform
from sds3d.options import Schedule


def draws(timesteps, progress: float, count: int = 4000):
    return timesteps.sample(progress, count, torch.Generator().manual_seed(0))


def test_uniform_fills_its_range() -> None:
    t = draws(Uniform(t_min=0.1, t_max=0.6), 0.5)
    assert 0.1 <= t.min() < 0.11
    assert 0.59 < t.max() <= 0.6
    assert t.mean() == pytest.approx(0.35, abs=0.01)


@pytest.mark.parametrize(("progress", "top"), [(0.0, 0.98), (0.25, 0.74), (0.5, 0.5), (1.0, 0.5)])
def test_annealed_lowers_the_upper_end(progress: float, top: float) -> None:
    t = draws(Annealed(), progress)
    assert t.max() == pytest.approx(top, abs=0.005)
    assert t.min() == pytest.approx(0.02, abs=0.005)


def test_the_lower_end_may_fall_too() -> None:
    """As in MVDream."""
    falling = Schedule(start=0.98, end=0.02, end_at=0.8)
    timesteps = Annealed(t_min=falling, t_max=Schedule(start=0.98, end=0.5, end_at=0.8))
    for progress, low, high in ((0.0, 0.98, 0.98), (0.4, 0.5, 0.74), (0.9, 0.02, 0.5)):
        t = draws(timesteps, progress)
        assert (t.min().item(), t.max().item()) == pytest.approx((low, high), abs=0.005)


def test_a_schedule_with_equal_times_is_a_step_down() -> None:
    timesteps = Annealed(t_max=Schedule(start=0.98, end=0.5, begin_at=0.5, end_at=0.5))
    assert draws(timesteps, 0.499).max() > 0.97
    assert draws(timesteps, 0.5).max() <= 0.5


@pytest.mark.parametrize("name", TIMESTEPS)
def test_times_are_one_per_view_inside_zero_and_one(name: str) -> None:
    t = TIMESTEPS[name]().sample(0.3, 5, torch.Generator().manual_seed(0))
    assert t.shape == (5,)
    assert t.dtype == torch.float32
    assert ((t > 0) & (t < 1)).all()


@pytest.mark.parametrize(
    ("cls", "bad", "message"),
    [
        (Uniform, {"t_min": 0.7, "t_max": 0.6}, "it must not be above t_max = 0.6"),
        (Uniform, {"t_max": 1.0}, "t_max\n.*less than 1"),
        (Annealed, {"t_min": 0.6}, "it must not be above t_max = 0.5"),
        (Annealed, {"t_min": Schedule(start=0.0, end=0.5)}, r"t_min\n.*it must be in \(0, 1\)"),
        (Annealed, {"t_min": Schedule(start=0.3, end=0.6)}, "it must not be above t_max = 0.5"),
        (Annealed, {"t_min": 0.6, "t_max": Schedule(start=0.5, end=0.9)}, "it must not be above t_max = 0.5"),
        (Annealed, {"t_max": Schedule(start=1.2, end=0.5)}, r"t_max\n.*it must be in \(0, 1\)"),
    ],
)
def test_bad_ranges_are_refused(cls, bad, message) -> None:
    with pytest.raises(ValidationError, match=message):
        cls(**bad)
