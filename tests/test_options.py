import pytest
from pydantic import TypeAdapter, ValidationError

from sds3d.options import Options, Range, Schedule, Scheduled, evaluate, ordered


@pytest.mark.parametrize(("progress", "value"), [(0, 1), (0.2, 1), (0.4, 2), (0.6, 3), (1, 3)])
def test_a_schedule_waits_moves_straight_and_stays(progress: float, value: float) -> None:
    schedule = Schedule(start=1, end=3, begin_at=0.2, end_at=0.6)
    assert schedule.at(progress) == pytest.approx(value)
    assert evaluate(schedule, progress) == pytest.approx(value)


def test_a_constant_stays() -> None:
    assert evaluate(2.5, 0.7) == 2.5


def test_numbers_and_schedules_are_told_apart() -> None:
    adapter = TypeAdapter(Scheduled)
    assert adapter.validate_python(2) == 2
    assert adapter.validate_python({"start": 0, "end": 1}) == Schedule(start=0, end=1)
    with pytest.raises(ValidationError, match="end"):
        adapter.validate_python({"start": 0})


def test_a_range_is_ordered() -> None:
    adapter = TypeAdapter(Range)
    assert adapter.validate_python([1, 2]) == (1, 2)
    with pytest.raises(ValidationError, match="above"):
        adapter.validate_python([2, 1])


class Part(Options):
    value: float = 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "x", None])
def test_options_take_finite_numbers_only(bad: object) -> None:
    with pytest.raises(ValidationError):
        Part(value=bad)


def test_options_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Part().value = 1


class Bounds(Options):
    low: Scheduled | None = 0.2
    high: Scheduled | None = 0.8

    _bounds_are_ordered = ordered("low", "high")


class InnerBounds(Bounds):
    low: Scheduled | None = 0.3


JUMP = Schedule(start=0.5, end=0.1, begin_at=0.5, end_at=0.5)


@pytest.mark.parametrize("bounds", [Bounds, InnerBounds])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.9}, "it must not be above high = 0.8"),
        ({"high": 0.1}, "it must not be above high = 0.1"),
        ({"high": {"start": 1, "end": 0.1}}, "it must not be above high = 0.1"),
        ({"low": {"start": 0, "end": 1}}, "it must not be above high = 0.8"),
        # only just before the jump is it above
        ({"low": JUMP, "high": {"start": 0.9, "end": 0.2, "end_at": 0.5}}, "it must not be above high = 0.2"),
    ],
)
def test_two_options_in_the_wrong_order_are_refused(bounds: type[Bounds], options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        bounds(**options)


@pytest.mark.parametrize("options", [{}, {"low": 0.8}, {"low": None, "high": 0.1}, {"low": JUMP, "high": JUMP}])
def test_two_options_in_order_are_taken(options: dict) -> None:
    assert Bounds(**options)


def test_a_schedule_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"end_at = 0\.2"):
        Schedule(start=0, end=1, begin_at=0.8, end_at=0.2)
