"""What events.jsonl says of a run, read as it grows."""

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sds3d.training.session import EVENTS, PREVIEWS

KEPT = 64  # runs whose logs are remembered
LINES, POINTS = 40, 400


@dataclass
class RunLog:
    """The run as far as its file was read."""

    path: Path
    offset: int = 0
    step: int = 0
    steps: int = 0
    started: float = 0.0  # when the run began, or began again
    started_step: int = 0
    seen: float = 0.0  # when the last event was written
    losses: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    altered: str = ""  # why its options alone do not make this object again
    stats: dict[str, Any] = field(default_factory=dict)  # of the mesh

    def read(self) -> "RunLog":
        """Reads what is new; a file that has become shorter is read again."""
        try:
            size = self.path.stat().st_size
            if size < self.offset:
                self.__init__(self.path)  # type: ignore[misc]
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(4 << 20)
        except OSError:
            return self
        whole = data.rpartition(b"\n")
        self.offset += len(whole[0]) + len(whole[1])
        for line in whole[0].splitlines():
            try:
                self._take(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
        return self

    def seconds_left(self) -> float | None:
        """By the pace since the run began or went on; None before its first steps."""
        done = self.step - self.started_step
        if done <= 0 or self.seen <= self.started:
            return None
        return (self.seen - self.started) / done * max(0, self.steps - self.step)

    def pace(self) -> float | None:
        """Steps in a second."""
        done = self.step - self.started_step
        return done / (self.seen - self.started) if done > 0 and self.seen > self.started else None

    def _take(self, event: dict[str, Any]) -> None:
        kind, self.seen = event["event"], float(event.get("time", self.seen))
        self.step = int(event.get("step", self.step))
        if kind == "Started":
            if self.steps == 0 and self.step > 0:
                self.altered = "it began from a checkpoint of another run"
            self.steps, self.started, self.started_step = int(event["steps"]), self.seen, self.step
            self._say(f"begins on {event['device']}" + (f" at step {self.step}" if self.step else ""))
        elif kind == "StepDone":
            for name, value in event["losses"].items():
                points = self.losses.setdefault(name, [])
                points.append((self.step, float(value)))
                if len(points) > POINTS:
                    del points[::2]
        elif kind == "Warned":
            self._say(f"warning: {event['message']}")
        elif kind == "CheckpointSaved":
            self._say(f"step {self.step}: saved")
        elif kind == "Changed":
            self.altered = "it was changed on the way"
            self._say(f"step {self.step}: changed " + ", ".join(f"{k} to {v}" for k, v in event["changes"].items()))
        elif kind == "Measured":
            self._say(f"step {self.step}: {json.dumps(event['metrics'])}")
        elif kind == "Exported":
            self._say(f"wrote {Path(event['path']).name}")
            if event["path"].endswith("mesh.glb"):
                self.stats = dict(event.get("stats", {}))
        elif kind == "Finished":
            self._say("interrupted and saved" if event.get("interrupted") else "done")

    def _say(self, line: str) -> None:
        self.lines = [*self.lines, line][-LINES:]


_logs: "OrderedDict[Path, RunLog]" = OrderedDict()


def log_of(run: Path) -> RunLog:
    """The log of a run folder, read up to now."""
    path = run / EVENTS
    log = _logs.pop(path, None) or RunLog(path)
    _logs[path] = log
    while len(_logs) > KEPT:
        _logs.popitem(last=False)
    return log.read()


def newest_preview(run: Path) -> str | None:
    """The file name of the newest preview."""
    try:
        return max((path.name for path in (run / PREVIEWS).glob("step-*.png")), default=None)
    except OSError:
        return None
