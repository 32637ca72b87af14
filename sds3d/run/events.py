"""What a run reports: the one stream that command line, web page, batch and tests all consume."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class _Event:
    def to_dict(self) -> dict[str, Any]:
        """The event as JSON: its fields, and its kind under "event"."""
        fields = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        return {"event": type(self).__name__, **fields}


@dataclass(frozen=True)
class Started(_Event):
    """The parts are built; `step` is where the run begins, above 0 when it goes on from a checkpoint."""

    prompt: str
    out_dir: Path
    device: str
    step: int
    steps: int


@dataclass(frozen=True)
class StepDone(_Event):
    """One optimizer step; `step` counts from 1. `losses` is empty except every `log_every` steps."""

    step: int
    losses: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Preview(_Event):
    """An image of the scene so far was written."""

    step: int
    path: Path


@dataclass(frozen=True)
class Measured(_Event):
    """What a meter found on the way: {"janus": {"agreement": 0.75, ...}}."""

    step: int
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class CheckpointSaved(_Event):
    """The run can be resumed from `step`."""

    step: int
    path: Path


@dataclass(frozen=True)
class Exported(_Event):
    """A result was written; `stats` is what its check found."""

    path: Path
    stats: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Warned(_Event):
    """Something the user should know; the run goes on."""

    message: str


@dataclass(frozen=True)
class Changed(_Event):
    """Options that a person changed on the way, by dotted keys; they hold from the step after `step` on."""

    step: int
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Finished(_Event):
    """The last event. `interrupted`: stopped early with a checkpoint, so the run can be resumed; no report then."""

    report: Mapping[str, Any] = field(default_factory=dict)
    interrupted: bool = False


Event = Started | StepDone | Preview | Measured | CheckpointSaved | Exported | Warned | Changed | Finished
