"""events.jsonl: what a run reported, for whoever looks at its folder."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sds3d.atomic import write_atomic, writing
from sds3d.run.events import Event, StepDone

TAIL = 65_536  # bytes: many events


class EventLog:
    """events.jsonl: one line for each event, but for steps without losses. A line is whole or absent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            if path.exists() and not path.read_bytes().endswith(b"\n"):  # torn by a crash
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
                    raise OSError(28, "the disk is full")
            except OSError:
                file.truncate(before)
                raise


def last_step(path: Path) -> int | None:
    """The last step that the file of a run under way speaks of; None where there is none yet. Reads its end only."""
    return next((step for event in _latest(path) if isinstance(step := event.get("step"), int)), None)


def finished_report(run: Path) -> dict[str, Any] | None:
    """The report of a run folder whose last event says that the run has ended with it; None otherwise."""
    last = next(_latest(run / "events.jsonl"), None)
    if last is None or last.get("event") != "Finished" or last.get("interrupted"):
        return None
    report = last.get("report")
    return report if isinstance(report, dict) and (run / "report.json").is_file() else None


def _latest(path: Path) -> Iterator[dict[str, Any]]:
    """The events at the end of the file, the newest first."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return
    for line in reversed(lines):
        try:
            event = json.loads(line)
        except ValueError:
            continue  # the first line of the part may be cut, the last torn
        if isinstance(event, dict):
            yield event
