"""Worker processes of this machine: kept at their number, each on its GPU. They save and end with this process."""

import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from sds3d.atomic import temporary_folder, writing
from sds3d.errors import Sds3dError
from sds3d.jobs import Queue, Selection

from ..exit_codes import DONE, INTERRUPTED

LOOK_EVERY = 1.0  # seconds
FAST_DEATH = 10.0  # seconds; a worker that ends sooner was not ended by its work
GIVE_UP = 6  # fast deaths in a row, without a job that was begun meanwhile, after which a place stays empty
GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass
class _Place:
    """One of the pool's workers: the process that is there now and those that were there before."""

    index: int
    process: subprocess.Popen[bytes] | None = None
    begun: float = 0.0
    next_start: float | None = None  # when the process that ended is replaced: inf for never, None while it is there
    code: int = DONE  # how it ended
    fast_deaths: int = 0  # in a row
    futile_deaths: int = 0  # those since the queue's number of claims was this:
    claims: int = 0


class WorkerPool:
    """As RayWorkerPool, with processes: `start`, `at_work`, `end` and `problem`."""

    def __init__(
        self, queue: Queue, workers: int, only: Selection | None = None, forever: bool = False, gpus: int = 0
    ) -> None:
        """`only` leaves all other jobs of the queue alone. `forever` waits for jobs yet to come, and replaces workers
        however they end; without it a worker that ends by itself has nothing left to do. `gpus` is how many there are:
        worker i gets GPU i mod `gpus`."""
        self.queue, self._forever, self._gpus = queue, forever, gpus
        self._places = [_Place(index) for index in range(workers)]
        self._only, self._scratch = only, ExitStack()
        ours = Path(tempfile.gettempdir()) / "sds3d-workers"
        with writing(ours):
            self._names = self._scratch.enter_context(temporary_folder(ours)) / "names"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._crash: Exception | None = None

    def start(self) -> None:
        """Start the workers, and a thread that replaces those that die."""
        if self._only is not None:
            self._names.write_text("\n".join(self._only.names), "utf-8")
        for place in self._places:
            self._start(place)
        self._thread.start()

    def at_work(self) -> bool:
        """Whether any worker is there, or to be replaced. Raises what ended the thread that replaces them."""
        if self._crash is not None:
            raise self._crash
        return any(place.next_start != math.inf for place in self._places)

    def problem(self) -> int:
        """The exit code of a worker that ended with an error, or a negative number if workers were killed again and
        again; 0 if all is well."""
        return next((place.code for place in self._places if place.code not in (DONE, INTERRUPTED)), DONE)

    def end(self) -> None:
        """Tell all to save and give back what they do, and wait for them."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        processes = [place.process for place in self._places if place.process is not None]
        for process in processes:
            process.terminate()  # does nothing to one that has ended
        for process in processes:
            process.wait()
        self._scratch.close()

    def _keep(self) -> None:
        try:
            while not self._ended.wait(LOOK_EVERY):
                with suppress(Sds3dError, OSError):  # no disk or no process for now: there may be one at the next look
                    for place in self._places:
                        self._look(place)
                    self.queue.reap()
        except Exception as error:  # whoever waits for the workers would wait for ever
            self._crash = error
            raise
        finally:
            self.queue.leave_thread()

    def _look(self, place: _Place) -> None:
        assert place.process is not None
        if place.next_start is None and place.process.poll() is not None:
            self._plan_next(place, place.process.returncode)
        if place.next_start is not None and time.monotonic() >= place.next_start:
            self._start(place)

    def _plan_next(self, place: _Place, code: int) -> None:
        """The next process comes later after each fast death: it may die of what the one before died of."""
        is_fast, claims = time.monotonic() - place.begun < FAST_DEATH, place.claims
        with suppress(Sds3dError):
            claims = self.queue.claims()
        place.fast_deaths = place.fast_deaths + 1 if is_fast else 0
        place.futile_deaths = place.futile_deaths + 1 if is_fast and claims == place.claims else 0
        place.code, place.claims = code, claims
        if not self._forever and (code >= 0 or place.futile_deaths >= GIVE_UP):
            place.next_start = math.inf
        else:
            doubled = 2.0 ** min(place.fast_deaths, 10)
            place.next_start = time.monotonic() + min(FAST_DEATH, doubled / 2 - 1)  # 0, 1, 3, 7, 10, 10, ... seconds

    def _start(self, place: _Place) -> None:
        threads = max(1, (os.cpu_count() or 1) // len(self._places))
        command = [sys.executable, "-m", "sds3d_app.workers.process", str(self.queue.folder)]
        command += ["--attempts", str(self.queue.attempts), "--threads", str(threads), "--parent", str(os.getpid())]
        command += ["--forever"] if self._forever else []
        command += ["--only", str(self._names)] if self._only is not None else []
        environment = environment_of(place.index, len(self._places), self._gpus, os.environ)
        environment["OMP_NUM_THREADS"] = str(threads)
        place.process = subprocess.Popen(command, env=environment, start_new_session=True)
        place.begun, place.next_start, place.code = time.monotonic(), None, DONE


def gpu_count() -> int:
    """How many GPUs torch sees, as CUDA_VISIBLE_DEVICES has it."""
    import torch

    return torch.cuda.device_count()


def environment_of(index: int, workers: int, gpus: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of worker `index` of `workers`: several workers get one GPU each, in turn, of the `gpus` that
    there are, or of those that CUDA_VISIBLE_DEVICES names. One worker gets what this process has."""
    names = [name.strip() for name in environment.get(GPUS, "").split(",") if name.strip()]
    names = names[:gpus] if GPUS in environment else [str(number) for number in range(gpus)]
    return {**environment, **({GPUS: names[index % len(names)]} if workers > 1 and names else {})}


def sharing_note(workers: int, gpus: int) -> str:
    """What to tell a person about workers that share a GPU; "" if none do."""
    if not 0 < gpus < workers:
        return ""
    return f"{workers} workers share {gpus} GPU{'s' if gpus > 1 else ''}: each holds its own prior in the GPU's memory"
