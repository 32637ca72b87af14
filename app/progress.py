"""Events -> a progress bar on a terminal, plain lines elsewhere, JSON lines with --json, almost nothing with --quiet.

What a run made goes to stdout; how it is getting on goes to stderr.
"""

import itertools
import json
import math
import time
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sds3d.run.events import Event, Exported, Finished, StageBegun, Started, StepDone, Warned
from sds3d.sweeps.run_set import RunSet

from .exit_codes import say_note
from .signals import stopped_by_signals
from .terminal import can_redraw, is_narrow

PLAIN_LINE_EVERY = 5.0  # seconds


class WarningsOnly:
    """Shows of a run's events nothing but the warnings, on stderr. The other displays are made from it."""

    def show(self, event: Event) -> None:
        if isinstance(event, Warned):
            say_note(f"warning: {event.message}")

    def close(self) -> None:
        """Called after the last event, or when the run has failed."""


def follow(events: Iterable[Event], display: WarningsOnly) -> Finished:
    """Show every event of a run and return the last one."""
    try:
        for event in events:
            display.show(event)
            if isinstance(event, Finished):
                return event
    finally:
        display.close()
    raise AssertionError("a run ends with Finished or raises")


def follow_all(runs: RunSet, as_json: bool) -> bool:
    """Run the set until a signal stops it, and show the events of each run; whether all are finished."""
    with stopped_by_signals(runs.stop):
        for path, events in itertools.groupby(runs.run(), key=lambda pair: pair[0]):
            display = JsonLines({"run": str(path)}) if as_json else PlainLines(f"{path.name}: ")
            for _, event in events:
                display.show(event)
    return runs.finished()


def choose_display(quiet: bool, as_json: bool) -> WarningsOnly:
    """The display for these options and this terminal."""
    if as_json:
        return JsonLines()
    if quiet:
        return WarningsOnly()
    return ProgressBar() if can_redraw() else PlainLines()


class JsonLines(WarningsOnly):
    """One event a line on stdout, as Event.to_dict gives it, after the keys that every line has."""

    def __init__(self, first: Mapping[str, str] | None = None) -> None:
        self.first = first or {}

    def show(self, event: Event) -> None:
        print(json.dumps({**self.first, **event.to_dict()}), flush=True)


class PlainLines(WarningsOnly):
    """For logs: a line every few seconds, and one for each thing written; each begins with the `name` of the run."""

    def __init__(self, name: str = "") -> None:
        self.name, self.steps = name, 0
        self.last_line = -math.inf
        self.losses = ""
        self.speed = Speed()

    def show(self, event: Event) -> None:
        if isinstance(event, Started):
            self.steps = event.steps
            self.say(f"{event.prompt!r} on {event.device}, step {event.step} of {event.steps}, into {event.out_dir}")
        elif isinstance(event, StepDone):
            losses = "  ".join(f"{name} {value:.4g}" for name, value in event.losses.items())
            self.losses = losses or self.losses  # there are none between log steps
            rate = self.speed.after(event)
            if event.step == self.steps or time.monotonic() - self.last_line > PLAIN_LINE_EVERY:
                self.say(f"step {event.step}/{self.steps}  {self.losses}  {rate}")
        elif isinstance(event, StageBegun):
            self.say(f"step {event.step}: stage {event.stage} of {event.stages}, {event.scene}")
        elif isinstance(event, Exported):
            self.say(f"wrote {event.path}")
        elif isinstance(event, Warned):
            self.say(f"warning: {event.message}")

    def say(self, line: str) -> None:
        self.last_line = time.monotonic()
        say_note(self.name + line)


class ProgressBar(WarningsOnly):
    """A bar with step, loss, speed and time left; warnings stay above it."""

    def __init__(self) -> None:
        step, note = MofNCompleteColumn(), TextColumn("{task.fields[note]}")
        wide = (TextColumn("{task.description}"), BarColumn(bar_width=20), step, note, TimeRemainingColumn())
        self.narrow = is_narrow()
        self.progress = Progress(
            *((step, note) if self.narrow else wide),
            console=Console(stderr=True),
            transient=True,
        )
        self.task = self.progress.add_task("loading", total=None, note="")
        self.loss = ""
        self.speed = Speed()
        self.progress.start()

    def show(self, event: Event) -> None:
        if isinstance(event, Started):
            self.progress.update(self.task, description="distilling", total=event.steps, completed=event.step)
        elif isinstance(event, StepDone):
            if "guidance" in event.losses:  # the one that every run has; a line has no room for all
                self.loss = f"loss {event.losses['guidance']:.4g}"
            speed = self.speed.after(event)
            note = self.loss if self.narrow else f"{self.loss}  {speed}"
            self.progress.update(self.task, completed=event.step, note=note)
        elif isinstance(event, StageBegun):
            self.progress.update(self.task, description=f"distilling ({event.scene})")
        elif isinstance(event, Exported):
            self.progress.update(self.task, description="exporting", note=event.path.name)
        elif isinstance(event, Warned):
            self.progress.console.print("warning:", event.message, style="yellow", markup=False, highlight=False)

    def close(self) -> None:
        self.progress.stop()


class Speed:
    """Steps a second, smoothed over about twenty steps."""

    def __init__(self) -> None:
        self.seconds: float | None = None

    def after(self, event: StepDone) -> str:
        self.seconds = event.seconds if self.seconds is None else 0.95 * self.seconds + 0.05 * event.seconds
        return f"{1 / self.seconds:.1f} steps/s" if self.seconds else ""
