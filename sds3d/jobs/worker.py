"""A worker: takes jobs from a queue until none is left, and keeps the prior loaded from one to the next."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from sds3d.config import RunConfig, option
from sds3d.errors import OutputError, RunBusy, Sds3dError
from sds3d.jobs.processes import WorkerId
from sds3d.jobs.queue import Job, Queue, Selection, has_report
from sds3d.priors.base import Prior
from sds3d.run.events import Change, Command, Event, FinishEarly, Finished, Pause, Stop
from sds3d.run.folder import RunFolder
from sds3d.training.session import Session

REST = 1.0  # seconds between looks for a job to take
POLL = 0.25  # seconds between looks for commands
SLICE = 0.1  # seconds until a resting worker notices that it is to stop


@dataclass(frozen=True)
class Outcome:
    """How a run ended. interrupted: saved, and to be gone on with; crashed: another try may do better."""

    state: Literal["done", "stopped", "failed", "interrupted", "crashed"]
    reason: str = ""


class Runner:
    """Runs one config after the other in this process; runs of the same prior and device share it."""

    def __init__(self) -> None:
        self.outcome = Outcome("interrupted")  # of the last run
        self._session: Session | None = None
        self._prior: tuple[object, Prior] | None = None
        self._stopped = False

    def run(self, config: RunConfig, folder: RunFolder, commands: Sequence[Command] = ()) -> Iterator[Event]:
        """Every event of a new run in `folder`, or of the one there as it goes on; `outcome` says how it ended.

        `commands` come before the first step. Errors caused by the config or the run are final; any other error lets
        another worker retry. Raises OutputError, which the next run would meet too, and RunBusy.
        """
        try:
            begin(config, folder)
            key = _prior_key(folder.config())
            if self._prior is not None and self._prior[0] != key:
                self._prior = None  # never two priors in memory
            session = Session.resume(folder.path, None if self._prior is None else self._prior[1])
            for command in commands:
                send(session, command)
            self._session = session
            if self._stopped:
                session.send(Stop())
            self._prior = (key, session.prior())
            last: Event | None = None
            for last in session.run():
                yield last
            assert isinstance(last, Finished), "a run ends with Finished or raises"
            if last.interrupted:
                self.outcome = Outcome("interrupted")
            else:
                self.outcome = Outcome("done" if last.report["steps"] == session.config.steps else "stopped")
        except (OutputError, RunBusy):
            raise
        except Sds3dError as error:
            self.outcome = Outcome("failed", _one_line(str(error)))
        except Exception as error:
            self.outcome = Outcome("crashed", _one_line(f"unexpected {type(error).__name__}: {error}"))
        finally:
            self._session = None

    def send(self, command: Command) -> bool:
        """Tell the run that is under way; False if there is none (yet). Safe from any thread."""
        session = self._session
        if session is not None:
            send(session, command)
        return session is not None

    @property
    def is_running(self) -> bool:
        """Whether there is a run to tell something."""
        return self._session is not None

    def stop(self) -> None:
        """Save the run that is under way, and each later one before its first step. Safe in a signal handler."""
        self._stopped = True
        session = self._session
        if session is not None:
            session.send(Stop())


class Worker:
    """One process's work on a queue."""

    def __init__(self, queue: Queue, only: Selection | None = None, label: str = "") -> None:
        """`only` leaves all other jobs alone; `label` tells several workers of one process apart."""
        self.queue, self.only, self.id = queue, only, WorkerId.here(label)
        self._runner, self._stopped = Runner(), False

    def run(self, forever: bool = False) -> Iterator[tuple[Job, Event]]:
        """Every event of every job that this worker does; ends when all have ended or after `stop`.

        While others work on what is left it waits, because they may die; with `forever` also for jobs yet to come. A
        job that fails does not stop the others. OutputError ends the worker: the next job would meet the same disk.
        """
        while not self._stopped:
            job = self.queue.claim(self.id, self.only)
            if job is not None:
                yield from self._do(job)
            elif forever or self.queue.unfinished(self.only):
                self._rest()
            else:
                return

    def stop(self) -> None:
        """Save the job that is under way, give it back and take no other. Safe in any thread or signal handler."""
        self._stopped = True
        self._runner.stop()

    def _rest(self) -> None:
        end = time.monotonic() + REST
        while not self._stopped and time.monotonic() < end:
            time.sleep(SLICE)

    def _do(self, job: Job) -> Iterator[tuple[Job, Event]]:
        try:
            commands = standing_commands(job, [command for _, command in self.queue.commands(job)])
            ended = how_it_ended(job, commands)
            if ended is not None:  # its worker died between the last event and the result
                self.queue.finish(job, ended)
                return
            with self._listening(job):
                for event in self._runner.run(job.config, job.run, commands):
                    yield job, event
        except RunBusy as error:
            self._leave(job, error)
        except OutputError:
            self.queue.release(job)
            raise
        except Sds3dError as error:  # job.json is damaged
            self.queue.finish(job, "failed", _one_line(str(error)))
        else:
            settle(self.queue, job, self._runner.outcome)

    def _leave(self, job: Job, error: RunBusy) -> None:
        """Somebody goes on with the run by hand."""
        holder = job.run.holder()
        worker = None if holder is None else WorkerId.of(holder.pid)
        if worker is not None and worker.is_alive():
            self.queue.leave_to(job, worker)
        else:
            self.queue.release(job)  # not a failure of the job
            self._rest()

    @contextmanager
    def _listening(self, job: Job) -> Iterator[None]:
        """Inside, a thread passes on what the job is told."""
        ended = threading.Event()

        def listen() -> None:
            heard = job.heard
            try:
                while not ended.wait(POLL):
                    if not self._runner.is_running:
                        continue  # commands are read when there is somebody to tell
                    with suppress(Sds3dError):  # a disk that refuses now may answer at the next look
                        heard, commands = new_commands(self.queue, job, heard)
                        for command in commands:
                            self._runner.send(command)
            finally:
                self.queue.leave_thread()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def begin(config: RunConfig, folder: RunFolder) -> None:
    """Make the run folder, whole or not at all, if there is none. From then on a run is always resumed, which takes its
    lock first, so that two workers that believe to have the same job do not both run it."""
    if folder.exists():
        return
    if folder.checkpoint_steps():  # only its config was lost, and the job has that
        folder.write_config(config)
        return
    if folder.path.is_dir():
        folder.delete()  # the rest of one that was removed
    try:
        RunFolder.create(folder.path, config)
    except OutputError:
        if not folder.exists():  # nor has another worker just made it
            raise


def send(session: Session, command: Command) -> None:
    """Tell a session; a change that it cannot take any more was checked when it was made, and is passed over."""
    with suppress(Sds3dError):
        session.send(command)


def settle(queue: Queue, job: Job, outcome: Outcome) -> None:
    """Tell the queue what became of a claimed job."""
    match outcome.state:
        case "interrupted":
            queue.release(job)
        case "crashed":
            queue.release(job, outcome.reason)
        case state:
            queue.finish(job, state, outcome.reason)


def standing_commands(job: Job, commands: Sequence[Command]) -> list[Command]:
    """What a claimed job was told before: all changes that its run does not have yet as one, and whether to finish."""
    config = job.run.config() if job.run.exists() else job.config
    changes: dict[str, Any] = {}
    for command in commands:
        if isinstance(command, Change):
            changes |= command.changes
    changes = {key: value for key, value in changes.items() if option(config, key) != value}
    finish = [command for command in commands if isinstance(command, FinishEarly)][:1]
    return [*([Change(changes)] if changes else []), *finish]


def new_commands(queue: Queue, job: Job, heard: int) -> tuple[int, list[Command]]:
    """(number of the newest, what to send to the session) of the commands after `heard` to a running job."""
    commands: list[Command] = []
    for number, command in queue.commands(job, heard):
        heard = number
        if isinstance(command, Pause | Stop):
            commands.append(Stop())  # whether the job is then paused or stopped is the queue's to know
        elif isinstance(command, Change | FinishEarly):
            commands.append(command)
    return heard, commands


def how_it_ended(job: Job, commands: Sequence[Command]) -> Literal["done", "stopped"] | None:
    """How the run of a claimed job has ended, if it has."""
    state = job.run.status().state if job.run.exists() and has_report(job.run) else "new"
    if state == "done":
        return "done"
    return "stopped" if state == "stopped" and any(isinstance(command, FinishEarly) for command in commands) else None


def _prior_key(config: RunConfig) -> tuple[object, str]:
    return config.prior, config.device


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
