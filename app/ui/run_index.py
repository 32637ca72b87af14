"""Every run below the outputs folder, by name: an index that follows changes, so that a look does not cost a scan."""

import logging
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sds3d.config import RunConfig
from sds3d.errors import ConfigError, Sds3dError
from sds3d.jobs.queue import UNFINISHED, Job, Queue
from sds3d.run.folder import RunFolder
from sds3d.scenes import SceneConfig

from .run_log import RunLog, RunLogs

QUEUE = "queue"  # the folder of the queue, below the outputs
UNDER_WAY = ("new", "running", "paused")  # of a run of the command line
REVISITED = 4  # ended runs of the command line that each look checks again, in turn: somebody may have resumed them
CONFIG_SETTLED = 5.0  # seconds after which both files of a config are written, so that what was read can be kept
UNDO = 10.0  # seconds in which a removal can be undone
SETTLED = 1.0  # seconds until a folder's time tells: further changes in the same tick of the clock leave it as it is


@dataclass(frozen=True, eq=False)
class RunEntry:
    """One run: a job of the queue, or a run folder that the command line made."""

    name: str
    folder: RunFolder
    state: str  # of sds3d.jobs.queue.State for a job, else of sds3d.run.folder.State
    reason: str
    prompt: str
    guidance: str
    added: float  # time of day
    job: Job | None = None

    @property
    def active(self) -> bool:
        """Whether it waits or is under way."""
        return self.state in ("queued", *UNDER_WAY)

    @property
    def config(self) -> RunConfig:
        """As it runs, with changes made during the run; a job that has not begun: as it was added."""
        try:
            written = self.folder.config_file.stat().st_mtime_ns
            is_settled = time.time_ns() - written > 1e9 * CONFIG_SETTLED
            return _config(self.folder.path, written) if is_settled else self.folder.config()
        except FileNotFoundError:
            if self.job is None:
                raise ConfigError(f"the run {self.name} is gone") from None
            return self.job.config

    @property
    def scene(self) -> SceneConfig:
        """The options of the scene that there is to export: of the stage that the run stands in."""
        config = self.config
        return config.in_stage(min(self.folder.stage(), len(config.stages))).scene if config.stages else config.scene


@lru_cache(256)
def _config(run: Path, changed: int) -> RunConfig:
    """Read once for each time that it was written."""
    return RunFolder(run).config()


class QueueFull(ConfigError):
    """As many runs wait or are under way as may."""


class RunIndex:
    """All runs of one outputs folder. Safe for any number of threads.

    Each look asks the queue what has changed since the last, lists the outputs folder only if its time has changed, and
    asks for the status of the command line's runs that are under way, and of REVISITED others in turn.
    """

    def __init__(self, outputs: Path, limit: int, files: Path | None = None) -> None:
        """`limit` is how many jobs may wait, pause or run at once; `files` is the folder below which visitors may name
        files of this machine, None if they may name none."""
        self.outputs, self.limit, self.files = outputs, limit, files
        self.queue = Queue(outputs / QUEUE)
        self.version = 0  # grows whenever an entry is another
        self._lock, self._logs = threading.RLock(), RunLogs()
        self._token, self._listed, self._turn = "", 0, 0
        self._jobs: dict[str, RunEntry] = {}
        self._folders: dict[str, RunEntry | None] = {}  # None for what holds no run, yet
        self._times: dict[str, int] = {}  # of the event logs of the runs in `_folders`
        self._sorted, self._active = list[RunEntry](), list[RunEntry]()
        self._away: dict[str, threading.Timer] = {}  # runs that are about to be removed: nobody finds them

    def add(self, config: RunConfig) -> RunEntry:
        """Queue a run; QueueFull if there is no room. The same options again are the same run."""
        with self._lock:
            self.check_room()
            job = self.queue.add(config)
            if job.state in ("failed", "stopped"):
                self.queue.retry(job)
            if job.name in self._away:  # somebody wants it after all
                return self.bring_back(job.name)
            return self.chosen(job.name)

    def check_room(self) -> None:
        """QueueFull if no further run may wait."""
        counts = self.queue.counts()
        active = sum(counts.get(state, 0) for state in UNFINISHED)
        if active >= self.limit:
            raise QueueFull(f"the queue is full: {active} runs wait or are under way", hint="try again later")

    def all(self) -> tuple[list[RunEntry], list[RunEntry], int]:
        """(all runs, newest first; those of them that wait or are under way; a number that is another if any is)."""
        with self._lock:
            self._look()
            return self._sorted, self._active, self.version

    def find(self, name: object) -> RunEntry | None:
        """The run of that name; None where there is none. The name never becomes a path."""
        with self._lock:
            self._look()
            if not isinstance(name, str) or name in self._away:
                return None
            return self._jobs.get(name) or self._folders.get(name)

    def chosen(self, name: object) -> RunEntry:
        """As `find`; ConfigError where there is none."""
        entry = self.find(name)
        if entry is None:
            raise ConfigError("choose a run first")
        return entry

    def log(self, entry: RunEntry) -> RunLog:
        """What has happened in a run."""
        return self._logs.read(entry.folder)

    def place(self, entry: RunEntry) -> int:
        """How many jobs are taken before this one."""
        return self.queue.ahead_of(entry.job) if entry.job is not None and entry.state == "queued" else 0

    def delete(self, entry: RunEntry) -> None:
        """Remove a run and its files; ConfigError or RunBusy, naming the process, if one works on it."""
        if entry.job is not None:
            self.queue.delete(entry.job)
        else:
            entry.folder.delete()

    def put_away(self, entry: RunEntry) -> None:
        """Out of sight at once, and removed after UNDO seconds unless it is brought back. A server that ends before has
        removed nothing. ConfigError or RunBusy, naming the process, if one works on it."""
        if entry.active:
            raise ConfigError(f"the run {entry.name} is under way", hint="stop it first")
        if entry.folder.path.is_dir():
            with entry.folder.lock():
                pass
        timer = threading.Timer(UNDO, self._remove, [entry])
        timer.daemon = True
        with self._lock:
            if entry.name not in self._away:
                self._away[entry.name] = timer
                self._arrange()
                timer.start()

    def bring_back(self, name: object) -> RunEntry:
        """Undo `put_away`; ConfigError once it is too late."""
        with self._lock:
            timer = self._away.pop(name, None) if isinstance(name, str) else None
            if timer is None:
                raise ConfigError("it is too late: the run is removed")
            timer.cancel()
            self._arrange()
            return self.chosen(name)

    def _remove(self, entry: RunEntry) -> None:
        with self._lock:
            if entry.name not in self._away:
                return
            try:
                self.delete(entry)
            except (OSError, Sds3dError) as error:  # somebody has taken it up meanwhile: it is shown again
                logging.getLogger(__name__).warning("%s is not removed: %s", entry.name, error)
            finally:
                del self._away[entry.name]
                self._look()
                self._arrange()

    def _arrange(self) -> None:
        """The entries that are shown."""
        self.version += 1
        entries = [*self._jobs.values(), *(entry for entry in self._folders.values() if entry is not None)]
        self._sorted = sorted(
            (entry for entry in entries if entry.name not in self._away), key=lambda entry: -entry.added
        )
        self._active = [entry for entry in self._sorted if entry.active]

    def _look(self) -> None:
        before = self.version
        self._look_at_queue()
        self._look_at_folders()
        if self.version != before:
            self._arrange()

    def _look_at_queue(self) -> None:
        changes = self.queue.changes_since(self._token)
        if changes.complete and self._jobs:
            self._jobs, self.version = {}, self.version + 1
        for job in changes.jobs:
            self._jobs[job.name] = RunEntry(
                job.name, job.run, job.state, job.reason, job.prompt, job.guidance, job.added, job
            )
        for name in changes.deleted:
            self._jobs.pop(name, None)
        self.version += bool(changes.jobs or changes.deleted)
        self._token = changes.token

    def _look_at_folders(self) -> None:
        """Take up new folders, forget those that are gone, and see how others are."""
        changed = _time_of(self.outputs)
        if changed != self._listed:
            settled = time.time_ns() - changed > 1e9 * SETTLED
            self._listed = changed if settled else 0
            found = {path.name for path in self.outputs.glob("[!.]*") if path.is_dir()} - {QUEUE}
            for name in self._folders.keys() - found:
                self.version += self._folders.pop(name) is not None
            for name in sorted(found):
                if self._folders.get(name) is None:
                    self._read(name)
        names = list(self._folders)
        in_turn = {*(names * 2)[self._turn : self._turn + REVISITED]}
        self._turn = (self._turn + REVISITED) % max(1, len(names))
        for name in names:
            entry = self._folders[name]
            if name in in_turn or (entry is not None and entry.state in UNDER_WAY):
                self._read(name)

    def _read(self, name: str) -> None:
        """Ask a folder of the command line how it is, unless it has ended and its log is as it was."""
        folder, old = RunFolder(self.outputs / name), self._folders.get(name)
        changed = _time_of(folder.reader().path)
        if old is not None and old.state not in UNDER_WAY and changed == self._times.get(name):
            return
        self._times[name] = changed
        try:
            status = folder.status()
            if old is not None and (old.state, old.reason) == (status.state, status.reason):
                return
            config, added = folder.config(), folder.config_file.stat().st_mtime
            entry = RunEntry(name, folder, status.state, status.reason, config.prompt, config.guidance.name, added)
        except (OSError, Sds3dError):  # it holds no run, or a damaged one
            entry = None
        self.version += entry is not old
        self._folders[name] = entry


def _time_of(path: Path) -> int:
    """When it changed last, in nanoseconds; 0 where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
