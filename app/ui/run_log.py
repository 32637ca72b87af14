"""What the events of a run come to: how far it is, its losses, its newest preview, and the last lines of its log."""

import json
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from sds3d.run import events
from sds3d.run.folder import RunFolder

KEPT = 64  # runs whose logs stay in memory
LINES, POINTS = 40, 400
EARLY, SOON = 0.05, 10.0  # the share of the steps, or the seconds, after which the rest can be estimated
SAVED = ": saved"  # only the newest of several in a row is kept


@dataclass
class RunLog:
    """A summary of events; `add` takes the next one. Once read, an event is not kept."""

    step: int = 0
    steps: int = 0
    stage: int = 0  # of the run, counted from 0
    seconds: float = 0.0  # that a run which has ended well took in all
    started: float = 0.0  # time of day at which the run began or went on
    started_step: int = 0
    seen: float = 0.0  # time of day of the newest event
    exporting: bool = False  # whether its results are being made
    preview: str = ""  # file name of the newest preview
    losses: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    altered: str = ""  # why its options alone do not make this object again
    stats: dict[str, Any] = field(default_factory=dict)  # what the check of the mesh measured

    def pace(self) -> float | None:
        """Steps per second since the run began or went on; None before its first steps."""
        done = self.step - self.started_step
        return done / (self.seen - self.started) if done > 0 and self.seen > self.started else None

    def seconds_left(self) -> float | None:
        """Seconds to the last step at that pace; None until that can be told."""
        pace, done = self.pace(), self.step - self.started_step
        is_known = done >= EARLY * (self.steps - self.started_step) or self.seen - self.started >= SOON
        return max(0, self.steps - self.step) / pace if pace and is_known else None

    def add(self, when: float, event: events.Event) -> None:
        """Take account of one event."""
        if isinstance(event, events.Started):
            if event.step == 0:  # from the beginning: nothing before it counts
                vars(self).update(vars(RunLog()))
            elif self.steps == 0:
                self.altered = "it began from a checkpoint of another run"
            self.steps, self.started, self.started_step, self.exporting = event.steps, when, event.step, False
        self.seen = when or self.seen
        self.step = getattr(event, "step", self.step)
        self.stage = getattr(event, "stage", self.stage + 1) - 1
        if isinstance(event, events.StepDone):
            for name, value in event.losses.items():
                points = self.losses.setdefault(name, [])
                points.append((event.step, float(value)))
                if len(points) > POINTS:
                    del points[::2]
        elif isinstance(event, events.Preview):
            self.preview = event.path.name
        elif isinstance(event, events.Exporting):
            self.exporting = True
        elif isinstance(event, events.Finished):
            self.seconds = float(event.report.get("seconds", {}).get("total", 0))
        elif isinstance(event, events.Changed):
            self.altered = "it was changed during the run"
        elif isinstance(event, events.Exported) and "faces" in event.stats:
            self.stats = dict(event.stats)
        if line := line_of(event):
            repeats = self.lines and line.endswith(SAVED) and self.lines[-1].endswith(SAVED)
            self.lines = [*(self.lines[:-1] if repeats else self.lines), line][-LINES:]


def line_of(event: events.Event) -> str:
    """What an event adds to the log that people read; "" for most."""
    line = ""
    match event:
        case events.Started():
            line = f"begins on {event.device}" + (f" at step {event.step}" if event.step else "")
        case events.Warned():
            line = f"warning: {event.message}"
        case events.CheckpointSaved():
            line = f"step {event.step}{SAVED}"
        case events.StageBegun():
            line = f"step {event.step}: stage {event.stage} of {event.stages}, {event.scene}"
        case events.Changed():
            changes = ", ".join(f"{key} to {value}" for key, value in event.changes.items())
            line = f"step {event.step}: changed {changes}"
        case events.Exporting():
            line = f"step {event.step}: making the results"
        case events.Measured():
            line = f"step {event.step}: {json.dumps(event.metrics)}"
        case events.Exported():
            line = f"wrote {event.path.name}"
        case events.Paused() | events.Resumed():
            line = f"step {event.step}: {type(event).__name__.lower()}"
        case events.Failed():
            line = f"failed: {event.reason}"
        case events.Finished():
            line = "interrupted and saved" if event.interrupted else "done"
    return line


class RunLogs:
    """The logs of the runs that were looked at last, each read by one reader, whoever asks."""

    def __init__(self) -> None:
        self._lock, self._opened = threading.Lock(), lru_cache(KEPT)(_opened)

    def read(self, folder: RunFolder) -> RunLog:
        """The log of a run, with everything that has happened up to now."""
        with self._lock:
            reader, log = self._opened(folder.path)
            for when, event in reader.read():
                log.add(when, event)
            return log


def _opened(run: Path) -> tuple[events.EventReader, RunLog]:
    return RunFolder(run).reader(), RunLog()
