"""Files of a run that are made when somebody asks: other formats of its mesh, in a process of their own."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sds3d.errors import ConfigError, Sds3dError
from sds3d.run.artifacts import ARTIFACTS, artifacts_of, side_files
from sds3d.run.folder import RunFolder

from .run_index import RunEntry

TIME_LIMIT = 300.0  # seconds for an export
WAITING = 8  # exports that may wait for their turn


def files_at(entry: RunEntry, step: int | None) -> dict[str, Path]:
    """Files of a run that may be fetched, by name: its results, or those exported from the checkpoint of a step."""
    return RunFolder(entry.folder.results_folder(step=step)).files()


def make_file(entry: RunEntry, file_format: str) -> tuple[int | None, list[str]]:
    """Write one more format: (step of the checkpoint it comes from, None for that of a finished run; names of its file
    and of those it refers to).

    Blocks until the export has ended; ConfigError says in one line what went wrong.
    """
    step = None
    command = [sys.executable, "-m", "sds3d_app", "export", str(entry.folder.path), "--format", file_format]
    if entry.folder.report() is None:
        step = next(iter(entry.folder.checkpoint_steps()), None)
        if step is None:
            raise ConfigError(f"{entry.name} has no checkpoint yet", hint="wait for the first")
        command += ["--step", str(step)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"the export took longer than {TIME_LIMIT:.0f} s and was ended") from error
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it failed without a message"]
        raise ConfigError(last[0].removeprefix("error: "))
    main = entry.folder.results_folder(step=step) / ARTIFACTS[file_format]
    return step, [path.name for path in (main, *side_files(main))]


@dataclass(frozen=True)
class Export:
    """What became of the last format that somebody asked a run for."""

    file_format: str
    step: int | None = None
    names: tuple[str, ...] = ()  # empty while it is being made
    problem: str = ""


class FileMaker:
    """Makes files in the background, one at a time, and remembers the last of each run: a closed tab loses nothing."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="sds3d-export")
        self.last = dict[str, Export]()  # by the name of the run
        self._lock, self._waiting = threading.Lock(), 0

    def start(self, entry: RunEntry, file_format: object) -> None:
        """Begin; ConfigError for what is no format of the run, or if too many wait."""
        known = artifacts_of(entry.scene)
        if not isinstance(file_format, str) or file_format not in known:
            raise ConfigError("choose one of the formats of this run", hint=", ".join(known))
        with self._lock:
            if self._waiting >= WAITING:
                raise ConfigError(f"{WAITING} files are being made already", hint="try again later")
            self._waiting += 1
            self.last[entry.name] = Export(file_format)
        self._executor.submit(self._make, entry, file_format)

    def close(self) -> None:
        """Begin nothing more."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _make(self, entry: RunEntry, file_format: str) -> None:
        try:
            step, names = make_file(entry, file_format)
            result = Export(file_format, step, tuple(names))
        except (Sds3dError, OSError) as error:
            result = Export(file_format, problem=str(error))
        with self._lock:
            self._waiting -= 1
            self.last[entry.name] = result
