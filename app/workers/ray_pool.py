"""`sds3d batch --ray`: the batch's workers as Ray actors, on as many machines as the cluster has.

Ray only places the actors and starts them anew. The driver owns the queue's database: it claims a job for an actor,
sends it, and puts what comes back into the job's folder, unless the actor sees that folder and writes into it itself.
"""

import importlib.util
import os
import secrets
import signal
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from sds3d.atomic import write_atomic
from sds3d.config import local_files
from sds3d.errors import ConfigError, first_line
from sds3d.jobs import Job, Queue, Selection
from sds3d.jobs.processes import WorkerId
from sds3d.jobs.worker import Outcome, new_commands, settle, standing_commands
from sds3d.training.sessions import begin

from ..exit_codes import DONE, FAILED
from .ray_actor import RayWorker, packed, unpacked

PROBE = ".ray-probe"  # in the queue's folder: who can read it shares the folder
LOOPBACK = "127.0.0.1"
# A cluster that is started here is for this machine alone. By itself Ray looks for the metadata server of a cloud, and
# reports that it was told to report nothing: whatever would leave this machine goes to a port where nobody listens.
NOWHERE = f"http://{LOOPBACK}:9"
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_REPORT_URL": NOWHERE, "RAY_NODE_IP_ADDRESS": LOOPBACK,
    **dict.fromkeys(PROXIES, NOWHERE), "no_proxy": f"{LOOPBACK},localhost", "NO_PROXY": f"{LOOPBACK},localhost",
}  # fmt: skip
ANSWER = 10.0  # seconds for a cluster to answer
PATIENCE = 120.0  # seconds for all to save when they are told to end


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
    before = {name: os.environ[name] for name in changes if name in os.environ}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in changes:
            os.environ.pop(name, None)
        os.environ.update(before)


def gpu_share(devices: Collection[str]) -> float:
    """GPUs of each actor: one where jobs name CUDA, or leave the device open ("auto") to a cluster that has GPUs."""
    has_gpus = require_ray().cluster_resources().get("GPU", 0) > 0
    return 1.0 if any(device.startswith("cuda") or (device == "auto" and has_gpus) for device in devices) else 0.0


def actor_count(gpus: float) -> int:
    """How many actors the cluster has room for."""
    resources = require_ray().cluster_resources()
    return max(1, int(resources.get("GPU", 0) / gpus) if gpus else int(resources.get("CPU", 1)))


class RayWorkerPool:
    """As WorkerPool, with actors of the cluster that is connected to: `start`, `at_work` and `end`, and `problem`."""

    def __init__(self, queue: Queue, workers: int, only: Selection, gpus: float) -> None:
        """`gpus` of each actor, or a part of one."""
        self.ray, self.queue, self.only = require_ray(), queue, only
        self.token, self.probe = secrets.token_hex(16), queue.folder.resolve() / PROBE
        self.handles: list[RayWorkerHandle] = []
        self._workers, self._gpus = workers, gpus

    def start(self) -> None:
        """Ask the cluster for the actors."""
        write_atomic(self.probe, self.token.encode())
        variables = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        variables |= {name: os.environ.get(name, "") for name in (*PROXIES, "no_proxy", "NO_PROXY")}  # as they were
        actor = self.ray.remote(RayWorker).options(
            num_cpus=0 if self._gpus else 1,
            num_gpus=self._gpus,
            max_restarts=-1,
            max_concurrency=4,
            runtime_env={"env_vars": variables},
        )
        self.handles = [RayWorkerHandle(self, actor.remote(), f"ray-{number}") for number in range(self._workers)]

    def at_work(self) -> bool:
        """Whether there is something left to do and someone to do it; to be asked about once a second."""
        for handle in self.handles:
            handle.look()
        return self.queue.unfinished(self.only) and any(not handle.ended for handle in self.handles)

    def end(self) -> None:
        """Tell all to save and give back what they do, wait for them, and let go of the cluster."""
        for handle in self.handles:
            handle.stop()
        end = time.monotonic() + PATIENCE
        while any(not handle.ended for handle in self.handles) and time.monotonic() < end:
            for handle in self.handles:
                handle.look()
            time.sleep(0.1)
        for handle in self.handles:
            self.ray.kill(handle.actor)
        self.probe.unlink(missing_ok=True)
        self.ray.shutdown()

    def problem(self) -> int:
        """The exit code of what went wrong beside the jobs; 0 if all is well."""
        return FAILED if any(handle.failed for handle in self.handles) else DONE


class RayWorkerHandle:
    """The driver's side of one actor: claims jobs for it, sends them, passes commands on, and settles what comes back.

    Only the driver opens the queue's database. Actors that see its folder write run folders in place.
    """

    def __init__(self, pool: RayWorkerPool, actor: Any, label: str) -> None:
        self.pool, self.actor, self.ended = pool, actor, False
        self.failed = False  # with an error that the next job would meet, too
        self.job: Job | None = None
        self._worker = WorkerId.here(label)
        self._heard, self._shares, self._stopped = 0, False, False
        self._call: Any = None  # what the actor was asked last and has not answered
        self._ask_for_folder()

    def stop(self) -> None:
        """Save and give back what it does; an actor that has no job has nothing to save."""
        self._stopped = True
        if self.job is None:
            self.ended = True
        else:
            self.actor.stop.remote()

    def look(self) -> None:
        """Go on with what has come back since the last look."""
        ray = self.pool.ray
        if self.ended:
            return
        if self._call is None:
            self._send_next()
            return
        if self.job is not None:
            self._pass_on(self.job)
        if not ray.wait([self._call], timeout=0)[0]:
            return
        call, self._call = self._call, None
        try:
            answer = ray.get(call)
        except ray.exceptions.RayError as error:
            self.failed = isinstance(error, ray.exceptions.RayTaskError)
            reason = str(error.cause) if self.failed else "its Ray worker ended without a word"
            if self.job is not None:
                self.pool.queue.release(self.job, reason, died=not self.failed)
                self.job = None
            self.ended = self._stopped or self.failed
            if not self.failed:  # the actor died, or its node did: Ray starts it anew, here or elsewhere
                self._ask_for_folder()
            return
        if self.job is None:
            self._shares = bool(answer)
        else:
            self._settle(answer)
        self.ended = self._stopped
        if not self.ended:
            self._send_next()

    def _ask_for_folder(self) -> None:
        self._call = self.actor.shares.remote(str(self.pool.probe), self.pool.token)

    def _send_next(self) -> None:
        """The next job to the actor, if there is one; others may die, so there may be one later."""
        job = self.pool.queue.claim(self._worker, self.pool.only)
        commands = None if job is None else standing_commands(self.pool.queue, job)
        if job is None or commands is None:
            return
        self.job, self._heard, config = job, job.heard, job.config
        if local_files(config) and not self._shares:  # they go along with the run folder
            begin(config, job.run)
        run = str(job.run.path.resolve()) if self._shares else packed(job.run.path) if job.run.exists() else None
        self._call = self.actor.run.remote(config.said, config.to_dict(), [each.to_dict() for each in commands], run)

    def _pass_on(self, job: Job) -> None:
        ray = self.pool.ray
        heard, commands = new_commands(self.pool.queue, job, self._heard)
        with suppress(ray.exceptions.GetTimeoutError, ray.exceptions.RayError):
            if commands and ray.get(self.actor.send.remote([each.to_dict() for each in commands]), timeout=1.0):
                self._heard = heard  # else they are sent again

    def _settle(self, answer: Mapping[str, Any]) -> None:
        """What an actor made of its job, unless the job is not this actor's any more."""
        job, self.job = self.job, None
        assert job is not None
        if self.pool.queue.job(job.name).worker != job.worker:
            return
        outcome = Outcome(answer["state"], answer["reason"])
        try:
            if answer["run"] is not None:
                unpacked(answer["run"], job.run.path)
        except ConfigError as error:
            outcome = Outcome("crashed", str(error))
        settle(self.pool.queue, job, outcome)
