"""Building blocks of every part's options: the frozen base model, ranges, schedules, and marks on fields."""

import math
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError


class Options(BaseModel):
    """Base of every part's hyperparameters: immutable, finite numbers only, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _check_range(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("the first number must not be above the second")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_check_range)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class LocalFile:
    """Marks an option that names files or folders of the machine, so that a web page can refuse it from strangers.

    `Annotated[str, LocalFile(), Field(description=...)]`; `sds3d.config.local_files` finds the marked options of a run.
    """


def split_strength(name: str) -> tuple[str, float]:
    """("style.safetensors", 0.6) of style.safetensors:0.6, the way to name a LoRA file; 1 where none is said."""
    file, _, strength = name.rpartition(":")
    try:
        is_said = file.endswith(".safetensors") and math.isfinite(float(strength))
        return (file, float(strength)) if is_said else (name, 1.0)
    except ValueError:
        return name, 1.0


def ordered(low: str, high: str) -> Any:
    """A validator for a model's body: option `low` is at most option `high`, at every time where they are scheduled.

    `_scales_are_ordered = ordered("min_scale", "max_scale")`. Not checked where one of them is None.
    """

    def check(options: Any) -> Any:
        lower, upper = getattr(options, low), getattr(options, high)
        if lower is None or upper is None:
            return options
        schedules = [value for value in (lower, upper) if isinstance(value, Schedule)]
        corners = {0.0, 1.0, *(time for schedule in schedules for time in (schedule.begin_at, schedule.end_at))}
        before = [math.nextafter(time, 0.0) for time in corners]  # a schedule may jump at its corner
        for time in sorted([*corners, *before]):  # and is linear in between
            if evaluate(lower, time) > evaluate(upper, time):
                raise PydanticCustomError(
                    "order",
                    "it must not be above {high} = {limit}",
                    {"field": low, "value": evaluate(lower, time), "high": high, "limit": evaluate(upper, time)},
                )
        return options

    return model_validator(mode="after")(check)


class Schedule(Options):
    """A value that changes over the run: `start` until `begin_at`, then linearly to `end` at `end_at`.

    Both times are fractions of the run, so a shorter run goes through the same stages. With begin_at = end_at the value
    jumps there.
    """

    start: float
    end: float
    begin_at: Fraction = 0.0
    end_at: Fraction = 1.0

    _times_are_ordered = ordered("begin_at", "end_at")

    def at(self, progress: float) -> float:
        """The value when the fraction `progress` of the run, in [0, 1], is done."""
        if progress < self.begin_at:
            return self.start
        if progress >= self.end_at:
            return self.end
        ramp = (progress - self.begin_at) / (self.end_at - self.begin_at)
        return self.start + ramp * (self.end - self.start)


def _kind(value: object) -> str:
    return "schedule" if isinstance(value, dict | Schedule) else "number"


# tagged, so that a mistake inside a schedule is reported as such and not as "not a number"
Scheduled = Annotated[Annotated[float, Tag("number")] | Annotated[Schedule, Tag("schedule")], Discriminator(_kind)]


def bounded(limits: str, contains: Callable[[float], bool]) -> AfterValidator:
    """Validator of a Scheduled option: a number, or both ends of a schedule, must be within `limits`; None passes."""

    def check(value: float | Schedule | None) -> float | Schedule | None:
        ends = (value.start, value.end) if isinstance(value, Schedule) else (value,)
        if not all(end is None or contains(end) for end in ends):
            raise ValueError(f"it must be {limits}")
        return value

    return AfterValidator(check)


def evaluate(value: float | Schedule, progress: float) -> float:
    """The value of a Scheduled option at `progress`: a number as it is, a schedule at that time."""
    return value.at(progress) if isinstance(value, Schedule) else value
