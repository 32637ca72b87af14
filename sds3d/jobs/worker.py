"""Takes jobs from a ledger until none is left, and keeps the prior loaded from one to the next."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from sds3d.config.run_config import RunConfig
from sds3d.errors import ConfigError, OutputError, Sds3dError
from sds3d.jobs.lease import Claim
from sds3d.jobs.queue import Job, Ledger, State
from sds3d.priors.base import Prior
from sds3d.run.event_log import finished_report
from sds3d.run.events import Event, Finished
from sds3d.training.session import CONFIG, Session

UNDER_WAY = ("queued", "running", "paused")
REST = 1.0  # seconds between looks for a job to take
POLL = 0.25  # seconds between signs of life, and looks at what a job was told


class Worker:
    """One process's work on a ledger."""

    def __init__(self, ledger: Ledger, wanted: Callable[[Job], bool] = lambda job: True) -> None:
        """`wanted` leaves jobs to others."""
        self.ledger, self.wanted = ledger, wanted
        self._stopped, self._rested = False, threading.Event()
        self._session: Session | None = None
        self._prior: tuple[RunConfig, Prior] | None = None

    def run(self, forever: bool = False) -> Iterator[tuple[Job, Event]]:
        """Every event of every job that this worker does; ends when all have ended or after `stop`.

        While others work on what is left it waits, because they may die; with `forever` also for jobs yet to come. A
        job that fails does not stop the others: see Ledger.status. OutputError ends the worker, because the next job
        would meet the same disk.
        """
        while not self._stopped:
            found = self.ledger.sound_jobs() if forever else self.ledger.jobs()
            jobs = [job for job in found if self.wanted(job)]
            taken = next(((job, claim) for job in jobs if (claim := self.ledger.claim(job)) is not None), None)
            if taken is not None:
                yield from self._do(*taken)
            elif forever or any(self.ledger.status(job).state in UNDER_WAY for job in jobs):
                self._rested.wait(REST)
            else:
                return

    def stop(self) -> None:
        """Save the job that is under way, give it back and take no other. Safe from any thread or signal handler."""
        self._stopped = True
        self._rested.set()
        if self._session is not None:
            self._session.stop()

    def _do(self, job: Job, claim: Claim) -> Iterator[tuple[Job, Event]]:
        last: Event | None = None
        with self._kept(job, claim) as lost:  # from here on, for a large prior takes its time to load
            try:
                report = finished_report(job.run)
                if report is not None:  # its worker ended between the last event and the result
                    self.ledger.finish(job, claim, _end_of(job, report))
                    return
                session = self._session = self._open(job)
                if self._stopped:
                    session.stop()
                for last in session.run():
                    if lost.is_set():
                        claim.end()  # no longer ours, or not for long
                        return
                    yield job, last
            except Exception as error:
                self._failed(job, claim, error)
                return
            finally:
                self._session = None
        assert isinstance(last, Finished), "a run ends with Finished or raises"
        if last.interrupted:
            claim.end()
        else:
            self.ledger.finish(job, claim, _end_of(job, last.report))

    def _open(self, job: Job) -> Session:
        """The job's session, new or resumed, with the prior of the job before where it is the same."""
        same = self._prior is not None and _prior_key(self._prior[0]) == _prior_key(job.config)
        prior = self._prior[1] if self._prior is not None and same else None
        self._prior = None  # never two priors in memory
        if (job.run / CONFIG).is_file():
            session = Session.resume(job.run, prior)
        else:
            session = Session(job.config, job.run, prior=prior)
        self._prior = (job.config, session.prior())
        return session

    def _failed(self, job: Job, claim: Claim, error: Exception) -> None:
        """What the config or the run itself is the reason of would fail again: the job ends. Else another may try."""
        if isinstance(error, OutputError):
            claim.end()
            raise error
        reason = str(error) if isinstance(error, Sds3dError) else f"unexpected {type(error).__name__}: {error}"
        reason = " ".join(reason.split())[:500]
        if isinstance(error, Sds3dError):
            self.ledger.finish(job, claim, "failed", reason)
        else:
            claim.end(reason)

    @contextmanager
    def _kept(self, job: Job, claim: Claim) -> Iterator[threading.Event]:
        """Inside, a thread says that the worker is alive and passes on what the job is told; the event is set when
        another worker has taken the job over, or soon may."""
        ended, lost = threading.Event(), threading.Event()

        def keep() -> None:
            heard, known = time.monotonic(), Counter[str]()
            while not ended.wait(POLL):
                try:
                    owned = claim.beat()
                    heard = time.monotonic()
                except OutputError:  # the disk may come back, until another may take over
                    owned = time.monotonic() - heard < self.ledger.lease / 2
                if not owned:
                    lost.set()
                self._pass_on("lost" if lost.is_set() else self.ledger.order(job))
                self._change(job, known)
                if lost.is_set():
                    return

        thread = threading.Thread(target=keep, daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            ended.set()
            thread.join()

    def _change(self, job: Job, known: Counter[str]) -> None:
        """Tells the session of changes that it has not heard of; `known` counts them. Those made before it began too:
        a change that is there already changes nothing."""
        session = self._session
        if session is None:
            return
        for number, changes in self.ledger.changes(job):
            if number > known["changes"]:
                known["changes"] = number
                with suppress(ConfigError):  # checked when it was made; the run may have ended since
                    session.change(changes)

    def _pass_on(self, order: str) -> None:
        session = self._session
        if session is None:  # still loading, or done
            return
        if order == "lost":
            session.stop()
        elif order == "pause":
            session.pause()
        elif order == "stop":
            session.finish_early()
        else:
            session.unpause()


def _end_of(job: Job, report: Mapping[str, Any]) -> State:
    return "done" if report.get("steps") == job.config.steps else "stopped"


def _prior_key(config: RunConfig) -> tuple[object, str]:
    return config.prior, config.device
