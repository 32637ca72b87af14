"""`sds3d batch --ray`: the batch's workers as Ray actors, on as many machines as the cluster has.

Ray only places the actors and starts them anew. Who does which job is told by the ledger, as for local workers: actors
that see the batch's folder work on it themselves, and for those that do not the driver claims a job, sends it, and puts
what comes back into the folder.
"""

import importlib.util
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sds3d.atomic import write_atomic
from sds3d.errors import ConfigError, first_line
from sds3d.jobs import Job, Ledger
from sds3d.jobs.lease import Claim

from ..exit_codes import DONE, FAILED
from .ray_actor import Slot, packed, unpacked

PROBE = ".ray-probe"  # in the batch's folder: who can read it shares the folder
LOOPBACK = "127.0.0.1"
# A cluster that is begun here is for this machine alone, and asks nobody anything. Ray by itself looks for the cloud
# that it may be in, and reports even that it is told to report nothing: what is not for this machine goes nowhere.
NOWHERE = f"http://{LOOPBACK}:9"
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_REPORT_URL": NOWHERE, "RAY_NODE_IP_ADDRESS": LOOPBACK,
    **dict.fromkeys(PROXIES, NOWHERE), "no_proxy": f"{LOOPBACK},localhost", "NO_PROXY": f"{LOOPBACK},localhost",
}  # fmt: skip
ANSWER = 10.0  # seconds for a cluster to answer
PATIENCE = 120.0  # seconds for the first actor to begin, and for all to save when they are told to end
UNDER_WAY = ("queued", "running", "paused")


def require_ray() -> Any:
    """The package; ConfigError where the extra is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--ray needs Ray, which is not installed", hint='pip install "sds3d[ray]"')
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    import ray

    return ray


def connect(address: str) -> None:
    """Join the cluster at `address` (HOST:PORT, or auto), or begin one on this machine (local); ConfigError if not."""
    ray = require_ray()
    host, colon, port = address.rpartition(":")
    if address not in ("local", "auto") and not (host and colon and port.isdecimal()):
        raise ConfigError(f"--ray {address[:60]!r} is no address", hint="say HOST:PORT, auto or local")
    given = {"log_to_driver": False, "logging_level": "ERROR", "ignore_reinit_error": True}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address == "local":
            with environment(QUIET):
                ray.init(address="local", include_dashboard=False, _node_ip_address=LOOPBACK, **given)
        else:
            if colon:  # Ray itself would try for minutes
                socket.create_connection((host, int(port)), ANSWER).close()
            ray.init(address=address, **given)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError, ... by the way in which it is not there
        hint = "start one with `ray start --head`, or say --ray local"
        raise ConfigError(f"--ray {address}: no Ray cluster answers there: {first_line(error)}", hint=hint) from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own there, which does not save


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Inside, what this process and those that it begins find in their environment."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def slots_of(gpus: float) -> int:
    """How many actors the cluster has room for."""
    resources = require_ray().cluster_resources()
    return max(1, int(resources.get("GPU", 0) / gpus) if gpus else int(resources.get("CPU", 1)))


class RayCrew:
    """As batching.Crew, on a cluster that is connected to."""

    def __init__(self, ledger: Ledger, jobs: Sequence[Job], number: int, gpus: float, threads: int = 1) -> None:
        self.ray, self.ledger, self.jobs = require_ray(), ledger, list(jobs)
        self._failed = ""
        self._token = secrets.token_hex(16)
        ledger.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(ledger.folder / PROBE, self._token.encode())
        actor = self.ray.remote(Slot)
        options = {"num_cpus": 0 if gpus else threads, "num_gpus": gpus, "max_restarts": -1, "max_concurrency": 4}
        environment = {"OMP_NUM_THREADS": str(threads), "RAY_USAGE_STATS_ENABLED": "0"}
        environment |= {name: os.environ.get(name, "") for name in (*PROXIES, "no_proxy", "NO_PROXY")}  # as they were
        self.seats = [
            Seat(self, actor.options(**options, runtime_env={"env_vars": environment}).remote(threads))
            for _ in range(number)
        ]

    def probe(self) -> tuple[str, str]:
        """(file, what it says) by which an actor knows that it shares the folder."""
        return str((self.ledger.folder / PROBE).resolve()), self._token

    def at_work(self) -> bool:
        """Whether there is something left to do and someone to do it; to be asked about once a second."""
        for seat in self.seats:
            seat.look()
        left = any(self.ledger.status(job).state in UNDER_WAY for job in self.jobs)
        return left and any(not seat.ended for seat in self.seats)

    def next_job(self) -> tuple[Job, Claim] | None:
        """One that the driver has claimed for an actor that does not share the folder."""
        return next(((job, claim) for job in self.jobs if (claim := self.ledger.claim(job)) is not None), None)

    def fail(self, reason: str) -> None:
        """An actor ended with an error that the next job would meet, too."""
        self._failed = reason

    def end(self) -> None:
        """Tell all to save and give back what they do, wait for them, and let go of the cluster."""
        for seat in self.seats:
            seat.stop()
        end = time.monotonic() + PATIENCE
        while any(not seat.ended for seat in self.seats) and time.monotonic() < end:
            for seat in self.seats:
                seat.look()
            time.sleep(0.1)
        for seat in self.seats:
            self.ray.kill(seat.actor)
        (self.ledger.folder / PROBE).unlink(missing_ok=True)
        self.ray.shutdown()

    def problem(self) -> int:
        """The exit code of what went wrong beside the jobs; 0 where nothing did."""
        return FAILED if self._failed else DONE


class Seat:
    """One actor and the call that it is at: a question for the folder, all of a shared ledger, or one job."""

    def __init__(self, crew: RayCrew, actor: Any) -> None:
        self.crew, self.actor, self.ended = crew, actor, False
        self._shares: bool | None = None
        self._job: tuple[Job, Claim] | None = None
        self._stopped = False
        self._call = actor.sees.remote(*crew.probe())

    def stop(self) -> None:
        """Save and give back what it does; an actor that has not begun has nothing to save."""
        self._stopped = True
        if self._shares is None:
            self.ended = True
        else:
            self.actor.stop.remote()

    def look(self) -> None:
        """Go on with what has come back since the last look."""
        ray = self.crew.ray
        if self._job is not None:
            self._job[1].beat()
        if self.ended or not ray.wait([self._call], timeout=0)[0]:
            return
        try:
            answer = ray.get(self._call)
        except ray.exceptions.RayTaskError as error:
            self.ended = True
            self._give_back(str(error.cause))
            self.crew.fail(str(error.cause))
            return
        except ray.exceptions.RayError:  # the actor died, or its node did: Ray starts it anew, here or elsewhere
            self._give_back("its Ray worker ended without a word")
            self._shares, self._call = None, self.actor.sees.remote(*self.crew.probe())
            self.ended = self._stopped
            return
        self._heard(answer)

    def _heard(self, answer: Any) -> None:
        if self._shares is None:
            self._shares = bool(answer)
        elif self._shares:
            self.ended = True  # all jobs have ended, or it was told to stop
            return
        else:
            self._keep(answer)
        if self._stopped:
            self.ended = True
        elif self._shares:
            names, ledger = [job.name for job in self.crew.jobs], self.crew.ledger
            self._call = self.actor.work.remote(str(ledger.folder.resolve()), names, ledger.lease, ledger.attempts)
        else:
            self._send()

    def _send(self) -> None:
        """The next job to an actor that does not share the folder."""
        self._job = self.crew.next_job()
        if self._job is None:  # others are at what is left, and may die: ask again
            self._call = self.actor.nothing.remote()
            return
        job = self._job[0]
        self._call = self.actor.make.remote(job.config.to_dict(), packed(job.run) if job.run.is_dir() else None)

    def _keep(self, answer: Any) -> None:
        """What an actor made of its job."""
        if self._job is None:
            return
        (job, claim), self._job = self._job, None
        if not claim.beat():
            return
        unpacked(answer["run"], job.run)
        if answer["state"] == "queued":
            claim.end(answer["reason"])
        else:
            self.crew.ledger.finish(job, claim, answer["state"], answer["reason"])

    def _give_back(self, reason: str) -> None:
        if self._job is not None:
            self._job[1].end(reason)
            self._job = None
