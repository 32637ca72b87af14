"""`sds3d batch`: a list of prompts, done by worker processes that share a ledger; the same command goes on with it."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sds3d import RunConfig
from sds3d.errors import ConfigError
from sds3d.jobs import Job, Ledger
from sds3d.jobs.gallery import PAGE, SUMMARY, Outcome, counts, outcomes, write_summary
from sds3d.jobs.queue import job_name
from sds3d.run.event_log import last_step
from sds3d.training.session import EVENTS

from ..exit_codes import DONE, FAILED, INTERRUPTED, say_note, stopped_by_signals

SOME_FAILED = 3  # besides DONE for all and FAILED for none
LOOK_EVERY = 1.0  # seconds
ROWS = 20  # of the table on a terminal


@dataclass(frozen=True)
class Crewing:
    """Who works: processes of this machine, or with `ray` (an address) actors of a Ray cluster."""

    workers: int | None = None  # one, or as many as the cluster has room for
    ray: str | None = None
    gpus: float | None = None  # of each actor; None: one where the jobs are for CUDA


def run_batch(
    configs: Sequence[RunConfig],
    folder: Path,
    crewing: Crewing,
    attempts: int,
    again: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Everything of the list that is not done yet; the exit code."""
    ledger = Ledger(folder, attempts=attempts)
    if dry_run:
        return say_plan(ledger, configs)
    jobs = [ledger.add(config) for config in configs]
    if again:
        for job in jobs:
            if ledger.status(job).state == "failed":
                ledger.retry(job)
    with stopped_by_signals() as interruption, display(as_json) as show, crew_of(ledger, jobs, crewing) as crew:
        while crew.at_work() and not interruption.wait(LOOK_EVERY):
            show(ledger, outcomes(ledger, jobs))
    found = outcomes(ledger, jobs)
    write_summary(ledger, found)
    if as_json:
        print(json.dumps({"counts": counts(found), "summary": str(folder / SUMMARY)}), flush=True)
    else:
        print(f"{', '.join(f'{number} {state}' for state, number in counts(found).items())}; see {folder / PAGE}")
        for outcome in found:
            if outcome.state == "failed":
                print(f"failed: {outcome.prompt} (seed {outcome.seed}, {outcome.guidance}): {outcome.reason}")
    if any(outcome.state in ("queued", "running", "paused") for outcome in found):
        if crew.problem() and not interruption.requested:  # those that are told to stop while they load end by a signal
            return say_problem(crew.problem())
        say_note(f"interrupted and saved in {shlex.quote(str(folder))}; the same command goes on")
        return INTERRUPTED
    good = sum(outcome.state in ("done", "stopped") for outcome in found)
    return DONE if good == len(found) else SOME_FAILED if good else FAILED


def say_problem(code: int) -> int:
    """Why workers ended before their work, where they have not said it; the exit code."""
    if code > 0:
        return code
    say_note("the workers were killed again and again, perhaps for want of memory: try fewer --jobs")
    return FAILED


def say_plan(ledger: Ledger, configs: Sequence[RunConfig]) -> int:
    """Print what would be done; the exit code."""
    known = {job.name for job in ledger.jobs()}
    for config in configs:
        name = job_name(config)
        state = ledger.status(ledger.job(name)).state if name in known else "new"
        print(f"{state:8} {name}  {config.prompt}")
    return DONE


class Crew:
    """Worker processes that are kept at their number for as long as there is something to do."""

    def __init__(self, command: list[str], environment: Mapping[str, str], number: int, replacements: int) -> None:
        self.command, self.environment, self.replacements = command, environment, replacements
        self.processes = [self._start() for _ in range(number)]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command, env=self.environment, start_new_session=True)

    def at_work(self) -> bool:
        """Whether any is. One that was killed is replaced, as long as there are replacements: it may have died of what
        the next one would die of too."""
        for index, process in enumerate(self.processes):
            if process.poll() is not None and process.returncode < 0 and self.replacements > 0:
                self.replacements -= 1
                self.processes[index] = self._start()
        return any(process.poll() is None for process in self.processes)

    def end(self) -> None:
        """Tell all to save and give back what they do, and wait for them."""
        for process in self.processes:
            process.terminate()  # does nothing to one that has ended
        for process in self.processes:
            process.wait()

    def problem(self) -> int:
        """The exit code of a worker that ended with an error; 0 where none did."""
        return next((p.returncode for p in self.processes if p.returncode not in (DONE, INTERRUPTED)), 0)


def crew_of(ledger: Ledger, jobs: Sequence[Job], crewing: Crewing) -> AbstractContextManager[Any]:
    """A Crew, or a RayCrew, at work; told to save and end where the block is left early."""
    if crewing.ray is None:
        return started(ledger, jobs, crewing.workers or 1)
    return started_on_ray(ledger, jobs, crewing)


@contextmanager
def started_on_ray(ledger: Ledger, jobs: Sequence[Job], crewing: Crewing) -> Iterator[Any]:
    """Actors of the cluster at crewing.ray."""
    from ..workers.ray_pool import RayCrew, connect, slots_of

    assert crewing.ray is not None
    connect(crewing.ray)
    gpus = crewing.gpus
    if gpus is None:
        gpus = 1.0 if any(job.config.device.startswith("cuda") for job in jobs) else 0.0
    crew = RayCrew(ledger, jobs, crewing.workers or slots_of(gpus), gpus)
    try:
        yield crew
    finally:
        crew.end()


@contextmanager
def started(ledger: Ledger, jobs: Sequence[Job], workers: int) -> Iterator[Crew]:
    """Workers that take these jobs; they are told to save and end where the block is left early."""
    with tempfile.TemporaryDirectory(prefix="sds3d-batch-") as scratch:
        names = Path(scratch) / "jobs"
        names.write_text("\n".join(job.name for job in jobs))
        threads = max(1, (os.cpu_count() or 1) // workers)
        command = [sys.executable, "-m", "sds3d_app.workers.process", str(ledger.folder), "--only", str(names)]
        command += ["--threads", str(threads), "--attempts", str(ledger.attempts), "--lease", str(ledger.lease)]
        crew = Crew(command, {**os.environ, "OMP_NUM_THREADS": str(threads)}, workers, ledger.attempts * len(jobs))
        try:
            yield crew
        finally:
            crew.end()


@contextmanager
def display(as_json: bool) -> Iterator[Any]:
    """A function that shows how far all jobs are: a live table on a terminal, else a line for each change."""
    console = Console(stderr=True)
    seen: dict[str, str] = {}

    def lines(ledger: Ledger, found: Sequence[Outcome]) -> None:
        for outcome in found:
            if seen.get(outcome.name, "queued") != outcome.state:
                said = {"job": outcome.name, "state": outcome.state, "reason": outcome.reason}
                print(json.dumps(said), flush=True) if as_json else say_note(f"{outcome.state:8} {outcome.name}")
            seen[outcome.name] = outcome.state

    if as_json or not console.is_terminal:
        yield lines
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:
        yield lambda ledger, found: live.update(progress_table(ledger, found), refresh=True)


def progress_table(ledger: Ledger, found: Sequence[Outcome]) -> Table:
    """What is at work first, then what waits, then what has ended, as far as there is room."""
    table = Table(title=", ".join(f"{number} {state}" for state, number in counts(found).items()))
    for column in ("prompt", "seed", "guidance", "state", "step"):
        table.add_column(column)
    rank = {"running": 0, "paused": 1, "queued": 2, "failed": 3, "stopped": 4, "done": 5}
    for outcome in sorted(found, key=lambda outcome: rank[outcome.state])[:ROWS]:
        step = last_step(ledger.folder / outcome.run / EVENTS) if outcome.state in ("running", "paused") else None
        table.add_row(
            outcome.prompt, str(outcome.seed), outcome.guidance, outcome.state, "" if step is None else str(step)
        )
    return table


def shard_of(configs: Sequence[RunConfig], text: str | None) -> Sequence[RunConfig]:
    """Every N-th config, for `I/N` with I from 1 to N; all of them for none."""
    if text is None:
        return configs
    index, slash, number = text.partition("/")
    if not (slash and index.isdecimal() and number.isdecimal() and 1 <= int(index) <= int(number)):
        raise ConfigError(f"--shard {text[:20]!r} is not I/N with I from 1 to N", hint="for example --shard 2/8")
    return configs[int(index) - 1 :: int(number)]


def parse_vary(texts: Sequence[str]) -> dict[str, list[str]]:
    """KEY=A,B,C texts."""
    found = {}
    for text in texts:
        key, equals, values = text.partition("=")
        each = [value.strip() for value in values.split(",") if value.strip()]
        if not (key and equals and each):
            raise ConfigError(f"--vary {text[:60]!r} is not KEY=VALUE,VALUE,...", hint="for example --vary seed=0,1,2")
        found[key] = each
    return found
