"""events.jsonl: what a run reported, for whoever looks at its folder."""

import json
import time
from pathlib import Path

from sds3d.events import Event, StepDone
from sds3d.files import write_atomic, writing

TAIL = 16_384  # bytes: many events


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
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            step = json.loads(line).get("step")
        except (ValueError, AttributeError):
            continue  # the first line of the part may be cut, the last torn
        if isinstance(step, int):
            return step
    return None
