"""A run on disk. RunFolder alone knows the names of a run's files; everybody else asks it.

<run>/
  config.json              what a person said (`--config` takes it); resolved.json: every option with its value
  run.lock                 held (flock) by the process that runs it
  events.jsonl             what happened; the run's state is told by its last lines and the lock
  checkpoints/step-000100/ where `resume` goes on (sds3d.run.checkpoint)
  previews/step-000100.png
  live.bin, watched        the scene as it is now (sds3d.run.live), while somebody looks; touched by whoever does
  report.json              written last, when the results are there
  sheet.png, mesh.glb, ... the results (sds3d.run.artifacts); those of further particles in particle-2/, ...
  inputs/                  the pictures and other files that it began with (sds3d.run.inputs)
  textured/                an .obj among them again, with its new materials
  exports/step-000100/     exports from a checkpoint
"""

import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sds3d.atomic import is_at, is_draft, naming, remove_tree, temporary_folder, write_json, writing
from sds3d.config import RunConfig, read_json_object
from sds3d.errors import CheckpointError, ConfigError, RunBusy, Sds3dError
from sds3d.run import inputs
from sds3d.run.artifacts import ARTIFACTS, OVERVIEW, PICTURES, side_files
from sds3d.run.checkpoint import Checkpoint, checkpoints_in, load_newest, load_step, save_checkpoint, stage_of, step_of
from sds3d.run.events import Event, EventLog, EventReader, Failed, Finished, Paused, Resumed, Started, latest

SLUG_LENGTH = 48  # characters of a folder's name that come from the prompt
WATCHED = 5.0  # seconds for which a look counts
LOCK_WAIT = 0.3  # seconds: whoever asks for the state of a run holds its lock for a moment
State = Literal["new", "running", "paused", "interrupted", "stopped", "failed", "done"]


@dataclass(frozen=True)
class Holder:
    """The process that works on a run."""

    pid: int
    host: str
    since: float  # time of day

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host} since {when}"


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    new: nothing has been computed. running, paused: a process holds it. interrupted: it can be resumed from its newest
    checkpoint. stopped: ended early by a person, results are there. failed: ended with an error. done: all steps done,
    results are there.
    """

    state: State
    step: int = 0
    reason: str = ""  # of a failure


class RunFolder:
    """One run's folder, whether it is there yet or not. Making a RunFolder touches no file."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"  # what a person said, for `--config`
        self._resolved_file = self.path / "resolved.json"
        self._lock_file = self.path / "run.lock"
        self._event_file = self.path / "events.jsonl"
        self._checkpoints, self._previews = self.path / "checkpoints", self.path / "previews"
        self.live_file, self._watched_file = self.path / "live.bin", self.path / "watched"
        self._report_file = self.path / "report.json"

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    @contextmanager
    def claim(cls, wanted: Path | str) -> Iterator["RunFolder"]:
        """A folder for a new run, locked inside the `with`: `wanted`, or the first of wanted-2, wanted-3, ... that is
        free, which is one that does not exist or is empty.

        Of several processes that want the same folder, the one that gets its lock has it.
        """
        wanted = Path(wanted)
        if wanted.name in ("", ".."):
            raise ConfigError(
                f"{str(wanted)!r} is no name for a run folder", hint="name a new one, such as outputs/mug"
            )
        for number in itertools.count(1):
            folder, is_ours = cls(wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")), False
            with writing(folder.path), suppress(FileExistsError):
                folder.path.mkdir(parents=True)
            with ExitStack() as held:
                if folder.is_free():
                    with suppress(RunBusy):
                        held.enter_context(folder.lock())
                        is_ours = folder.is_free()  # still: another process may have had it in between
                if is_ours:
                    yield folder
                    return

    @classmethod
    def create(cls, path: Path | str, config: RunConfig, checkpoint: Checkpoint | None = None) -> "RunFolder":
        """A folder with a config and a copy of a checkpoint, whole or absent; OutputError if it exists."""
        path = Path(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary_folder(path) as scratch, naming(path.parent, scratch):
                folder = cls(scratch / path.name)
                folder.path.mkdir()
                folder.write_config(config)
                if checkpoint is not None:
                    folder.save_checkpoint(checkpoint)
                os.rename(folder.path, path)
        return cls(path)

    def exists(self) -> bool:
        """Whether a run has begun here."""
        return self._resolved_file.is_file()

    def delete(self) -> None:
        """Remove everything; RunBusy while a process works on the run."""
        with self.lock():
            doomed = self.path.with_name(f".{self.path.name}.{os.getpid()}.deleted")
            with writing(self.path):
                os.rename(self.path, doomed)  # at once: whoever waits for the lock finds nothing at its path
        shutil.rmtree(doomed, ignore_errors=True)

    # --- config ---------------------------------------------------------------------------------------------------

    def config(self) -> RunConfig:
        """The run's config, with changes made during the run; CheckpointError where there is no run."""
        if not self.exists():
            raise CheckpointError(f"{self.path} is not a run folder: it has no {self._resolved_file.name}")
        said = read_json_object(self.config_file) if self.config_file.is_file() else {}
        data = (inputs.from_file(each, self.path) for each in (said, read_json_object(self._resolved_file)))
        return RunConfig.restore(*data)

    def write_config(self, config: RunConfig) -> RunConfig:
        """config.json and resolved.json; the config with the files that it names copied into the folder."""
        is_new = not self.exists()
        try:
            config = inputs.keep(config, self.path)
            write_json(self.config_file, inputs.to_file(config.said, self.path))
            write_json(self._resolved_file, inputs.to_file(config.to_dict(), self.path))
        except Sds3dError:  # perhaps only the last wait for the disk failed, and the file is there
            if is_new:  # neither a run nor a free folder
                self.config_file.unlink(missing_ok=True)
                self._resolved_file.unlink(missing_ok=True)
                remove_tree(self.path / inputs.INPUTS)
            raise
        return config

    def holds(self, config: RunConfig) -> bool:
        """Whether the run's config is this one, wherever the files are that they name."""
        return inputs.are_same(self.config(), config)

    def changed_inputs(self) -> list[str]:
        """Warnings of files that are not what they were when the run began."""
        return inputs.changes(self.config(), self.path)

    # --- who works on it ------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Inside, no other process (or thread) can work on the run; RunBusy, naming its holder, where one does.

        The operating system lets go of the lock when the process ends, however it ends.
        """
        with writing(self._lock_file):
            file = self._lock_file.open("ab+", buffering=0)
        with file:
            with writing(self._lock_file):
                is_ours = _acquire(file.fileno())
            if not is_ours:
                holder = _read_holder(file.fileno())
                raise RunBusy(f"{self.path} is in use by {holder}", hint="wait for it, or stop it first")
            if not is_at(file.fileno(), self._lock_file):
                raise RunBusy(f"{self.path} was deleted at this moment")
            about = Holder(os.getpid(), socket.gethostname(), round(time.time(), 3))
            with writing(self._lock_file):
                file.truncate(0)
                file.write(json.dumps(asdict(about)).encode())
            yield

    def is_free(self) -> bool:
        """Whether the folder is there and holds no files, so that a new run can take it.

        What a process left that was killed while it wrote its first file does not count: whoever writes has the lock.
        """
        return self.path.is_dir() and all(path == self._lock_file or is_draft(path) for path in self.path.iterdir())

    def holder(self) -> Holder | None:
        """The process that works on the run now."""
        with suppress(OSError), self._lock_file.open("rb") as file:  # no run, or a file system without locks
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read_holder(file.fileno())
        return None

    # --- what happened --------------------------------------------------------------------------------------------

    @cached_property
    def _log(self) -> EventLog:
        return EventLog(self._event_file)

    def append(self, event: Event) -> None:
        """Write an event into the log; for the process that holds the lock."""
        self._log.append(event)

    def reader(self) -> EventReader:
        """Reads the log as it grows, from its beginning."""
        return EventReader(self._event_file)

    def follow(self, poll: float = 0.2, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Every event so far and to come, until the run ends or `stop()` is true; looks every `poll` seconds."""
        reader = self.reader()
        while True:
            events = [event for _, event in reader.read()]
            yield from events
            if stop() or (events and isinstance(events[-1], Finished | Failed)):
                return
            time.sleep(poll)

    def status(self) -> RunStatus:
        """The one rule by which the state of a run is told: how it last ended, or else whether a process holds it."""
        step, last = 0, None
        for _, event in latest(self._event_file):
            step = step or getattr(event, "step", 0)
            if isinstance(event, Started | Paused | Resumed | Finished | Failed):
                last = event
                break
        if isinstance(last, Failed):
            return RunStatus("failed", step, last.reason)
        if isinstance(last, Finished):
            step = step or int(last.report.get("steps", 0))
            if last.interrupted:
                return RunStatus("interrupted" if self.holder() is None else "running", step)
            return RunStatus("done" if last.report.get("steps") == self._planned_steps() else "stopped", step)
        if self.holder() is not None:
            return RunStatus("paused" if isinstance(last, Paused) else "running", step)
        return RunStatus("interrupted" if step or last is not None else "new", step)

    def _planned_steps(self) -> int:
        """The config's steps; a status is asked for often, so nothing else of it is read."""
        try:
            return int(json.loads(self._resolved_file.read_bytes())["steps"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def save_checkpoint(self, checkpoint: Checkpoint, milestone_every: int = 0) -> Path:
        """See sds3d.run.checkpoint.save_checkpoint."""
        return save_checkpoint(self._checkpoints, checkpoint, milestone_every)

    def checkpoint_steps(self) -> list[int]:
        """Steps of all checkpoints, newest first."""
        return [step_of(path) for path in checkpoints_in(self._checkpoints)]

    def load_checkpoint(self, step: int | None = None) -> tuple[Checkpoint | None, list[str]]:
        """(checkpoint of `step`, or the newest whole one, or None; why newer ones were passed over)."""
        return load_newest(self._checkpoints) if step is None else (load_step(self._checkpoints, step), [])

    def stage(self) -> int:
        """The stage that the newest checkpoint is of; 0 before there is one, and where it is damaged."""
        for newest in checkpoints_in(self._checkpoints)[:1]:
            with suppress(CheckpointError):
                return stage_of(newest)
        return 0

    # --- previews and results -------------------------------------------------------------------------------------

    def preview_path(self, step: int) -> Path:
        """Where the preview of a step is."""
        return self._previews / f"step-{step:06d}.png"

    def previews(self) -> list[Path]:
        """All previews that are kept, oldest first."""
        return sorted(self._previews.glob("step-*.png"))

    def newest_preview(self) -> Path | None:
        """The last preview."""
        return max(self._previews.glob("step-*.png"), default=None)

    def preview(self, name: str) -> Path | None:
        """The preview of that file name; None where there is none. The name never becomes a path."""
        return next((path for path in self._previews.glob("step-*.png") if path.name == name), None)

    def watch(self) -> None:
        """Tell the run that somebody looks: for WATCHED seconds it keeps `live_file` up to date."""
        with suppress(OSError):  # it is gone, or on a disk that may only be read: then there are pictures
            if self.exists():
                self._watched_file.touch()

    def is_watched(self) -> bool:
        """Whether somebody looks."""
        try:
            return abs(time.time() - self._watched_file.stat().st_mtime) < WATCHED
        except OSError:
            return False

    def write_live(self, data: bytes) -> None:
        """Another `live_file`. It need not survive a power cut, so nothing waits for the disk."""
        with writing(self.live_file), temporary_folder(self.live_file) as draft:
            (draft / self.live_file.name).write_bytes(data)
            os.replace(draft / self.live_file.name, self.live_file)

    def end_live(self) -> None:
        """Nothing changes any more: the results show it."""
        self.live_file.unlink(missing_ok=True)
        self._watched_file.unlink(missing_ok=True)

    def report(self) -> dict[str, Any] | None:
        """report.json; None before the results are there, ConfigError where it is damaged."""
        return read_json_object(self._report_file) if self._report_file.is_file() else None

    def write_report(self, report: Mapping[str, Any]) -> None:
        """report.json: from now on the run has results."""
        write_json(self._report_file, report)

    def add_export(self, path: Path, stats: Mapping[str, Any], step: int | None = None) -> None:
        """Note the figures of a file that was exported later in report.json, or in that of exports/step-N/."""
        folder = self.results_folder(step=step)
        report = folder / self._report_file.name
        known = read_json_object(report) if report.is_file() else {}
        exports = {**known.get("exports", {}), path.relative_to(folder).as_posix(): dict(stats)}
        write_json(report, {**known, "exports": exports})

    def results_folder(self, particle: int = 1, step: int | None = None) -> Path:
        """Where results go: the folder itself, particle-N/ for further particles, exports/step-N/ for a checkpoint."""
        folder = self.path if step is None else self.path / "exports" / f"step-{step:06d}"
        return folder if particle == 1 else folder / f"particle-{particle}"

    def artifact(self, name: str, particle: int = 1) -> Path:
        """The path of a result by its name in ARTIFACTS, whether it is there or not."""
        return self.results_folder(particle) / ARTIFACTS[name]

    def artifacts(self) -> dict[str, Path]:
        """The results that are there, by name; "particles" is the overview of a run with several."""
        paths = {"particles": self.path / OVERVIEW, **{name: self.artifact(name) for name in ARTIFACTS}}
        return {name: path for name, path in paths.items() if path.is_file()}

    def picture(self) -> Path | None:
        """The picture that stands for a finished run."""
        return next((self.path / name for name in PICTURES if (self.path / name).is_file()), None)

    def files(self) -> dict[str, Path]:
        """Every file that a person may fetch, by name: results with the files that belong to them, configs, report."""
        paths = [path for found in self.artifacts().values() for path in (found, *side_files(found))]
        paths += [self.config_file, self._resolved_file, self._report_file]
        return {path.name: path for path in paths if path.is_file()}


def run_name(config: RunConfig) -> str:
    """`<slug>-<seed>`: lower-case ASCII letters, digits and hyphens only, so never a path or an option."""
    plain = unicodedata.normalize("NFKD", config.prompt).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:SLUG_LENGTH].rstrip("-")
    slug = slug or "prompt-" + hashlib.sha256(config.prompt.encode()).hexdigest()[:8]
    return f"{slug}-{config.seed}"


def _acquire(handle: int) -> bool:
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)


def _read_holder(handle: int) -> Holder:
    try:
        return Holder(**json.loads(os.pread(handle, 4096, 0)))
    except (OSError, ValueError, TypeError):  # it has the lock, and has not written its name yet
        return Holder(0, "this machine", time.time())
