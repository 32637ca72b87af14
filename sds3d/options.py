"""What the parts' configuration is made of: the frozen base model, ranges and values that change over a run."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag


class Options(BaseModel):
    """Base of every part's hyperparameters: immutable, finite numbers only, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("the first number must not be above the second")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Schedule(Options):
    """A value that changes over the run: `start` until `begin_at`, then straight to `end` at `end_at`.

    Both times are fractions of the run, so that a shorter run goes through the same stages. With begin_at = end_at the
    value jumps there.
    """

    start: float
    end: float
    begin_at: Fraction = 0.0
    end_at: Fraction = 1.0

    def at(self, progress: float) -> float:
        """The value at `progress`, the part of the run that is done, in [0, 1]."""
        if progress < self.begin_at:
            return self.start
        if progress >= self.end_at:
            return self.end
        done = (progress - self.begin_at) / (self.end_at - self.begin_at)
        return self.start + done * (self.end - self.start)


def _kind(value: object) -> str:
    return "schedule" if isinstance(value, dict | Schedule) else "number"


# tagged, so that a mistake inside a schedule is reported as such and not as "not a number"
Scheduled = Annotated[Annotated[float, Tag("number")] | Annotated[Schedule, Tag("schedule")], Discriminator(_kind)]


def evaluate(value: float | Schedule, progress: float) -> float:
    """A constant as it is, a schedule at `progress`."""
    return value.at(progress) if isinstance(value, Schedule) else value
