"""A folder of jobs that survives its processes: any number of them, on any machines that share it, take from it.

    LEDGER/<job>/{job.json, claim-N, claim-N.ended, order.json, change.json, result.json, run/}

job.json is what to do and never changes; result.json ends the job. What lies between is told by the claims, so nothing
needs repair after a crash, and nothing is done twice: a job's name is made of its config.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from sds3d.atomic import write_atomic, writing
from sds3d.config import RunConfig, read_json_object
from sds3d.errors import ConfigError, Sds3dError
from sds3d.jobs.lease import Claim, came_further, claims, failure_of, is_alive, owner_of, saved_step, take
from sds3d.run.folder import run_name
from sds3d.training.session import REPORT

JOB, RESULT, ORDER, CHANGE, RUN = "job.json", "result.json", "order.json", "change.json", "run"
LEASE = 60.0  # seconds without a heartbeat after which a job may be taken over
ATTEMPTS = 3  # that may fail, or end with their process and no progress, before a job is set aside

State = Literal["queued", "running", "paused", "stopped", "failed", "done"]
Order = Literal["run", "pause", "stop"]


@dataclass(frozen=True)
class Job:
    """One run to make."""

    name: str
    folder: Path
    config: RunConfig
    added: float  # seconds since 1970; jobs are taken in this order

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / RUN


@dataclass(frozen=True)
class Status:
    """How far a job is; `reason` where it failed or an attempt did."""

    state: State
    reason: str = ""
    attempts: int = 0
    worker: str = ""  # machine and process at work


class Ledger:
    """The jobs of one folder."""

    def __init__(self, folder: Path | str, lease: float = LEASE, attempts: int = ATTEMPTS) -> None:
        self.folder, self.lease, self.attempts = Path(folder), lease, attempts

    def add(self, config: RunConfig) -> Job:
        """Put a job in the queue; one with the same config that is there already is the same job."""
        name = job_name(config)
        folder = self.folder / name
        if not (folder / JOB).is_file():
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
            about = {"added": time.time(), "config": config.to_dict()}
            write_atomic(folder / JOB, (json.dumps(about, indent=2) + "\n").encode())
        return self.job(name)

    def job(self, name: str) -> Job:
        """The job of that name; ConfigError where there is none or its file is damaged."""
        if name not in (path.name for path in self._folders()):  # a name from outside is never used as a path
            raise ConfigError(f"no job {name[:80]!r} in {self.folder}")
        return self._read(name)

    def _read(self, name: str) -> Job:
        about = read_json_object(self.folder / name / JOB)
        config, added = about.get("config"), about.get("added")
        if not isinstance(config, dict) or not isinstance(added, (int, float)):
            raise ConfigError(f"{self.folder / name / JOB} is damaged", hint="remove the folder to forget the job")
        return Job(name, self.folder / name, RunConfig.from_dict(config), float(added))

    def jobs(self) -> list[Job]:
        """All jobs in the order in which they were added. ConfigError names one that is damaged."""
        return sorted((self._read(path.name) for path in self._folders()), key=lambda job: (job.added, job.name))

    def sound_jobs(self) -> list[Job]:
        """As `jobs`, without those that are damaged, or of another version: they are not to hold up the others."""
        sound = []
        for path in self._folders():
            with suppress(ConfigError):
                sound.append(self._read(path.name))
        return sorted(sound, key=lambda job: (job.added, job.name))

    def status(self, job: Job) -> Status:
        """As of now: running jobs of dead workers count as queued, or as failed when there were too many of them."""
        made = claims(job.folder)
        result = _result(job)
        if result is not None:
            return Status(result["state"], result["reason"], len(made))
        failures = self._failures(made)
        reason = next((reason for reason in reversed(failures) if reason), "")
        if made and failure_of(made[-1]) is None and is_alive(made[-1], self.lease):
            about = owner_of(made[-1])
            who = f"{str(about.get('machine', '')).partition(' ')[0]}:{about.get('pid', '')}".strip(":")
            return Status("paused" if self.order(job) == "pause" else "running", reason, len(made), who)
        if len(failures) >= self.attempts:
            return Status("failed", self._set_aside(failures), len(made))
        return Status("queued", reason, len(made))

    def claim(self, job: Job) -> Claim | None:
        """The job for this process, or None: it is ended, at work elsewhere, or was just taken.

        One that failed too often is set aside here, with the reason, and not begun again.
        """
        status = self.status(job)
        if status.state == "failed" and _result(job) is None:
            self._write_result(job, "failed", status.reason)
        if status.state != "queued":
            return None
        claim = take(job.folder, status.attempts + 1)  # the next after those that were judged, if nobody has it yet
        if claim is not None and _result(job) is not None:  # it ended between the two looks
            claim.end()
            return None
        return claim

    def finish(self, job: Job, claim: Claim, state: State, reason: str = "") -> None:
        """End the job, unless another has taken it over in the meantime."""
        if claim.beat():
            self._write_result(job, state, reason)
            claim.end()

    def tell(self, job: Job, order: Order) -> None:
        """Make a running job pause, go on (`run`), or stop and hand over what there is; a queued one that is told to
        stop is ended at once. ConfigError for a job that has ended."""
        state = self.status(job).state
        if state in ("done", "failed", "stopped"):
            raise ConfigError(f"the job {job.name} has ended: it is {state}")
        claim = self.claim(job) if order == "stop" and state == "queued" else None
        if claim is not None:
            self.finish(job, claim, "stopped", "before it began")
        else:
            write_atomic(job.folder / ORDER, json.dumps({"order": order}).encode())

    def order(self, job: Job) -> Order:
        """What the job was last told; `run` where nothing was."""
        try:
            order = json.loads((job.folder / ORDER).read_bytes())["order"]
        except (OSError, ValueError, KeyError, TypeError):
            return "run"
        return cast(Order, order) if order in get_args(Order) else "run"

    def change(self, job: Job, changes: Mapping[str, Any]) -> None:
        """Change options of a job that waits or runs (see `sds3d.config.LIVE`); ConfigError names what cannot be.

        A worker hears of it as of an order. All changes are kept, numbered, in change.json.
        """
        state = self.status(job).state
        if state in ("done", "failed", "stopped"):
            raise ConfigError(f"the job {job.name} has ended: it is {state}")
        before = self.changes(job)
        now = job.config.with_changes({**{k: v for _, made in before for k, v in made.items()}, **changes})
        assert now is not None
        number = before[-1][0] + 1 if before else 1
        rows = [*before, (number, dict(changes))]
        write_atomic(job.folder / CHANGE, json.dumps({"changes": rows}).encode())

    def changes(self, job: Job) -> list[tuple[int, dict[str, Any]]]:
        """All changes so far, in order, with their numbers from 1."""
        try:
            rows = json.loads((job.folder / CHANGE).read_bytes())["changes"]
            return [(int(number), dict(made)) for number, made in rows]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def retry(self, job: Job) -> None:
        """Queue a job again that failed or was stopped; its checkpoints are kept and gone on from."""
        state = self.status(job).state
        if state not in ("failed", "stopped"):
            raise ConfigError(
                f"the job {job.name} is {state}", hint="only what failed or was stopped can be tried again"
            )
        with writing(job.folder):
            for path in (job.folder / ORDER, job.run / REPORT, job.folder / RESULT):
                path.unlink(missing_ok=True)
            for claim in reversed(claims(job.folder)):  # the rest of a retry that is cut off is still in order
                for path in (claim.path, claim.path.with_name(f"{claim.path.name}.ended")):
                    path.unlink(missing_ok=True)

    def _folders(self) -> list[Path]:
        return [path.parent for path in self.folder.glob(f"*/{JOB}")]

    def _failures(self, made: list[Claim]) -> list[str]:
        """Reasons of the claims that failed; "" for one whose process ended without a word and had come no further.

        A machine that is taken away again and again is not the job's fault, as long as it gets on.
        """
        failures = []
        for index, claim in enumerate(made):
            reason, last = failure_of(claim), index + 1 == len(made)
            if reason is None and not (last and is_alive(claim, self.lease)):
                then = saved_step(claim.folder) if last else int(owner_of(made[index + 1]).get("step", 0))
                failures += [] if came_further(claim, then) else [""]
            elif reason:
                failures.append(reason)
        return failures

    def _set_aside(self, failures: list[str]) -> str:
        last = failures[-1] or "the process that worked on it ended without a word"
        return f"set aside after {len(failures)} attempts; the last: {last}"

    def _write_result(self, job: Job, state: State, reason: str) -> None:
        result = {"state": state, "reason": reason, "ended": time.time()}
        write_atomic(job.folder / RESULT, (json.dumps(result, indent=2) + "\n").encode())


def job_name(config: RunConfig) -> str:
    """<slug>-<seed>-<hash of the config>: the same config has the same name, another has another."""
    text = json.dumps(config.to_dict(), sort_keys=True).encode()
    return f"{run_name(config)}-{hashlib.sha256(text).hexdigest()[:8]}"


def _result(job: Job) -> dict[str, Any] | None:
    """The job's end; None where it has none. Done counts only with the run's report, and damage as no end."""
    try:
        result = read_json_object(job.folder / RESULT)
    except Sds3dError:
        return None
    known = {"stopped", "failed"} | ({"done"} if (job.run / REPORT).is_file() else set())
    return result if result.get("state") in known and isinstance(result.get("reason"), str) else None
