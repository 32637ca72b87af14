"""Events -> a progress bar on a terminal, plain lines elsewhere, JSON lines with --json, almost nothing with --quiet.

What a run made goes to stdout; how it is getting on goes to stderr.
"""

import json
import math
import sys
import time
from collections.abc import Iterable
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sds3d.run.events import Event, Exported, Finished, Started, StepDone, Warned

PLAIN_LINE_EVERY = 5.0  # seconds


class Display(Protocol):
    """Shows the events of one run."""

    def show(self, event: Event) -> None: ...

    def close(self) -> None: ...


def follow(events: Iterable[Event], display: Display) -> Finished:
    """Show every event of a run and return the last one."""
    try:
        for event in events:
            display.show(event)
            if isinstance(event, Finished):
                return event
    finally:
        display.close()
    raise AssertionError("a run ends with Finished or raises")


def choose_display(quiet: bool, as_json: bool) -> Display:
    """The display for these options and this terminal."""
    if as_json:
        return JsonLines()
    if quiet:
        return WarningsOnly()
    return ProgressBar() if sys.stderr.isatty() else PlainLines()


class JsonLines:
    """One event a line on stdout, as Event.to_dict gives it."""

    def show(self, event: Event) -> None:
        print(json.dumps(event.to_dict()), flush=True)

    def close(self) -> None:
        pass


class WarningsOnly:
    """Nothing but warnings, on stderr."""

    def show(self, event: Event) -> None:
        if isinstance(event, Warned):
            print(f"warning: {event.message}", file=sys.stderr)

    def close(self) -> None:
        pass


class PlainLines(WarningsOnly):
    """For logs: a line every few seconds, and one for each thing written."""

    def __init__(self) -> None:
        self.steps = 0
        self.last_line = -math.inf
        self.losses = ""
        self.speed = Speed()

    def show(self, event: Event) -> None:
        super().show(event)
        if isinstance(event, Started):
            self.steps = event.steps
            self.say(f"{event.prompt!r} on {event.device}, step {event.step} of {event.steps}, into {event.out_dir}")
        elif isinstance(event, StepDone):
            self.losses = describe_losses(event) or self.losses
            rate = self.speed.after(event)
            if event.step == self.steps or time.monotonic() - self.last_line > PLAIN_LINE_EVERY:
                self.say(f"step {event.step}/{self.steps}  {self.losses}  {rate}")
        elif isinstance(event, Exported):
            self.say(f"wrote {event.path}")

    def say(self, line: str) -> None:
        self.last_line = time.monotonic()
        print(line, file=sys.stderr, flush=True)


class ProgressBar:
    """A bar with step, loss, speed and time left; warnings stay above it."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
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
            note = f"{self.loss}  {self.speed.after(event)}"
            self.progress.update(self.task, completed=event.step, note=note)
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


def describe_losses(event: StepDone) -> str:
    """The losses in one short text; empty between log steps."""
    return "  ".join(f"{name} {value:.4g}" for name, value in event.losses.items())
