"""What the page shows and orders: the queue on disk, its worker processes, and every run folder below the outputs."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sds3d.atomic import remove_tree
from sds3d.config.run_config import RunConfig, read_json_object
from sds3d.errors import ConfigError, Sds3dError
from sds3d.jobs import Job, Ledger
from sds3d.jobs.queue import Status
from sds3d.training.session import CONFIG, REPORT

QUEUE = "queue"  # the ledger's folder, below the outputs
REST = 1.0  # seconds between looks at the workers
FAST_DEATH = 10.0  # a worker that ends sooner than this was not ended by its work


@dataclass(frozen=True)
class Work:
    """One run: a job of the queue, or a folder that the command line made."""

    name: str
    run: Path
    state: str  # of sds3d.jobs.queue.State; a folder without a job is done or unfinished
    reason: str
    config: RunConfig
    added: float
    job: Job | None = None

    @property
    def active(self) -> bool:
        return self.state in ("queued", "running", "paused")


class Works:
    """All runs of one outputs folder."""

    def __init__(self, outputs: Path, limit: int) -> None:
        """`limit` is how many jobs may wait or run at once."""
        self.outputs, self.limit = outputs, limit
        self.ledger = Ledger(outputs / QUEUE)
        self._adding, self._jobs = threading.Lock(), dict[str, Job]()

    def add(self, config: RunConfig) -> Work:
        """Queue a run; ConfigError where the queue is full. The same options again are the same run."""
        with self._adding:
            waiting = sum(work.active for work in self.queued())
            if waiting >= self.limit:
                raise ConfigError(f"the queue is full: {waiting} runs wait or are under way", hint="try again later")
            job = self.ledger.add(config)
        if self.ledger.status(job).state in ("failed", "stopped"):
            self.ledger.retry(job)
        return self._of(job)

    def queued(self) -> list[Work]:
        """The jobs, oldest first. Damaged ones are left out: nothing can be said of them."""
        works = []
        for name in sorted(path.parent.name for path in self.ledger.folder.glob("*/job.json")):
            try:
                works.append(self._of(self._job(name)))
            except Sds3dError:
                continue
        return sorted(works, key=lambda work: (work.added, work.name))

    def all(self) -> list[Work]:
        """Jobs and other run folders, newest first."""
        return sorted([*self.queued(), *self._others()], key=lambda work: -work.added)

    def find(self, name: object) -> Work | None:
        """The run of that name, by looking through all: a name from outside never becomes a path."""
        if not isinstance(name, str):
            return None
        return next((work for work in self.all() if work.name == name), None)

    def place(self, work: Work) -> int:
        """How many jobs are before this one."""
        ahead = [other for other in self.queued() if other.active]
        return next((index for index, other in enumerate(ahead) if other.name == work.name), 0)

    def delete(self, work: Work) -> None:
        """Remove a run that is not under way; ConfigError otherwise."""
        if work.state in ("running", "paused"):
            raise ConfigError(f"{work.name} is {work.state}", hint="stop it first")
        if work.job is not None and work.state == "queued":
            self.ledger.tell(work.job, "stop")
        remove_tree(work.job.folder if work.job is not None else work.run)

    def _job(self, name: str) -> Job:
        """Read once: job.json never changes."""
        if name not in self._jobs:
            self._jobs[name] = self.ledger.job(name)
        return self._jobs[name]

    def _of(self, job: Job) -> Work:
        status: Status = self.ledger.status(job)
        config = job.config
        if (job.run / CONFIG).is_file():
            config = _config(job.run) or job.config  # as it was changed on the way
        return Work(job.name, job.run, status.state, status.reason, config, job.added, job)

    def _others(self) -> list[Work]:
        works = []
        for path in sorted(self.outputs.glob(f"*/{CONFIG}")):
            config = _config(path.parent)
            if config is not None:
                state = "done" if (path.parent / REPORT).is_file() else "unfinished"
                works.append(Work(path.parent.name, path.parent, state, "", config, path.stat().st_mtime))
        return works


def _config(run: Path) -> RunConfig | None:
    """None where the folder has no readable config.json."""
    try:
        return _read_config(run / CONFIG, (run / CONFIG).stat().st_mtime_ns)
    except (OSError, Sds3dError):
        return None


@lru_cache(4096)
def _read_config(path: Path, changed: int) -> RunConfig:
    """Read once for each time that it was changed: the page looks at all runs every second."""
    return RunConfig.from_dict(read_json_object(path))


class Workers:
    """Worker processes, one for each device, that are replaced when they die. They save and end with this process."""

    def __init__(self, ledger: Ledger, number: int) -> None:
        self._ledger, self._number = ledger, number
        self._ended = threading.Event()
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * number
        self._begun = [0.0] * number
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        self._ledger.folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def end(self) -> None:
        """Tell all to save and give back what they do, and wait for them."""
        self._ended.set()
        self._thread.join()
        for process in self._processes:
            if process is not None:
                process.terminate()
        for process in self._processes:
            if process is not None:
                process.wait()

    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process is not None and process.poll() is None]

    def _keep(self) -> None:
        while not self._ended.is_set():
            for index, process in enumerate(self._processes):
                dead = process is None or process.poll() is not None
                if dead and time.monotonic() - self._begun[index] > FAST_DEATH:  # never a tight loop of deaths
                    self._processes[index] = self._start(index)
            self._ended.wait(REST)

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        threads = max(1, (os.cpu_count() or 1) // self._number)
        command = [sys.executable, "-m", "sds3d_app.workers.process", str(self._ledger.folder), "--forever"]
        command += ["--threads", str(threads), "--with-parent"]
        self._begun[index] = time.monotonic()
        environment = environment_of(index, self._number, {**os.environ, "OMP_NUM_THREADS": str(threads)})
        return subprocess.Popen(command, env=environment, start_new_session=True)


def environment_of(index: int, number: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """One GPU for each worker where there are several workers, unless the person has chosen the devices."""
    if number > 1 and "CUDA_VISIBLE_DEVICES" not in environment:
        return {**environment, "CUDA_VISIBLE_DEVICES": str(index)}
    return dict(environment)
