"""What a run reports (events), what a running run can be told (commands), and the log file that carries events."""

import errno
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import StrictBool, StrictFloat, StrictInt, StrictStr, TypeAdapter

from sds3d.atomic import write_atomic, writing

TAIL = 65_536  # bytes at the end of a log in which its last events are looked for


@dataclass(frozen=True)
class _Message:
    def to_dict(self) -> dict[str, Any]:
        """The message as JSON: its fields, and its kind under "event"."""
        values = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        return {"event": type(self).__name__, **values}


@dataclass(frozen=True)
class Started(_Message):
    """All parts are built; `step` is where the run begins, above 0 when it goes on from a checkpoint."""

    prompt: StrictStr
    out_dir: Path
    device: StrictStr
    step: StrictInt
    steps: StrictInt


@dataclass(frozen=True)
class StepDone(_Message):
    """One optimizer step; `step` counts from 1. `losses` is empty but for each tenth step and the last."""

    step: StrictInt
    losses: Mapping[str, float] = field(default_factory=dict)
    seconds: StrictFloat = 0.0


@dataclass(frozen=True)
class StageBegun(_Message):
    """From `step` on the options of another stage count; stages are counted from 1."""

    step: StrictInt
    stage: StrictInt
    stages: StrictInt
    scene: StrictStr


@dataclass(frozen=True)
class Preview(_Message):
    """A preview image of the scene was written."""

    step: StrictInt
    path: Path


@dataclass(frozen=True)
class Measured(_Message):
    """Metrics measured during the run: {"janus": {"agreement": 0.75, ...}}."""

    step: StrictInt
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class CheckpointSaved(_Message):
    """The run can be resumed from `step`."""

    step: StrictInt
    path: Path


@dataclass(frozen=True)
class Exporting(_Message):
    """`step` was the last: from now on surfaces are finished and the results are made."""

    step: StrictInt


@dataclass(frozen=True)
class Exported(_Message):
    """A result file was written; `stats` is what its check measured."""

    path: Path
    stats: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Warned(_Message):
    """Something the user should know; the run goes on."""

    message: StrictStr


@dataclass(frozen=True)
class Changed(_Message):
    """Options, by dotted key, that were changed during the run; they apply from the step after `step`."""

    step: StrictInt
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Paused(_Message):
    """The run waits after `step` until it is resumed or stopped."""

    step: StrictInt


@dataclass(frozen=True)
class Resumed(_Message):
    """The run goes on after a pause."""

    step: StrictInt


@dataclass(frozen=True)
class Finished(_Message):
    """The last event of a run that ended well. `interrupted`: stopped early with a checkpoint and without a report, so
    the run can be resumed."""

    report: Mapping[str, Any] = field(default_factory=dict)
    interrupted: StrictBool = False


@dataclass(frozen=True)
class Failed(_Message):
    """The last event of a run that ended with an error; `kind` is the error's class."""

    reason: StrictStr
    kind: StrictStr


Event = (
    Started | StepDone | StageBegun | Preview | Measured | CheckpointSaved | Exporting | Exported | Warned | Changed
    | Paused | Resumed | Finished | Failed
)  # fmt: skip


@dataclass(frozen=True)
class Change(_Message):
    """Change options (see `sds3d.config.LIVE`) from the next step on, by dotted key."""

    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Pause(_Message):
    """Wait after the current step."""


@dataclass(frozen=True)
class Resume(_Message):
    """Go on after a pause."""


@dataclass(frozen=True)
class Stop(_Message):
    """Save a checkpoint after the current step and end with Finished(interrupted=True)."""


@dataclass(frozen=True)
class FinishEarly(_Message):
    """Make the current step the last: save it, and hand over results as after the last step.

    The run can still be resumed, and then goes on to its last step.
    """


Command = Change | Pause | Resume | Stop | FinishEarly

_EVENTS = {kind.__name__: TypeAdapter(kind) for kind in Event.__args__}
_COMMANDS = {kind.__name__: TypeAdapter(kind) for kind in Command.__args__}


def from_dict(data: Mapping[str, Any]) -> Event:
    """The event that `to_dict` wrote; keys that it does not have ("time") are ignored. ValueError for anything else."""
    return _message(_EVENTS, data)


def command_from_dict(data: Mapping[str, Any]) -> Command:
    """The command that `to_dict` wrote; ValueError for anything else."""
    return _message(_COMMANDS, data)


def _message(kinds: Mapping[str, Any], data: Mapping[str, Any]) -> Any:
    kind = kinds.get(str(data.get("event")))
    if kind is None:
        raise ValueError(f"no message is called {data.get('event')!r}")
    return kind.validate_python(data)


class EventLog:
    """Writes events.jsonl: one line per event, except steps without losses. A line is whole or absent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            if path.exists() and not path.read_bytes().endswith(b"\n"):  # a crash cut off its last line
                whole = path.read_bytes().rpartition(b"\n")
                write_atomic(path, whole[0] + whole[1])

    def append(self, event: Event) -> None:
        """Write the event with the time of day."""
        if isinstance(event, StepDone) and not event.losses:
            return
        line = json.dumps({**event.to_dict(), "time": round(time.time(), 3)}).encode() + b"\n"
        with writing(self.path), self.path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                written = file.write(line)
                if written != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(before)
                raise


class EventReader:
    """Reads events.jsonl as it grows."""

    CHUNK = 4 << 20  # bytes read at once

    def __init__(self, path: Path) -> None:
        self.path, self._offset, self._identity = path, 0, 0

    def read(self) -> list[tuple[float, Event]]:
        """(time of day, event) for every event since the last call. Lines that hold no event are skipped.

        A file that was replaced or became shorter is read again from its start.
        """
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._identity or status.st_size < self._offset:
                    self._identity, self._offset = status.st_ino, 0
                file.seek(self._offset)
                data = file.read(self.CHUNK)
        except OSError:
            return []
        whole, newline, _ = data.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return [pair for line in whole.splitlines() if (pair := _parsed(line)) is not None]


def latest(path: Path) -> Iterator[tuple[float, Event]]:
    """(time of day, event) at the end of a log, newest first. Reads at most TAIL bytes."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return
    for line in reversed(lines):  # the first may be cut by the tail, the last by a crash
        if (pair := _parsed(line)) is not None:
            yield pair


def _parsed(line: bytes) -> tuple[float, Event] | None:
    try:
        data = json.loads(line)
        return float(data.get("time", 0.0)), from_dict(data)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
