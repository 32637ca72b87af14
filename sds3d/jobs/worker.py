"""A worker: takes jobs from a queue until none is left, and keeps the prior loaded from one to the next."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch

from sds3d.config import RunConfig, in_all_stages
from sds3d.errors import CheckpointError, ConfigError, OutputError, RunBusy, Sds3dError, is_out_of_memory
from sds3d.jobs.processes import WorkerId, process_start
from sds3d.jobs.queue import Job, Queue, Selection, changes_of, how_it_ended
from sds3d.run.events import Change, Command, Event, FinishEarly, Finished, Pause, Resume, Stop
from sds3d.run.folder import RunFolder
from sds3d.training.sessions import Sessions, send

REST = 0.5  # seconds between looks for a job to take, and until a worker that rests notices that it is to stop
POLL = 0.25  # seconds between looks for commands, or a step where that takes longer: they are obeyed between steps


@dataclass(frozen=True)
class Outcome:
    """How a run ended. interrupted: saved, and to be gone on with; crashed: another try may do better."""

    state: Literal["done", "stopped", "failed", "interrupted", "crashed"]
    reason: str = ""


class Runner(Sessions):
    """Runs one config after the other in this process."""

    outcome = Outcome("interrupted")  # of the last run

    def run(self, config: RunConfig, folder: RunFolder, commands: Sequence[Command] = ()) -> Iterator[Event]:
        """Every event of a new run in `folder`, or of the one there as it goes on; `outcome` says how it ended.

        `commands` come before the first step. Errors caused by the config or the run are final; any other error lets
        another worker retry. Raises OutputError, which the next run would meet too, RunBusy, and torch.AcceleratorError
        where the process has lost its GPU: after an illegal access every call fails.
        """
        try:
            session = self.open(config, folder, commands=commands)
            last: Event | None = None
            for last in session.run():
                yield last
            assert isinstance(last, Finished), "a run ends with Finished or raises"
            has_all = last.report.get("steps") == session.config.steps
            self.outcome = Outcome("interrupted" if last.interrupted else "done" if has_all else "stopped")
        except (OutputError, RunBusy):
            raise
        except Sds3dError as error:
            self.outcome = Outcome("failed", one_line(error))
        except Exception as error:
            self.outcome = Outcome("crashed", one_line(f"unexpected {type(error).__name__}: {error}"))
            if isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
                raise
        finally:
            self._session = None

    def send(self, command: Command) -> bool:
        """Tell the run that is under way; False if there is none (yet). Safe from any thread."""
        session = self._session
        if session is not None:
            send(session, command)
        return session is not None


class Worker:
    """One process's work on a queue."""

    def __init__(self, queue: Queue, only: Selection | None = None, label: str = "") -> None:
        """`only` leaves all other jobs alone; `label` tells several workers of one process apart."""
        self.queue, self.only, self.id = queue, only, WorkerId.here(label)
        self._runner = Runner()

    def run(self, forever: bool = False) -> Iterator[tuple[Job, Event]]:
        """Every event of every job that this worker does; ends when all have ended or after `stop`.

        While others work on what is left it waits, because they may die; with `forever` also for jobs yet to come. A
        job that fails does not stop the others. OutputError and torch.AcceleratorError end the worker: the next job
        would meet the same disk, or a GPU that this process has lost.
        """
        while not self._runner.stopped:
            job = self.queue.claim(self.id, self.only)
            if job is not None:
                yield from self._do(job)
            elif forever or self.queue.unfinished(self.only):
                time.sleep(REST)
            else:
                return

    def stop(self) -> None:
        """Save the job that is under way, give it back and take no other. Safe in any thread or signal handler."""
        self._runner.stop()

    def _do(self, job: Job) -> Iterator[tuple[Job, Event]]:
        try:
            commands = standing_commands(self.queue, job)
            if commands is None:
                return
            heard, looked = job.heard, time.monotonic()
            for event in self._runner.run(job.config, job.run, commands):
                yield job, event
                if time.monotonic() - looked > POLL:
                    with suppress(Sds3dError):  # a disk that refuses now may answer at the next look
                        heard, commands = new_commands(self.queue, job, heard)
                        for command in commands:
                            self._runner.send(command)
                    looked = time.monotonic()
        except RunBusy:  # somebody goes on with the run by hand: no failure of the job
            holder = job.run.holder()
            if holder is not None and process_start(holder.pid) is not None:
                self.queue.leave_to(job, WorkerId.of(holder.pid))
            else:
                self.queue.release(job)
                time.sleep(REST)
        except OutputError:
            with suppress(OutputError):  # the same disk: the first refusal is told, and the next claim finds that this
                self.queue.release(job)  # process is gone
            raise
        except torch.AcceleratorError:
            settle(self.queue, job, self._runner.outcome)
            raise
        else:
            settle(self.queue, job, self._runner.outcome)


def standing_commands(queue: Queue, job: Job) -> list[Command] | None:
    """What a claimed job was told before: all changes that its run does not have yet as one, and whether to finish.

    None where nothing is left to do, which the queue then knows: its run has ended, and the worker that did it died
    before it could say so, or job.json is damaged.
    """
    told = [command for _, command in queue.commands(job)]
    finish = [command for command in told if isinstance(command, FinishEarly)][:1]
    try:
        config = job.config
        if job.run.exists():
            config = job.run.config()
    except (ConfigError, CheckpointError) as error:
        queue.finish(job, "failed", one_line(error))
        return None
    ended = how_it_ended(job.run)
    if ended == "done" or (ended == "stopped" and finish):
        queue.finish(job, ended)
        return None
    changes = {
        key: value
        for key, value in changes_of(told).items()
        if any(found != value for found in in_all_stages(config, key))
    }
    return [*([Change(changes)] if changes else []), *finish]


def new_commands(queue: Queue, job: Job, heard: int) -> tuple[int, list[Command]]:
    """(number of the newest, what to send to the session) of the commands after `heard` to a running job."""
    told = dict(queue.commands(job, heard))
    commands: list[Command] = [
        Stop() if isinstance(command, Pause) else command  # which of the two it was meant to be, the queue knows
        for command in told.values()
        if not isinstance(command, Resume)
    ]
    return max(told, default=heard), commands


def settle(queue: Queue, job: Job, outcome: Outcome) -> None:
    """Tell the queue what became of a claimed job."""
    match outcome.state:
        case "interrupted" | "crashed":
            queue.release(job, outcome.reason)
        case state:
            queue.finish(job, state, outcome.reason)


def one_line(problem: object) -> str:
    """What fits of a problem into a table."""
    return " ".join(str(problem).split())[:500]
